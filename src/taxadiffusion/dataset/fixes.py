"""Repairs that a person wrote down: names renamed, moved, filled or removed, applied row by row and counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import RANKS, Lineage, Rank, ordered_ranks, rank_index
from taxadiffusion.readers import Reader, Record, Rejected

_CACHE_SIZE = 30_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One repair of the names at `rank`: `kind` is rename, move, remove or fill."""

    kind: str
    rank: Rank
    name: str = ""
    to: str = ""
    under: tuple[tuple[Rank, str], ...] = ()

    def __str__(self) -> str:
        if self.kind == "rename":
            return f"rename {self.rank} {self.name} to {self.to}"
        if self.kind == "move":
            return f"move {self.rank} {self.name} under {Lineage(self.under)}"
        return f"remove {self.rank} {self.name}" if self.kind == "remove" else f"fill missing {self.rank}"


@dataclass
class Fixes:
    """Rules in the order of their file. `applied` counts the rows each has changed."""

    rules: tuple[Rule, ...]
    applied: Counter[Rule] = field(default_factory=Counter)
    _parents: dict[tuple[Rank, Rank, str], str] = field(default_factory=dict)
    _cache: dict[Lineage, tuple[Lineage, tuple[Rule, ...]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Fixes:
        """From YAML with the keys `rename`, `move`, `remove`, `fill`. Raises `SettingsError` for anything else."""
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not YAML: {error}") from error
        if not isinstance(value, dict) or not value or set(value) - set(_PARSERS):
            known = ", ".join(_PARSERS)
            raise SettingsError(f"{path}: expected a mapping with some of {known}, got {value!r:.200}")
        rules = []
        for kind, entries in value.items():
            if not isinstance(entries, list):
                raise SettingsError(f"{path}: {kind} must be a list, got {entries!r:.200}")
            rules += [_PARSERS[kind](path, entry) for entry in entries]
        return cls(tuple(rules))

    @property
    def fills(self) -> tuple[Rank, ...]:
        return ordered_ranks(rule.rank for rule in self.rules if rule.kind == "fill")

    def learn(self, lineages: Iterator[Lineage]) -> None:
        """Learn, for `fill`, which name each taxon's rows agree on at the filled ranks (after the other rules)."""
        seen: defaultdict[tuple[Rank, Rank, str], set[str]] = defaultdict(set)
        for lineage in lineages:
            fixed, _ = self._without_fill(lineage)
            for filled in self.fills:
                parent, child = fixed.get(filled), _child_below(fixed, filled)
                if parent is not None and child is not None:
                    seen[(filled, *child)].add(parent)
        self._parents = {key: names.pop() for key, names in seen.items() if len(names) == 1}
        self._cache.clear()

    def apply(self, lineage: Lineage) -> Lineage:
        """The repaired lineage; counts the rules that changed it."""
        found = self._cache.get(lineage)
        if found is None:
            fixed, used = self._without_fill(lineage)
            found = self._filled(fixed, used)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[lineage] = found
        self.applied.update(found[1])
        return found[0]

    def _without_fill(self, lineage: Lineage) -> tuple[Lineage, tuple[Rule, ...]]:
        names = dict(lineage.names)
        used = []
        for rule in self.rules:
            matches = rule.kind != "fill" and _name_of(names, rule.rank) == rule.name
            if not matches or (rule.under and all(names.get(rank) == name for rank, name in rule.under)):
                continue
            used.append(rule)
            if rule.kind == "rename":
                _rename(names, rule)
            elif rule.kind == "move":
                names.update(rule.under)
            else:
                names.pop(rule.rank)
        return (Lineage.of(names) if used else lineage), tuple(used)

    def _filled(self, lineage: Lineage, used: tuple[Rule, ...]) -> tuple[Lineage, tuple[Rule, ...]]:
        for rule in self.rules:
            if rule.kind != "fill" or lineage.get(rule.rank) is not None:
                continue
            child = _child_below(lineage, rule.rank)
            parent = self._parents.get((rule.rank, *child)) if child else None
            if parent is not None:
                lineage, used = Lineage.of((*lineage.names, (rule.rank, parent))), (*used, rule)
        return lineage, used

    def unused(self) -> list[Rule]:
        return [rule for rule in self.rules if not self.applied[rule]]


class FixedReader:
    """A reader whose lineages are repaired; otherwise the same records in the same order."""

    def __init__(self, reader: Reader, fixes: Fixes) -> None:
        self.name = reader.name
        self.ranks = reader.ranks
        self.root = reader.root
        self.fixes = fixes
        self._reader = reader

    @property
    def counts(self) -> Mapping[str, int]:
        return getattr(self._reader, "counts", {})

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.fixes.applied.clear()
        if self.fixes.fills:
            self.fixes.learn(record.lineage for record in self._reader if isinstance(record, Record))
        for record in self._reader:
            if isinstance(record, Record):
                record = replace(record, lineage=self.fixes.apply(record.lineage))
            yield record


def _name_of(names: Mapping[Rank, str], rank: Rank) -> str | None:
    """A species is named by its binomial in rules; every other taxon by its name."""
    if rank == "species":
        return f"{names['genus']} {names['species']}" if "genus" in names and "species" in names else None
    return names.get(rank)


def _child_below(lineage: Lineage, rank: Rank) -> tuple[Rank, str] | None:
    """The coarsest name finer than `rank`."""
    return next((pair for pair in lineage.names if rank_index(pair[0]) > rank_index(rank)), None)


def _rename(names: dict[Rank, str], rule: Rule) -> None:
    if rule.rank == "species":
        names["genus"], names["species"] = rule.to.split(" ", 1)
    else:
        names[rule.rank] = rule.to


def _entry(path: Path, kind: str, entry: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(entry, dict) or set(entry) != keys or not all(entry.values()):
        raise SettingsError(f"{path}: each entry of {kind} has the keys {', '.join(sorted(keys))}; got {entry!r:.200}")
    if entry["rank"] not in RANKS:
        raise SettingsError(f"{path}: {kind}: unknown rank {entry['rank']!r}; known: {', '.join(RANKS)}")
    return entry


def _parse_rename(path: Path, entry: Any) -> Rule:
    value = _entry(path, "rename", entry, {"rank", "from", "to"})
    name, to = str(value["from"]), str(value["to"])
    if value["rank"] == "species" and (" " not in name or " " not in to):
        raise SettingsError(f"{path}: rename: a species is named by its binomial, got {name!r} → {to!r}")
    return Rule("rename", value["rank"], name, to)


def _parse_move(path: Path, entry: Any) -> Rule:
    value = _entry(path, "move", entry, {"rank", "name", "under"})
    under = value["under"]
    if not isinstance(under, dict) or any(
        r not in RANKS or RANKS.index(r) >= RANKS.index(value["rank"]) for r in under
    ):
        raise SettingsError(f"{path}: move: under maps coarser ranks to names, got {under!r:.200}")
    return Rule(
        "move", value["rank"], str(value["name"]), under=Lineage.of({r: str(n) for r, n in under.items()}).names
    )


def _parse_remove(path: Path, entry: Any) -> Rule:
    value = _entry(path, "remove", entry, {"rank", "name"})
    return Rule("remove", value["rank"], str(value["name"]))


def _parse_fill(path: Path, entry: Any) -> Rule:
    if entry not in RANKS:
        raise SettingsError(f"{path}: fill lists ranks, got {entry!r:.200}")
    return Rule("fill", entry)


_PARSERS = {"rename": _parse_rename, "move": _parse_move, "remove": _parse_remove, "fill": _parse_fill}
