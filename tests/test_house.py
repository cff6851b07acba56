"""What the house asks of its own files: short ones, short functions, and each test beside what it tests."""

from __future__ import annotations

import ast
import importlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "taxadiffusion"
MODULES = sorted(SOURCE.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py"))
MAX_FILE, MAX_FUNCTION = 300, 60  # lines; how branched and how long-winded a function may be stands in pyproject.toml


def below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file, methods and inner ones too, with its number of lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_long() -> None:
    long = {below(path, SOURCE) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > MAX_FILE}
    assert not long


def test_no_function_is_long() -> None:
    long = {
        f"{below(path, SOURCE)}:{name}"
        for path in MODULES
        for name, num_lines in functions(path)
        if num_lines > MAX_FUNCTION
    }
    assert not long


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: below(path, TESTS))
def test_a_test_lies_beside_its_module_or_in_its_room(path: Path) -> None:
    """The folder is a room of the source; a test that bears a module's name lies where the module does."""
    room = SOURCE / path.parent.relative_to(TESTS)
    assert (room / "__init__.py").is_file(), f"{below(path, TESTS)}: there is no such room"
    places = defaultdict(set)
    for module in MODULES:
        place = module.parent if module.name == "__init__.py" else module
        places[place.stem].add(module.parent)
    tested = places[path.stem.removeprefix("test_")]
    assert not tested or room in tested, f"{below(path, TESTS)}: the module lies in {sorted(map(str, tested))}"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: below(path, TESTS))
def test_nothing_is_imported_from_a_test(path: Path) -> None:
    """What two tests need has a module of its own beside them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        tests = [name for name in names if any(part.startswith("test_") for part in name.split("."))]
        assert not tests, f"{below(path, TESTS)}:{node.lineno} imports {tests[0]}"


@pytest.mark.parametrize("folder", ["benchmarks", "training"])
def test_benchmarks_and_recipes_find_what_they_import(folder: str) -> None:
    """mypy reads the package alone: a name that has moved there would be missed by these until somebody ran them."""
    names = {path.stem for path in (TESTS.parent / folder).glob("*.py")} - {"__main__", "__init__"}
    assert names
    for name in names:
        importlib.import_module(f"{folder}.{name}")


@pytest.mark.parametrize("name", ["survivors.json", "named.json"])
def test_changes_that_are_told_of_are_changes_of_code_that_is_there(name: str) -> None:
    told = json.loads((TESTS / "mutants" / name).read_text(encoding="utf-8"))
    assert told
    for entry in told:
        source = " ".join((SOURCE / entry["module"]).read_text(encoding="utf-8").split())
        assert " ".join(entry["old"].split()) in source, (entry["module"], entry["old"])
