"""Laws of `make mutants`: a sample that can be drawn again, of changes that mean something, each judged by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="needs the extra `mutants`, which `make mutants` installs")

from tests.mutants.guards import guards, modules
from tests.mutants.judge import PACKAGE
from tests.mutants.places import mutants_at, places, sample

PROJECT = Path(__file__).resolve().parents[1]
SOURCE = '''
def half(value: int | None, *, up: bool = False) -> int | None:
    """Half of it, rounded."""
    rest: int | None = 1 if up else 0
    return (value + rest) // 2
'''


def test_annotations_and_the_stars_of_signatures_are_no_places() -> None:
    found = {(place.line, place.column, place.kind) for place in places("half.py", SOURCE)}
    assert found == {
        (2, 42, "ReplaceFalseWithTrue"),
        (4, 23, "NumberReplacer"),
        (4, 28, "AddNot"),
        (4, 36, "NumberReplacer"),
        (5, 18, "ReplaceBinaryOperator_Add"),
        (5, 26, "ReplaceBinaryOperator_FloorDiv"),
        (5, 29, "NumberReplacer"),
    }


def test_every_mutant_compiles_and_changes_what_it_says() -> None:
    for place in places("half.py", SOURCE):
        for mutant in mutants_at(place, SOURCE, 0):
            compile(mutant.source, "half.py", "exec")
            assert mutant.source != SOURCE
            assert mutant.source.replace(mutant.new, mutant.old) == SOURCE


def test_a_sample_can_be_drawn_again_and_a_change_elsewhere_leaves_it() -> None:
    sources = {f"{name}.py": SOURCE.replace("half", name) for name in ("a", "b", "c")}
    drawn, sizes = sample(sources, 10, 1)
    assert sizes == dict.fromkeys(sources, 7)
    assert sorted(sum(mutant.module == name for mutant in drawn) for name in sources) == [3, 3, 4]
    assert len({(m.module, m.line, m.operator.partition("_")[0], m.old) for m in drawn}) == 10
    again, _ = sample(sources, 10, 1)
    assert again == drawn
    other, _ = sample(sources, 10, 2)
    assert {m.key for m in other} != {m.key for m in drawn}
    longer = {name: f"'''Above.'''\n{source}" for name, source in sources.items()}
    moved, _ = sample(longer, 10, 1)
    assert [(m.module, m.line - 1, m.new) for m in moved] == [(m.module, m.line, m.new) for m in drawn]


def test_a_working_copy_says_which_changes_are_noticed_and_is_then_as_before(tmp_path: Path) -> None:
    """Of three: one that a test notices, one that none does, one that never ends."""
    package, tests = tmp_path / "toy" / PACKAGE, tmp_path / "toy" / "tests"
    (package / "weights").mkdir(parents=True)
    tests.mkdir()
    (package / "__init__.py").write_text("")
    (package / "half.py").write_text(
        "def half(value):\n    while value % 2:\n        value += 1\n    return value // 2\n"
    )
    law = "def test_half():\n    assert half(4) == 2\n    assert half(3) in (1, 2)\n"
    (tests / "test_half.py").write_text(f"from taxadiffusion.half import half\n\n\n{law}")
    script = f"""
        import json, sys
        from pathlib import Path
        sys.path.insert(0, {str(PROJECT)!r})
        from tests.mutants import judge
        judge._SPARE_S = 1
        copy = judge.WorkingCopy(Path({str(tmp_path / "toy")!r}), Path({str(tmp_path / "copy")!r}))
        own = copy.source("half.py")
        changed = [own, own.replace("// 2", "// 3"), own.replace("+= 1", "-= 1"), own.replace("+= 1", "+= 2")]
        verdicts = [copy.test("half.py", source, ["tests/test_half.py"], 0.1) for source in changed]
        assert copy.source("half.py") == own
        print(json.dumps([[v.killed, v.exit_code] for v in verdicts]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert run.returncode == 0, run.stderr
    plain, noticed, missed, endless = json.loads(run.stdout)
    assert plain == missed == [False, 0]
    assert noticed == [True, 1]
    assert endless[0]
    assert endless[1] < 0


def test_a_module_is_guarded_by_the_tests_of_its_name_wherever_they_lie() -> None:
    for module in modules(PROJECT / PACKAGE):
        name = f"taxadiffusion.{Path(module).with_suffix('').as_posix().replace('/', '.')}"
        of_its_name = sorted((PROJECT / "tests").rglob(f"test_{Path(module).stem}.py"))
        wanted = {str(path.relative_to(PROJECT)) for path in of_its_name if name in path.read_text()}
        assert wanted <= {argument.partition("::")[0] for argument in guards(module)}, module
