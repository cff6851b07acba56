"""Which mutants there are, by cosmic-ray's operators, and a seeded sample of them, stratified by module."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from parso.tree import NodeOrLeaf

from tests.mutants.guards import guards

_SAME_FOR_INTERNED = ("_Eq_Is", "_NotEq_IsNot")
"""CPython keeps one object of each short string and small number: identity and equality are the same for them."""


@dataclass(frozen=True)
class Place:
    """A place of a module where one kind of operator applies, and each way in which it does."""

    module: str  # path below src/taxadiffusion
    line: int  # from 1
    column: int
    kind: str  # the operator, what it puts there left out: "ReplaceComparisonOperator_Lt"
    ways: tuple[tuple[str, int], ...]  # operator's name and occurrence, as cosmic-ray counts them
    identity: str  # the line's text, which of the equal lines it is, and where in it: holds when other lines change


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    module: str
    line: int
    operator: str
    old: str  # the changed lines
    new: str
    source: str  # of the whole module
    tests: tuple[str, ...]  # which should notice: arguments of pytest

    @property
    def key(self) -> str:
        """Names the module's text with its change: a verdict about it holds while that is the same."""
        return hashlib.sha256(f"{self.module}\n{self.source}".encode()).hexdigest()[:16]


def places(module: str, source: str) -> list[Place]:
    """Every place of a module that can be mutated.

    Left out: annotations, which nothing reads, and the stars of signatures, which stand for no operation.
    """
    tree = get_ast(source)
    lines = source.split("\n")
    earlier: Counter[str] = Counter()
    rank_among_equals = []
    for line in lines:
        rank_among_equals.append(earlier[line.strip()])
        earlier[line.strip()] += 1
    ways: dict[tuple[int, int, str], list[tuple[str, int]]] = {}
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or name.endswith(_SAME_FOR_INTERNED):
            continue  # works on names that it must be told, or changes nothing here
        operator, occurrence = operator_class(), 0
        for node in ast_nodes(tree):
            for start, _ in operator.mutation_positions(node):
                if not _means_nothing(node):
                    ways.setdefault((*start, _kind(name)), []).append((name, occurrence))
                occurrence += 1
    found = []
    for (line, column, kind), there in sorted(ways.items()):
        text = lines[line - 1]
        within = column - (len(text) - len(text.lstrip()))
        identity = f"{text.strip()}|{rank_among_equals[line - 1]}|{within}|{kind}"
        found.append(Place(module, line, column, kind, tuple(there), identity))
    return found


def _kind(name: str) -> str:
    parts = name.partition("/")[2].split("_")
    return "_".join(parts[:-1]) if len(parts) > 2 else parts[0]


def _means_nothing(node: NodeOrLeaf) -> bool:
    parent = node.parent
    if parent is not None and parent.type in ("parameters", "param", "lambdef") and node.type == "operator":
        return True
    while parent is not None:
        if parent.type == "annassign" and node is parent.children[1]:
            return True
        if parent.type == "tfpdef" or (parent.type == "funcdef" and node is parent.annotation):
            return True
        node, parent = parent, parent.parent
    return False


def mutants_at(place: Place, source: str, seed: int) -> Iterator[Mutant]:
    """The mutants of a place in drawn order: those that compile and mean something else than the source."""
    for name, occurrence in sorted(place.ways, key=lambda way: _drawn(seed, place.module, place.identity, way[0])):
        changed = mutate_code(source, get_operator(name)(), occurrence)
        if changed is not None and _differs(source, changed):
            old, new = _changed_lines(source, changed)
            yield Mutant(place.module, place.line, name.partition("/")[2], old, new, changed, guards(place.module))


def _drawn(seed: int, *what: str) -> str:
    return hashlib.sha256("\n".join([str(seed), *what]).encode()).hexdigest()


def _differs(source: str, changed: str) -> bool:
    try:
        return ast.dump(ast.parse(changed)) != _dumped(source)
    except SyntaxError:
        return False


@lru_cache(maxsize=64)
def _dumped(source: str) -> str:
    return ast.dump(ast.parse(source))


def _changed_lines(source: str, changed: str) -> tuple[str, str]:
    old, new = source.split("\n"), changed.split("\n")
    start = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    after = 0
    while after < min(len(old), len(new)) - start and old[-1 - after] == new[-1 - after]:
        after += 1
    parts = ("\n".join(lines[start : len(lines) - after]).strip() for lines in (old, new))
    return next(parts), next(parts)


def sample(sources: Mapping[str, str], number: int, seed: int) -> tuple[list[Mutant], dict[str, int]]:
    """`number` mutants, one a place at most, each module's share as large as its share of places; and those numbers.

    Places are drawn by the text of their line, so that a change elsewhere in the module leaves the others drawn.
    """
    strata = {module: places(module, source) for module, source in sources.items()}
    sizes = {module: len(found) for module, found in strata.items()}
    drawn = []
    for module, wanted in _shares(sizes, number).items():
        order = sorted(strata[module], key=lambda place: _drawn(seed, place.module, place.identity))
        found: list[Mutant] = []
        for place in order:
            if len(found) == wanted:
                break
            found += [mutant for mutant in [next(mutants_at(place, sources[module], seed), None)] if mutant]
        drawn += sorted(found, key=lambda mutant: mutant.line)
    return drawn, sizes


def _shares(sizes: Mapping[str, int], number: int) -> dict[str, int]:
    """Largest remainders."""
    total = sum(sizes.values())
    exact = {module: number * size / total for module, size in sizes.items()}
    shares = {module: int(share) for module, share in exact.items()}
    rest: Sequence[str] = sorted(exact, key=lambda module: shares[module] - exact[module])
    for module in rest[: number - sum(shares.values())]:
        shares[module] += 1
    return shares
