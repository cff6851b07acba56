"""What is mutated, and which tests guard it: those that state its laws, the quick ones first."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

MODULES = (
    "guidance.py", "base/noise.py", "denoiser.py", "condition/*.py",
    "trainer/optimiser.py", "trainer/conditions.py", "trainer/gradients.py", "trainer/loop.py", "trainer/order.py",
    "metrics/*.py", "evaluate/measure.py", "evaluate/judges.py", "evaluate/side.py", "evaluate/evaluation.py",
    "evaluate/networks.py", "evaluate/scores.py", "evaluate/results.py", "evaluate/pick.py",
)  # fmt: skip

_PROJECT = Path(__file__).resolve().parents[2]
_VALUES = "tests/test_values.py"
_TRAINER = "tests/trainer/test_trainer.py"
_ELSEWHERE = (  # of the loader, its processes, locks and launchers; named by how they begin
    "a_batch_is_drawn", "loader_processes", "a_loader", "100_000", "under_a_launcher", "one_run", "a_changed_setting",
    "another_thread", "watching_and_loading",
)  # fmt: skip
_SIMULATED = ("intervals_hold_the_truth", "intervals_are_not_bought", "interval_of_a_frechet")  # half a minute


def _deselected(file: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for name in names for part in ("--deselect", f"{file}::test_{name}"))


_OF_A_RUN = ("tests/trainer/test_stages_run.py", _TRAINER, *_deselected(_TRAINER, _ELSEWHERE))

_OF_AN_EVALUATION = (
    "tests/evaluate/test_measure.py", "tests/metrics/test_pairs.py", "tests/evaluate/test_scores.py",
    "tests/evaluate/test_evaluation.py",
    *_deselected("tests/evaluate/test_evaluation.py", ("processes_share",)), _VALUES,
)  # fmt: skip

_GUARDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("trainer/conditions.py", ()),
    ("trainer/order.py", (f"{_TRAINER}::test_an_epoch_is_a_permutation",)),
    ("trainer/*.py", _OF_A_RUN),
    ("denoiser.py", (_VALUES,)),
    ("guidance.py", (_VALUES,)),
    ("condition/*.py", ("tests/condition/test_condition.py", _VALUES)),
    (
        "metrics/intervals.py",
        ("tests/metrics/test_metrics.py", *_deselected("tests/metrics/test_intervals.py", _SIMULATED), _VALUES),
    ),
    ("metrics/copies.py", ("tests/evaluate/test_copies.py", "tests/metrics/test_metrics.py", _VALUES)),
    *((f"metrics/{name}.py", _OF_AN_EVALUATION) for name in ("pairs", "traits", "frequency", "within", "metric")),
    ("metrics/*.py", ("tests/metrics/test_metrics.py", _VALUES)),
    ("evaluate/*.py", _OF_AN_EVALUATION),
)
"""Beside the tests of the module's own name, which come first."""


def modules(package: Path) -> list[str]:
    """The modules that are mutated, in the order of `MODULES`."""
    return [str(path.relative_to(package)) for pattern in MODULES for path in sorted(package.glob(pattern))]


def guards(module: str) -> tuple[str, ...]:
    """Arguments of pytest."""
    own = str(Path("tests", module).with_name(f"test_{Path(module).name}"))
    others = next((tests for pattern, tests in _GUARDS if fnmatch(module, pattern)), ())
    named = (_PROJECT / own).exists()
    return (own, *(part for part in others if part != own)) if named else others
