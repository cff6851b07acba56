"""What is mutated, and which tests guard it: those that state its laws, the quick ones first."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

MODULES = (
    "guidance.py", "schedule.py", "denoiser.py", "condition/*.py",
    "trainer/optimiser.py", "trainer/conditions.py", "trainer/gradients.py", "trainer/loop.py", "trainer/order.py",
    "metrics/*.py", "evaluate/measure.py", "evaluate/run.py", "evaluate/scores.py",
)  # fmt: skip

_TRAINER = "tests/test_trainer.py"
_VALUES = "tests/test_values.py"
_ELSEWHERE = (  # of the loader, its processes, locks and launchers
    "processes", "100_000", "milliseconds", "loader", "launcher", "one_run", "changed_setting", "thread_count",
)  # fmt: skip
_OF_A_RUN = ("tests/test_stages_run.py", _TRAINER, "-k", " and ".join(f"not {word}" for word in _ELSEWHERE))

_GUARDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("guidance.py", ("tests/test_guidance.py", _VALUES)),
    ("schedule.py", ("tests/test_schedule.py",)),
    ("denoiser.py", (_VALUES, "tests/test_denoiser.py")),
    ("condition/*.py", ("tests/test_condition.py", _VALUES)),
    ("trainer/conditions.py", ("tests/test_conditions.py", _TRAINER, "-k", "condition or truncation")),
    ("trainer/order.py", ("tests/test_order.py", _TRAINER, "-k", "order or epoch or balance")),
    ("trainer/optimiser.py", ("tests/test_optimiser.py", *_OF_A_RUN)),
    ("trainer/*.py", _OF_A_RUN),
    ("metrics/*.py", ("tests/test_metrics.py", _VALUES)),
    ("evaluate/*.py", ("tests/test_evaluate.py", _VALUES)),
)


def modules(package: Path) -> list[str]:
    """The modules that are mutated, in the order of `MODULES`."""
    return [str(path.relative_to(package)) for pattern in MODULES for path in sorted(package.glob(pattern))]


def guards(module: str) -> tuple[str, ...]:
    """Arguments of pytest."""
    return next(tests for pattern, tests in _GUARDS if fnmatch(module, pattern))
