"""Every name that leads to a taxon, and those that are spelt nearly like one that leads nowhere."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from taxadiffusion.names import Rank, rank_index

EPITHET_MARK = re.compile(r"^(?:var|f|subsp)\. ")

_NEAR = 70  # similarity (0 to 100) from which a name is suggested
_NUM_SUGGESTIONS = 5


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Names in small letters → taxon ids, ascending."""

    names: dict[str, list[int]]
    """The taxon's own name, at any rank; an epithet at species and below."""
    combinations: dict[str, list[int]]
    """Binomials, and trinomials without "var." and the like."""
    labels: dict[str, str]
    """What people call each taxon, by the same in small letters: what suggestions are taken from."""

    @classmethod
    def of(cls, own_names: Sequence[str], rank_codes: Sequence[int], parents: Sequence[int]) -> NameIndex:
        """Of every taxon, by id: its own name, its rank's place in `names.RANKS`, its parent (-1: none)."""
        index = cls(defaultdict(list), defaultdict(list), {})
        genus_code, species_code, subspecies_code = map(rank_index, ("genus", "species", "subspecies"))
        genera: list[str] = []
        binomials: list[str] = []
        for taxon_id, (name, code, parent) in enumerate(zip(own_names, rank_codes, parents, strict=True)):
            genus = name if code == genus_code else (genera[parent] if parent >= 0 else "")
            binomial = binomials[parent] if parent >= 0 else ""
            label = name
            if code == species_code and genus:
                label = binomial = f"{genus} {name}"
            elif code == subspecies_code and binomial:
                label = f"{binomial} {name}"
            genera.append(genus)
            binomials.append(binomial)
            index.names[name.casefold()].append(taxon_id)
            index.labels.setdefault(label.casefold(), label)
            if label != name:
                index.combinations[label.casefold()].append(taxon_id)
            if code == subspecies_code and (plain := EPITHET_MARK.sub("", name)) != name:
                index.names[plain.casefold()].append(taxon_id)
                index.combinations[f"{binomial} {plain}".casefold()].append(taxon_id)
        return index


def nearest_text(labels: Mapping[str, str], name: str, ranks: Sequence[Rank]) -> str:
    """A clause for error messages that names the taxa spelt most like `name`, or says what there is.

    labels: as in `NameIndex`; ranks: of the taxonomy.
    """
    if not labels:
        return "; this taxonomy is empty"
    nearest = process.extract(
        name.casefold(), labels.keys(), scorer=fuzz.ratio, limit=_NUM_SUGGESTIONS, score_cutoff=_NEAR
    )
    if nearest:
        return f"; did you mean {' or '.join(repr(labels[key]) for key, _, _ in nearest)}?"
    examples = ", ".join(list(labels.values())[-3:])
    return f"; the taxonomy holds taxa of ranks {', '.join(ranks)}, such as {examples}"
