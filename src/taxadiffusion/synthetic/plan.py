"""How many pictures to make of each species: from the counts of a prepared data set, or from a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage, Rank

BALANCE, TOP_UP = "balance", "top-up"
PICTURES = "pictures"
"""The column of a plan's table that says how many are wanted."""

_MOST_PER_SPECIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A species, its training photographs, and how many accepted pictures it is to get."""

    taxon: Lineage
    photographs: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Species in the order of their names; `name` says by which rule."""

    name: str
    ranks: tuple[Rank, ...]
    wanted: tuple[Wanted, ...]

    @property
    def total(self) -> int:
        """Accepted pictures wanted."""
        return sum(one.pictures for one in self.wanted)

    @property
    def content_hash(self) -> str:
        """sha256 of the species and their numbers: two plans that ask for the same are one."""
        asked = [[list(map(list, one.taxon.names)), one.pictures] for one in self.wanted]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """A table with a column for each rank, `photographs` and `pictures`, which `read_plan` takes."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, [*self.ranks, "photographs", PICTURES], restval="")
        writer.writeheader()
        for one in self.wanted:
            writer.writerow({**dict(one.taxon.names), "photographs": one.photographs, PICTURES: one.pictures})
        with whole(path) as aside:
            aside.write_text(stream.getvalue(), encoding="utf-8", newline="")


def counted_species(dataset: PreparedDataset, ranks: Sequence[Rank]) -> Counter[Lineage]:
    """Training photographs of each taxon at the finest of `ranks`, over these ranks."""
    counts: Counter[Lineage] = Counter()
    for row in dataset.rows("train"):
        lineage = dataset.lineage(int(row))
        if lineage.get(ranks[-1]):
            counts[lineage.truncated(ranks[-1]).only(ranks)] += 1
    return counts


def plan_of_counts(counts: Counter[Lineage], ranks: Sequence[Rank], rule: str, to: int | None) -> Plan:
    """By `BALANCE`: every species gets as many as bring it to `to` photographs and pictures together, which is at least
    the number of the commonest one's photographs (None: exactly that). By `TOP_UP`: species below `to` are brought up
    to it, the others get none. Raises `SettingsError` for numbers that make no such plan.
    """
    if not counts:
        raise DataError(f"no training photograph names a {ranks[-1]}: there is nothing to plan by")
    most = max(counts.values())
    if rule == BALANCE:
        if to is not None and to < most:
            raise SettingsError(
                f"--plan balance --to {to}: the commonest {ranks[-1]} has {most} photographs, so {to} for each is no "
                f"balance; give --to {most} or more, or --plan top-up, which leaves common ones as they are"
            )
        to = to or most
    elif to is None:
        raise SettingsError("--plan top-up needs --to N: up to how many photographs and pictures each is filled")
    wanted = tuple(
        Wanted(taxon, n, max(0, to - n)) for taxon, n in sorted(counts.items(), key=lambda item: str(item[0]))
    )
    if not sum(one.pictures for one in wanted):
        raise SettingsError(f"--plan {rule} --to {to}: every {ranks[-1]} has that many photographs; ask for more")
    return Plan(f"{rule} to {to}", tuple(ranks), wanted)


def read_plan(path: Path, counts: Counter[Lineage], ranks: Sequence[Rank]) -> Plan:
    """A table with a column `pictures` and one for each of the ranks by which its species can be told.

    Raises `DataError` naming file, row, value and what to do, for what cannot be read or no photograph shows.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: the plan cannot be read ({error}); --plan takes balance, top-up or a table"
        ) from error
    named = [rank for rank in ranks if rank in columns]
    if PICTURES not in columns or ranks[-1] not in named:
        raise DataError(f"{path}: needs the columns {ranks[-1]} and {PICTURES}, it has {', '.join(columns) or 'none'}")
    by_names: dict[Lineage, list[Lineage]] = {}
    for taxon in counts:
        by_names.setdefault(taxon.only(named), []).append(taxon)
    found: dict[Lineage, int] = {}
    for number, row in enumerate(rows, 2):
        taxon = _taxon(path, number, Lineage.of({rank: row.get(rank) for rank in named}), by_names)
        if taxon in found:
            raise DataError(f"{path} row {number}: {taxon.label} stands there twice; leave one of the rows out")
        found[taxon] = _number(path, number, row[PICTURES])
    wanted = tuple(Wanted(t, counts[t], found.get(t, 0)) for t in sorted(counts, key=str))
    if not sum(found.values()):
        raise DataError(f"{path}: asks for no picture; give one {ranks[-1]} or more a number above 0")
    return Plan(path.name, tuple(ranks), wanted)


def _taxon(path: Path, number: int, lineage: Lineage, by_names: dict[Lineage, list[Lineage]]) -> Lineage:
    taxa = by_names.get(lineage, [])
    if not taxa:
        raise DataError(f"{path} row {number}: no training photograph shows {lineage or 'a row without a name'}")
    if len(taxa) > 1:
        raise DataError(f"{path} row {number}: {lineage} is {taxa[0]}, or {taxa[1]}; add the columns of coarser ranks")
    return taxa[0]


def _number(path: Path, row: int, text: str | None) -> int:
    value = (text or "").strip()
    if not (value.isascii() and value.isdecimal()) or int(value) > _MOST_PER_SPECIES:
        raise DataError(
            f"{path} row {row}: {PICTURES} is {text!r}; write a whole number from 0 to {_MOST_PER_SPECIES:,}"
        )
    return int(value)


def unknown_to(known: Iterable[Lineage], plan: Plan) -> tuple[Lineage, ...]:
    """The planned species that a model does not know."""
    there = set(known)
    return tuple(one.taxon for one in plan.wanted if one.pictures and one.taxon not in there)
