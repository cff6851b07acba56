"""Laws of the anchors: the table of docs/method.md leads to code that a command runs, and that code leads back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.reached import PACKAGE, Function, module_names, walk

ROOT = Path(__file__).parents[1]
METHOD = ROOT / "docs/method.md"
ROW = re.compile(r"^\| (?P<anchor>[MF]\d+) \|.*$", re.MULTILINE)
CODE = re.compile(r"`([\w/]+\.py):([\w.]+)`")
CITATION = re.compile(r"\b[MF]\d{1,2}\b")

KEPT = {
    "simulate.trait_error:ancestor_truth": "read by benchmarks.ancestors, which scores drawn ancestors",
    "taxonomy.builder:extended": "adding species to a model",
    "taxonomy.tree:Taxonomy.lowest_common_ancestor": "pictures between two taxa",
    "base.training_record:write_record": "written by training/, which makes bases",
}
"""What no command leads to and stays all the same, and what for."""


def table() -> dict[str, list[tuple[str, str]]]:
    """Anchor → file and name of what computes it."""
    text = METHOD.read_text(encoding="utf-8")
    found: dict[str, list[tuple[str, str]]] = {}
    for row in ROW.finditer(text):
        found.setdefault(row["anchor"], []).extend(CODE.findall(row[0]))
    return found


def path_of(file: str, name: str) -> str:
    """As in `tests.reached`."""
    return f"{file.removesuffix('.py').replace('/', '.')}:{name}"


NAMED = [(anchor, file, name) for anchor, code in table().items() for file, name in code]


def documented(module: Path) -> dict[str, str]:
    """Name of each definition → its docstring, a method's with its class's."""
    found = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, Function | ast.ClassDef):
            found[node.name] = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, Function):
                    found[f"{node.name}.{member.name}"] = f"{found[node.name]} {ast.get_docstring(member) or ''}"
    return found


def cited(source: str) -> set[str]:
    """Anchors in comments and docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    words = [t.string for t in tokens if t.type == tokenize.COMMENT or t.string.startswith('"""')]
    return {anchor for text in words for anchor in CITATION.findall(text)}


def test_every_equation_and_every_fault_has_an_anchor_and_code() -> None:
    assert list(table()) == [*(f"M{n}" for n in range(1, 10)), *(f"F{n}" for n in range(1, 13))]
    assert all(table().values())


@pytest.mark.parametrize(("anchor", "file", "name"), NAMED)
def test_named_code_exists_says_its_anchor_and_is_reached_from_a_command(anchor: str, file: str, name: str) -> None:
    module = PACKAGE / file
    assert module.is_file()
    assert name in documented(module)
    assert anchor in CITATION.findall(documented(module)[name])
    assert path_of(file, name) in walk().reached


def test_every_citation_in_the_code_leads_to_an_anchor() -> None:
    found = {name: cited(path.read_text(encoding="utf-8")) for name, path in module_names().items()}
    assert set().union(*found.values()) == set(table())
    stray = {module: anchors - set(table()) for module, anchors in found.items() if anchors - set(table())}
    assert not stray


def test_no_citation_goes_by_another_name() -> None:
    old = re.compile(r"\bMETHOD\b")
    assert not [name for name, path in module_names().items() if old.search(path.read_text(encoding="utf-8"))]


def test_what_no_command_leads_to_is_kept_for_a_stated_reason() -> None:
    """And the walk can fail: it does not reach these."""
    unreached = {p for p, d in walk().definitions.items() if p not in walk().reached and d.name}
    assert unreached == set(KEPT)


def test_extras_hold_what_the_package_imports() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    source = "\n".join(path.read_text(encoding="utf-8") for path in module_names().values())
    modules: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower().replace("_", "-"), set()).add(module)
    for extra in set(extras) - {"dev", "mutants"}:
        for stated in extras[extra]:
            name = Requirement(stated).name.lower().replace("_", "-")
            if name in modules and name != "onnxscript":  # torch's exporter imports it
                words = "|".join(map(re.escape, sorted(modules[name])))
                named = re.compile(rf"(?:import |from |\")(?:{words})\b")
                assert named.search(source), f"{extra}: {stated} is imported nowhere"
