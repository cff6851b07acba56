"""What of the package a command, or the pipeline, leads to: a walk over its source, from there downwards.

A name leads to what it is bound to in its module. An attribute leads to every method of that name, in the classes that
are reached: that is too many at times, never too few. What frameworks call (`__init__`, `forward`, validators) is
reached with its class.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import taxadiffusion

PACKAGE = Path(taxadiffusion.__file__).parent
ENTRANCES = ("cli", "pipeline")
"""What people call: the commands, and the pipeline from Python."""
LOADED_ELSEWHERE = ("sharing.blocks", "sharing.comfyui_node", "sharing.hub_pipeline")
"""Modules that diffusers and ComfyUI load by themselves, from what we wrote for them."""
CALLED_BY_FRAMEWORKS = {"forward", "_apply", "readinto", "seekable", "tell"} | {
    "connection_made",
    "connection_lost",
    "data_received",  # asyncio, of a protocol
}
CALLED_BY_NAME = {"readers": ("detect", "open_source")}
"""Package whose modules are imported by a name that is made → what is called in each."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Definition:
    """A function, class or method: the names and attributes that its own code mentions."""

    module: str
    name: str  # "plan", "Denoiser", "Denoiser.losses"
    nodes: list[ast.AST]
    with_class: bool = False
    bound: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{self.module}:{self.name}"

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))


def module_names() -> dict[str, Path]:
    """Dotted name below the package → file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(tree: ast.AST, modules: dict[str, Path]) -> dict[str, tuple[str, str]]:
    """Name in this code → module below the package and name there ("" = the module itself)."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "taxadiffusion":
            source = node.module.removeprefix("taxadiffusion").removeprefix(".")
            for alias in node.names:
                below = f"{source}.{alias.name}".removeprefix(".")
                is_module = below in modules
                bound[alias.asname or alias.name] = (below, "") if is_module else (source, alias.name)
    return bound


class Walk:
    """`reached`: the definitions that a command leads to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self._bound: dict[str, dict[str, tuple[str, str]]] = {}
        self._methods: dict[str, list[str]] = defaultdict(list)  # attribute → paths of methods
        self._of_class: dict[str, list[str]] = defaultdict(list)
        modules = module_names()
        for module, path in modules.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self._bound[module] = _imports(tree, modules)
            self._add_module(module, tree)
        self.reached: set[str] = set()
        self._attributes: set[str] = set()
        self._waiting = [
            p
            for p, d in self.definitions.items()
            if d.module.split(".")[0] in ENTRANCES or d.module in LOADED_ELSEWHERE
        ]
        for package, names in CALLED_BY_NAME.items():
            modules_of = [m for m in modules if m.startswith(f"{package}.")]
            self._waiting += [f"{m}:{name}" for m in modules_of for name in names]
        for template in PACKAGE.rglob("*.jinja"):  # a template leads to what it asks of the values that it shows
            self._attributes |= set(re.findall(r"\.([a-z_]\w*)", template.read_text(encoding="utf-8")))
        while self._waiting:
            self._reach(self._waiting.pop())

    def _add(self, definition: Definition) -> None:
        self.definitions[definition.path] = definition

    def _add_module(self, module: str, tree: ast.Module) -> None:
        own = [node for node in tree.body if not isinstance(node, Function | ast.ClassDef)]
        self._add(Definition(module, "", [n for n in own if not isinstance(n, ast.Import | ast.ImportFrom | ast.If)]))
        for node in tree.body:
            if isinstance(node, Function):
                self._add(Definition(module, node.name, [node]))
            elif isinstance(node, ast.ClassDef):
                methods = [member for member in node.body if isinstance(member, Function)]
                rest = [*node.bases, *node.decorator_list, *(m for m in node.body if m not in methods)]
                self._add(Definition(module, node.name, rest))
                for method in methods:
                    self._add_method(module, node.name, method)

    def _add_method(self, module: str, class_name: str, method: Function) -> None:
        named = {ast.unparse(d).split("(")[0] for d in method.decorator_list}
        called = method.name.startswith("__") or method.name in CALLED_BY_FRAMEWORKS
        with_class = called or bool(named & {"model_validator", "field_validator", "model_serializer"})
        definition = Definition(module, f"{class_name}.{method.name}", [method], with_class)
        self._add(definition)
        self._methods[method.name].append(definition.path)
        self._of_class[f"{module}:{class_name}"].append(definition.path)

    def _reach(self, path: str) -> None:
        definition = self.definitions.get(path)
        if definition is None or path in self.reached:
            return
        self.reached.add(path)
        self._waiting.append(f"{definition.module}:")
        for method in self._of_class.get(path, ()):
            if self.definitions[method].with_class or method.rpartition(".")[2] in self._attributes:
                self._waiting.append(method)
        for node in (inner for outer in definition.nodes for inner in ast.walk(outer)):
            if isinstance(node, ast.Name):
                self._name(definition.module, node.id)
            elif isinstance(node, ast.Attribute):
                self._attribute(definition.module, node)

    def _name(self, module: str, name: str, depth: int = 0) -> None:
        if f"{module}:{name}" in self.definitions:
            self._waiting.append(f"{module}:{name}")
        elif name in self._bound.get(module, {}) and depth < 5:
            source, there = self._bound[module][name]
            package, _, last = source.rpartition(".")
            if there:
                self._waiting.append(f"{source}:")  # a name that is a value: what its module says of it
                self._name(source, there, depth + 1)
            elif last in self._bound.get(package, {}) and package != module:  # a function called as its module
                self._name(package, last, depth + 1)

    def _attribute(self, module: str, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and self._bound[module].get(node.value.id, ("", "x"))[1] == "":
            self._name(self._bound[module][node.value.id][0], node.attr)  # a function of an imported module
        self._attributes.add(node.attr)
        for method in self._methods.get(node.attr, ()):
            if method.rpartition(".")[0] in self.reached:
                self._waiting.append(method)


@lru_cache(maxsize=1)
def walk() -> Walk:
    return Walk()
