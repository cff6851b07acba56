"""Look-up of a taxon by the name a person types."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank, rank_index

if TYPE_CHECKING:
    from taxadiffusion.taxonomy.tree import Taxonomy

_CLOSE = 0.8  # difflib ratio from which a name counts as a misspelling rather than another name
_NUM_SUGGESTIONS = 5
_MAX_COMPARED = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """A taxon and, in `note`, what was done to find it when it was not simply its name."""

    taxon_id: int
    lineage: Lineage
    note: str | None = None


def find_taxon(taxonomy: Taxonomy, name: str, rank: Rank | None = None) -> Found:
    """The taxon called `name`: a binomial or a name of any rank; "Plantae > Morus" picks one homonym by an ancestor.

    Case is ignored. An unknown species of a known genus gives the genus, with a note. Raises `DataError` for homonyms
    (listing all candidates), for a misspelling (suggesting the nearest names) and for an unknown name.
    """
    *above, wanted = [" ".join(unicodedata.normalize("NFC", part).split()) for part in name.split(" > ")]
    if rank is not None and rank not in taxonomy.ranks:
        raise DataError(f"rank {rank!r} is not one of this model's ranks: {', '.join(taxonomy.ranks)}")
    for candidates, note in (_exact(taxonomy, wanted), _as_binomial(taxonomy, wanted)):
        kept = [t for t in candidates if rank in (None, taxonomy.rank(t)) and _is_below(taxonomy, t, above)]
        if kept:
            return _only(taxonomy, kept, name, note)
    genus, _, epithet = wanted.partition(" ")
    if epithet and rank in (None, "species") and "genus" in taxonomy.ranks:
        return _genus_instead(taxonomy, genus, epithet, above, name)
    raise DataError(f"no taxon {name!r}{f' at rank {rank}' if rank else ''}{nearest_text(taxonomy, wanted, rank)}")


def _exact(taxonomy: Taxonomy, name: str) -> tuple[list[int], str | None]:
    found = np.flatnonzero(_equals(taxonomy.names, name))
    candidates = [int(t) for t in found]
    if candidates and all(taxonomy.rank(t) == "species" for t in candidates):
        label = taxonomy.lineage(candidates[0]).label
        return candidates, f"{name} is an epithet; taken as {label}" if label != name else None
    return candidates, None


def _as_binomial(taxonomy: Taxonomy, name: str) -> tuple[list[int], str | None]:
    epithet = name.partition(" ")[2]
    if not epithet:
        return [], None
    species = np.flatnonzero(_equals(taxonomy.names, epithet) & (taxonomy.rank_codes == rank_index("species")))
    wanted = name.casefold()
    return [int(t) for t in species if (taxonomy.lineage(int(t)).binomial or "").casefold() == wanted], None


def _equals(names: pa.Array, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    matches: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.equal(pc.utf8_lower(names), name.lower()).to_numpy(
        zero_copy_only=False
    )
    return matches


def _is_below(taxonomy: Taxonomy, taxon_id: int, names: list[str]) -> bool:
    above = {name.casefold() for _, name in taxonomy.lineage(taxon_id).names[:-1]}
    return all(name.split(": ", 1)[-1].casefold() in above for name in names)


def _only(taxonomy: Taxonomy, candidates: list[int], name: str, note: str | None) -> Found:
    paths = [set(taxonomy.ancestors(t)) for t in candidates]
    coarsest = min(candidates, key=lambda t: int(taxonomy.rank_codes[t]))
    if not all(coarsest in path for path in paths):
        listed = "".join(f"\n  {taxonomy.lineage(t)}" for t in candidates)
        parents = [taxonomy.parent(t) for t in candidates]
        example = next((taxonomy.name(p) for p in parents if p is not None), "Animalia")
        raise DataError(
            f"{name!r} names {len(candidates)} taxa:{listed}\nadd an ancestor, such as '{example} > {name}', or a rank"
        )
    if len(candidates) > 1:
        note = f"{name} names taxa of several ranks; taken as the {taxonomy.rank(coarsest)}"
    return Found(coarsest, taxonomy.lineage(coarsest), note)


def _genus_instead(taxonomy: Taxonomy, genus: str, epithet: str, above: list[str], name: str) -> Found:
    at_genus = _equals(taxonomy.names, genus) & (taxonomy.rank_codes == rank_index("genus"))
    genera = [int(t) for t in np.flatnonzero(at_genus) if _is_below(taxonomy, int(t), above)]
    if not genera:
        raise DataError(f"no taxon {name!r}, nor a genus {genus!r}{nearest_text(taxonomy, f'{genus} {epithet}')}")
    siblings = [t for g in genera for t in taxonomy.subtree(g) if taxonomy.rank(t) == "species"]
    close = difflib.get_close_matches(epithet.casefold(), [taxonomy.name(t).casefold() for t in siblings], 1, _CLOSE)
    if close:
        nearest = next(t for t in siblings if taxonomy.name(t).casefold() == close[0])
        raise DataError(f"no taxon {name!r}; did you mean {taxonomy.lineage(nearest).label!r}?")
    found = _only(taxonomy, genera, genus, None)
    return Found(found.taxon_id, found.lineage, f"unknown species {name!r}; using its genus {found.lineage.label}")


def nearest_text(taxonomy: Taxonomy, name: str, rank: Rank | None = None) -> str:
    """A clause for error messages that names the taxa spelt most like `name`, or says what there is."""
    if not len(taxonomy):
        return "; this taxonomy is empty"
    ids = np.arange(len(taxonomy)) if rank is None else np.array(taxonomy.at_rank(rank), dtype=np.int64)
    if len(ids) > _MAX_COMPARED:
        starts = pc.starts_with(taxonomy.names, name[:1], ignore_case=True).to_numpy(zero_copy_only=False)
        is_species = taxonomy.rank_codes == rank_index("species")
        ids = ids[(starts | (is_species & (" " in name)))[ids]][: 10 * _MAX_COMPARED]
    labels: dict[str, str] = {}
    for taxon_id in ids:
        label = taxonomy.lineage(int(taxon_id)).label
        labels.setdefault(label.casefold(), label)
    close = difflib.get_close_matches(name.casefold(), list(labels), _NUM_SUGGESTIONS, 0.7)
    if close:
        return f"; did you mean {' or '.join(repr(labels[key]) for key in close)}?"
    examples = ", ".join(list(labels.values())[-3:])
    return f"; the taxonomy holds {len(taxonomy)} taxa of ranks {', '.join(taxonomy.ranks)}, such as {examples}"
