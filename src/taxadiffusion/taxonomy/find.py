"""Look-up of a taxon by the name a person types."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, Rank, ScientificName, parse_name, written_name
from taxadiffusion.taxonomy.name_index import EPITHET_MARK, nearest_text
from taxadiffusion.taxonomy.tree import Taxonomy

_CLOSE = 80  # similarity (0 to 100) from which an epithet counts as a misspelling rather than another name
_NUM_LISTED = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A taxon and, in `note`, what was done to find it when it was not simply its name."""

    taxon_id: int
    lineage: Lineage
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """A name asked for, with the ancestors and the rank that it must have."""

    text: str
    above: tuple[str, ...]
    rank: Rank | None

    @classmethod
    def of(cls, name: str, rank: Rank | None) -> _Question:
        *above, wanted = [" ".join(unicodedata.normalize("NFC", part).split()) for part in name.split(" > ")]
        stated, _, rest = wanted.partition(": ")
        return cls(rest, tuple(above), stated) if stated in RANKS and rest else cls(wanted, tuple(above), rank)

    def fits(self, taxonomy: Taxonomy, taxon_id: int, rank: Rank | None) -> bool:
        if rank is not None and taxonomy.rank(taxon_id) != rank:
            return False
        ancestors = [(r, n.casefold()) for r, n in taxonomy.lineage(taxon_id).names[:-1]] if self.above else []
        return all(any(_is_called(part, *pair) for pair in ancestors) for part in self.above)


def _is_called(part: str, rank: Rank, name: str) -> bool:
    stated, _, rest = part.casefold().partition(": ")
    return part.casefold() == name or (stated == rank and rest == name)


def find_taxon(taxonomy: Taxonomy, name: str, rank: Rank | None = None) -> Found:
    """The taxon called `name`: any scientific name as people write it, with author, subgenus, `var.` or a third name.

    "Plantae > Morus" picks one homonym by an ancestor, and a lineage as it is printed is that taxon. Case is ignored.
    What a model does not know gives its nearest known ancestor, with a note: the species for a subspecies, the genus
    for a species or what is not certain (`cf.`, `sp.`, a hybrid formula). Raises `DataError` for homonyms (listing what
    to write for each), for a misspelling (suggesting the nearest names) and for an unknown name.
    """
    if rank is not None and rank not in taxonomy.ranks:
        raise DataError(f"rank {rank!r} is not one of this model's ranks: {', '.join(taxonomy.ranks)}")
    candidates, note = _candidates(taxonomy, name, rank)
    if not candidates:
        wanted = _Question.of(name, rank).text
        raise DataError(f"no taxon {name!r}{f' at rank {rank}' if rank else ''}{_nearest(taxonomy, wanted, rank)}")
    chosen = _chosen(taxonomy, candidates)
    if chosen is None:
        raise DataError(_homonyms(taxonomy, candidates, name))
    if len(candidates) > 1 and note is None:
        note = f"{name} names taxa of several ranks; taken as the {taxonomy.rank(chosen)}"
    lineage = taxonomy.lineage(chosen)
    if note is None and taxonomy.rank(chosen) in ("species", "subspecies") and _is_bare_epithet(name, lineage):
        note = f"{name} is an epithet; taken as {lineage.label}"
    return Found(chosen, lineage, note)


def _is_bare_epithet(name: str, lineage: Lineage) -> bool:
    return lineage.label != lineage.names[-1][1] and name.casefold() == lineage.names[-1][1].casefold()


def _chosen(taxonomy: Taxonomy, candidates: list[int]) -> int | None:
    """The coarsest of the candidates where all the others lie below it, else None."""
    coarsest = min(candidates, key=lambda t: int(taxonomy.rank_codes[t]))
    return coarsest if all(coarsest in taxonomy.ancestors(t) for t in candidates) else None


def _candidates(taxonomy: Taxonomy, name: str, rank: Rank | None) -> tuple[list[int], str | None]:
    """Every taxon that `name` may mean, and a note where it is not simply its name. Raises for a misspelt epithet."""
    question, index = _Question.of(name, rank), taxonomy.name_index
    key = question.text.casefold()
    for ids in (index.names.get(key, []), index.combinations.get(key, [])):
        whole = [t for t in ids if str(taxonomy.lineage(t)) == name] if question.rank is not None else []
        if kept := whole or [t for t in ids if question.fits(taxonomy, t, question.rank)]:
            return kept, None
    return _parsed_candidates(taxonomy, question, name)


