"""Laws of safety: the package holds no call that runs what a file says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "taxadiffusion"

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "cPickle.load", "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "numpy.fromregex", "jsonpickle.decode",
    "pandas.read_pickle", "torch.hub.load", "torch.jit.load",
}  # fmt: skip
ALIASES = {"np": "numpy", "pd": "pandas"}


def dotted(node: ast.expr) -> str:
    """`np.load` → "numpy.load"; "" for anything that is no dotted name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([ALIASES.get(node.id, node.id), *reversed(parts)])


def faults(source: str) -> Iterator[str]:
    """What must not stand in a module: "line: what"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill", "joblib", "shelve"):
            yield f"{node.lineno}: from {node.module} import …"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in FORBIDDEN:
            yield f"{node.lineno}: {name}"
        if "shell" in keywords and not is_constant(keywords["shell"], False):
            yield f"{node.lineno}: {name}(shell=…)"
        if name in ("numpy.load", "numpy.memmap") and not is_constant(keywords.get("allow_pickle"), False, absent=True):
            yield f"{node.lineno}: {name}(allow_pickle=…)"
        if name == "torch.load" and not is_constant(keywords.get("weights_only"), True):
            yield f"{node.lineno}: torch.load without weights_only=True"
        if "trust_remote_code" in keywords and not is_constant(keywords["trust_remote_code"], False):
            yield f"{node.lineno}: {name}(trust_remote_code=…)"


def is_constant(node: ast.expr | None, value: bool, *, absent: bool = False) -> bool:
    if node is None:
        return absent
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_be_made_to_run_what_a_file_says(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)", "from pickle import loads", "yaml.load(f)", "eval('1')", "exec('1')",
        "import os\nos.system('x')", "subprocess.run('x', shell=True)", "np.load(f, allow_pickle=True)",
        "torch.load(f)", "torch.load(f, weights_only=False)", "M.from_pretrained(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_rule_sees_what_it_must_see(source: str) -> None:
    assert list(faults(source))


def test_the_rule_lets_good_calls_pass() -> None:
    good = "yaml.safe_load(f)\nnp.load(f)\ntorch.load(f, weights_only=True)\nmodel.eval()\nre.compile('x')\n"
    assert list(faults(good)) == []


def test_every_dependency_of_the_tested_set_is_pinned() -> None:
    root = PACKAGE.parents[1]
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'^  ?"([A-Za-z0-9_-]+)[><=]', project, re.MULTILINE)) | set(
        re.findall(r'"([A-Za-z0-9_-]+)>=[^"]*"', project)
    )
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in pins if line and not line.startswith("#")}
    wanted = {name.lower().replace("_", "-") for name in named} - {"setuptools"}
    assert len(wanted) > 20
    assert wanted <= pinned, sorted(wanted - pinned)
    assert all("==" in line for line in pins if line and not line.startswith("#"))
