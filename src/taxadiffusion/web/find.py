"""Search as one types: scientific names, other names from a table, and what is spelt nearly so."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rapidfuzz import fuzz, process

from taxadiffusion.errors import DataError
from taxadiffusion.names import folded_spelling
from taxadiffusion.taxonomy import OtherName, find_taxon
from taxadiffusion.web.served import ServedModel

NUM_SHOWN = 20
_NEAR = 65.0
"""Of 100: from this on a name counts as spelt nearly like what was typed."""
_KEPT = 2048


@dataclass(frozen=True, slots=True)
class Hit:
    """A taxon, and by what it was found: `name` as it is written, `how` in words ("" where by its own name)."""

    taxon: int
    label: str
    rank: str
    name: str
    how: str


class Finder:
    """Looks names up; answers of the last two thousand questions are kept."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        own = [OtherName(taxon, lineage.label, "") for taxon, lineage in model.lineages.items()]
        self._names = [*own, *(other for names in model.other_names.values() for other in names)]
        self._folded = [folded_spelling(other.name) for other in self._names]
        self._last = [name.rpartition(" ")[2] for name in self._folded]
        self._kept: OrderedDict[str, tuple[Hit, ...]] = OrderedDict()
        self._guard = threading.Lock()  # of `_kept`: questions come on several threads

    def __call__(self, text: str) -> tuple[Hit, ...]:
        """The best at first: names that begin so, words that do, the taxon that was meant, names spelt nearly so."""
        if (known := self.known(text)) is not None:
            return known
        asked = _folded(text)
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

    def known(self, text: str) -> tuple[Hit, ...] | None:
        """The answer, where the question was asked before."""
        asked = _folded(text)
        with self._guard:
            if asked in self._kept:
                self._kept.move_to_end(asked)
            return self._kept.get(asked) if asked else ()

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


def _folded(text: str) -> str:
    return folded_spelling(" ".join(text.split()))
