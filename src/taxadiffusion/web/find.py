"""Search as one types: scientific names, other names from a table, and what is spelt nearly so."""

from __future__ import annotations

import csv
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz import fuzz, process

from taxadiffusion.errors import DataError
from taxadiffusion.names import folded_spelling
from taxadiffusion.taxonomy import find_taxon
from taxadiffusion.web.served import ServedModel

NUM_SHOWN = 20
_NEAR = 65.0
"""Of 100: from this on a name counts as spelt nearly like what was typed."""
_KEPT = 2048
COLUMNS = ("taxon", "name", "kind")


@dataclass(frozen=True, slots=True)
class Hit:
    """A taxon, and by what it was found: `name` as it is written, `how` in words ("" where by its own name)."""

    taxon: int
    label: str
    rank: str
    name: str
    how: str


@dataclass(frozen=True, slots=True)
class OtherName:
    """A common name or a synonym of a taxon."""

    taxon: int
    name: str
    kind: str


def read_other_names(path: Path, model: ServedModel) -> tuple[tuple[OtherName, ...], int]:
    """The rows of a table of `taxon,name,kind` (CSV; kind: common name, synonym …), and how many name other taxa.

    Raises `DataError` for a table without these columns or with a row that lacks a name.
    """
    found, elsewhere = [], 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise DataError(f"{path}: has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
            for number, row in enumerate(table, 2):
                taxon, name, kind = (" ".join((row[column] or "").split()) for column in COLUMNS)
                if not taxon or not name:
                    raise DataError(
                        f"{path}: row {number} has no {'name' if taxon else 'taxon'}; fill it or take it out"
                    )
                try:
                    known = find_taxon(model.taxonomy, taxon)
                except DataError:
                    known = None
                if known is None or known.note is not None or known.taxon_id not in model.lineages:
                    elsewhere += 1
                else:
                    found.append(OtherName(known.taxon_id, name, kind or "other name"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no readable CSV table: {error}") from error
    return tuple(found), elsewhere


class Finder:
    """Looks names up; answers of the last two thousand questions are kept."""

    def __init__(self, model: ServedModel, others: tuple[OtherName, ...] = ()) -> None:
        self._model = model
        own = [OtherName(taxon, lineage.label, "") for taxon, lineage in model.lineages.items()]
        self._names = [*own, *others]
        self._folded = [folded_spelling(other.name) for other in self._names]
        self._last = [name.rpartition(" ")[2] for name in self._folded]
        self._kept: OrderedDict[str, tuple[Hit, ...]] = OrderedDict()
        self._guard = threading.Lock()  # of `_kept`: questions come on several threads

    def __call__(self, text: str) -> tuple[Hit, ...]:
        """The best at first: names that begin so, words that do, the taxon that was meant, names spelt nearly so."""
        asked = folded_spelling(" ".join(text.split()))
        if not asked:
            return ()
        with self._guard:
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        hits: dict[int, Hit] = {}
        for hit in self._found(asked, text):
            hits.setdefault(hit.taxon, hit)
            if len(hits) == NUM_SHOWN:
                break
        found = tuple(hits.values())
        with self._guard:
            self._kept[asked] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _found(self, asked: str, text: str) -> Iterator[Hit]:
        equal = [i for i, name in enumerate(self._folded) if name == asked]
        begin = [i for i, name in enumerate(self._folded) if name.startswith(asked)]
        words = [i for i, name in enumerate(self._folded) if f" {asked}" in name]
        for i in (*equal, *sorted(begin, key=lambda i: len(self._folded[i])), *words):
            yield self._hit(i, "")
        yield from self._meant(text)
        if len(begin) + len(words) < NUM_SHOWN and len(asked) > 2:
            for i in self._near(asked):
                yield self._hit(i, "spelt nearly so")

    def _meant(self, text: str) -> Iterator[Hit]:
        """As the commands understand it: with author, subgenus, a third name; a genus for a species that is unknown."""
        try:
            found = find_taxon(self._model.taxonomy, text)
        except DataError:
            return
        if found.taxon_id in self._model.lineages:
            lineage = self._model.lineages[found.taxon_id]
            yield Hit(found.taxon_id, lineage.label, str(lineage.rank), lineage.label, found.note or "")

    def _near(self, asked: str) -> list[int]:
        begun = [name[: len(asked) + 1] for name in self._folded]
        each = (self._folded, begun, self._last)
        scores = np.max([process.cdist([asked], names, scorer=fuzz.ratio)[0] for names in each], 0)
        return [int(i) for i in np.argsort(-scores, kind="stable")[:NUM_SHOWN] if scores[i] >= _NEAR]

    def _hit(self, i: int, how: str) -> Hit:
        other = self._names[i]
        lineage = self._model.lineages[other.taxon]
        words = ", ".join(part for part in (other.kind, how) if part)
        return Hit(other.taxon, lineage.label, str(lineage.rank), other.name, words)
