"""From the cells of one row to a lineage at its true depth, with authorship and qualifier kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank, ordered_ranks
from taxadiffusion.readers.record import clean_name
from taxadiffusion.readers.scientific_names import parse_name

Convention = Literal["epithet", "binomial"]
"""What a source writes in its species column: "clarkii" or "Amphiprion clarkii"."""

_INFRASPECIFIC_WORDS = {"variety": "var.", "form": "f.", "subspecies": "subsp."}


@dataclass(frozen=True, slots=True)
class Taxon:
    """One row's identification."""

    lineage: Lineage
    authorship: str | None = None
    qualifier: str | None = None
    notes: tuple[str, ...] = ()
    """What was read differently from the letter: "genus_filled", "species_as_binomial", "placeholder_species" …"""
    fault: str | None = None
    """Why the row contradicts itself; such a row is rejected."""


@lru_cache(maxsize=30_000)
def read_taxon(names: tuple[tuple[Rank, str], ...], species: str, convention: Convention) -> Taxon:
    """The taxon of one row: `names` holds the cells above species, `species` the species cell, both as written.

    The epithet is taken from either convention (a first word equal to the genus column settles it); a missing genus is
    filled from a binomial. `cf.`, `aff.`, `sp.`, a BIN or a hybrid formula stop the lineage at the genus and stay in
    `qualifier`; a third name becomes the rank subspecies. A species of another genus than the row's is a `fault`.
    """
    ranks = {rank: name for rank, cell in names if (name := clean_name(cell))}
    text = clean_name(species)
    given = (*names, ("species", species))
    notes = [f"placeholder_{rank}" for rank, cell in given if cell.strip() and clean_name(cell) is None]
    if text is None:
        return Taxon(Lineage.of(ranks), notes=tuple(notes))
    genus = ranks.get("genus")
    first, _, others = text.partition(" ")
    if genus and first.casefold() == genus.casefold() and others:
        if convention == "epithet":
            notes.append("species_as_binomial")
        text = f"{genus} {others}"
    elif convention == "epithet" or text[:1].islower():
        if convention == "binomial":
            notes.append("species_as_epithet")
        if genus is None:
            return Taxon(Lineage.of(ranks), qualifier=text, fault="an epithet stands without a genus")
        text = f"{genus} {text}"
    return _from_binomial(ranks, text, genus, notes)


def _from_binomial(ranks: dict[Rank, str], text: str, genus: str | None, notes: list[str]) -> Taxon:
    parsed = parse_name(text)
    if parsed.genus is None:
        return Taxon(Lineage.of(ranks), qualifier=text, notes=(*notes, "species_not_a_name"))
    if parsed.epithet is None:
        qualifier = parsed.qualifier or (None if parsed.genus in ranks.values() else text)
        return Taxon(Lineage.of(ranks), qualifier=qualifier, notes=tuple(notes))
    if genus is not None and parsed.genus != genus:
        return Taxon(Lineage.of(ranks), fault="the species is of another genus than the genus column says; correct one")
    if genus is None:
        notes.append("genus_filled")
    names: dict[Rank, str] = {**ranks, "genus": parsed.genus, "species": parsed.epithet}
    if parsed.infraspecific and "subspecies" not in names:
        rank = parsed.infraspecific_rank
        mark = "" if rank == "subspecies" else _INFRASPECIFIC_WORDS[rank or "subspecies"] + " "
        names["subspecies"] = mark + parsed.infraspecific[-1]
    qualifier = parsed.qualifier or ("hybrid" if parsed.hybrid else None)
    return Taxon(Lineage.of(names), parsed.authorship, qualifier, tuple(notes))


def chosen_ranks(
    ranks: str | Sequence[Rank] | None, available: tuple[Rank, ...], default: tuple[Rank, ...]
) -> tuple[Rank, ...]:
    """A reader's `ranks` option ("order,family,genus,species" or a sequence; None: `default`), coarse to fine.

    Raises `SettingsError` for a rank the source does not have.
    """
    if ranks is None:
        return default
    wanted = [word.strip() for word in (ranks.split(",") if isinstance(ranks, str) else ranks)]
    if unknown := [rank for rank in wanted if rank not in available]:
        raise SettingsError(f"ranks: this source has no rank {', '.join(unknown)}; it has {', '.join(available)}")
    return ordered_ranks(wanted)