def _parsed_candidates(taxonomy: Taxonomy, question: _Question, name: str) -> tuple[list[int], str | None]:
    text = question.text[:1].upper() + question.text[1:]
    written = written_name(text)
    parsed = parse_name(written.text)
    if parsed.genus is None:
        return [], None
    index, rank = taxonomy.name_index, question.rank

    def known(ids: Iterable[int], of_rank: Rank | None) -> list[int]:
        return [t for t in ids if question.fits(taxonomy, t, of_rank)]

    stops = parsed.qualifier is not None or any(note.startswith("placeholder") for note in written.notes)
    certain = f"{name!r} is certain of {parsed.canonical} alone; using that" if stops else None
    if not parsed.epithet:
        return known(index.names.get(parsed.genus.casefold(), []), rank), certain
    binomial = f"{parsed.genus} {parsed.epithet}"
    hybrid = f"{name!r} is a hybrid; using the species {binomial}" if parsed.hybrid else None
    if parsed.infraspecific:
        trinomial = f"{binomial} {parsed.infraspecific[-1]}"
        if found := known(index.combinations.get(trinomial.casefold(), []), rank):
            return found, certain or hybrid
    if rank not in (None, "species"):
        return [], None
    if found := known(index.combinations.get(binomial.casefold(), []), "species"):
        unknown = f"unknown subspecies {name!r}; using its species {binomial}" if parsed.infraspecific else None
        return found, unknown or certain or hybrid
    return _genus_instead(taxonomy, question, parsed, name) if "genus" in taxonomy.ranks else ([], None)


def _genus_instead(
    taxonomy: Taxonomy, question: _Question, parsed: ScientificName, name: str
) -> tuple[list[int], str | None]:
    """The genus of a species that the model does not know, unless a known one is spelt nearly so or was meant."""
    genus, epithet = str(parsed.genus), str(parsed.epithet)
    ids = taxonomy.name_index.names.get(genus.casefold(), [])
    genera = [t for t in ids if question.fits(taxonomy, t, "genus")]
    if not genera:
        raise DataError(f"no taxon {name!r}, nor a genus {genus!r}{_nearest(taxonomy, f'{genus} {epithet}', None)}")
    below = [t for g in genera for t in taxonomy.subtree(g)]
    if raised := [t for t in below if taxonomy.rank(t) == "subspecies" and _plain(taxonomy, t) == epithet.casefold()]:
        return raised, f"{name!r} is known here as {taxonomy.lineage(raised[0]).label}"
    siblings = {t: _plain(taxonomy, t) for t in below if taxonomy.rank(t) == "species"}
    if close := process.extractOne(epithet.casefold(), siblings, scorer=fuzz.ratio, score_cutoff=_CLOSE):
        raise DataError(f"no taxon {name!r}; did you mean {taxonomy.lineage(close[2]).label!r}?")
    return genera, f"unknown species {name!r}; using its genus {taxonomy.lineage(genera[0]).label}"


def _plain(taxonomy: Taxonomy, taxon_id: int) -> str:
    return EPITHET_MARK.sub("", taxonomy.name(taxon_id)).casefold()


def _homonyms(taxonomy: Taxonomy, candidates: list[int], name: str) -> str:
    """What to write for each of the taxa that share a name: what is proposed finds that taxon and no other."""
    lines = [f"\n  {_unmistakable(taxonomy, t, name)!r}" for t in candidates[:_NUM_LISTED]]
    more = f"\n  … and {len(candidates) - _NUM_LISTED} more" if len(candidates) > _NUM_LISTED else ""
    return f"{name!r} names {len(candidates)} taxa; call the one that is meant:{''.join(lines)}{more}"


def _unmistakable(taxonomy: Taxonomy, taxon_id: int, name: str) -> str:
    """The shortest of several ways to write a taxon that leads to it alone: at last its whole lineage, which does."""
    lineage = taxonomy.lineage(taxon_id)
    typed = _Question.of(name, None).text
    of_species = [lineage.label] if lineage.rank in ("species", "subspecies") else []
    ancestors = [ancestor for _, ancestor in reversed(lineage.names[:-1])]
    below = [f"{ancestor} > {text}" for text in dict.fromkeys((typed, lineage.label)) for ancestor in ancestors]
    for way in (*of_species, *below):
        try:
            found, _ = _candidates(taxonomy, way, None)
        except DataError:  # a misspelt epithet below this ancestor
            continue
        if found and _chosen(taxonomy, found) == taxon_id:
            return way
    return str(lineage)


def _nearest(taxonomy: Taxonomy, name: str, rank: Rank | None) -> str:
    labels = taxonomy.name_index.labels
    if rank is not None:
        of_rank = (taxonomy.lineage(t).label for t in taxonomy.at_rank(rank))
        labels = {label.casefold(): label for label in of_rank}
        if not labels:
            return f"; this taxonomy holds no {rank}"
    return nearest_text(labels, name, taxonomy.ranks)
