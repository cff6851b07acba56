"""From the cells of one row to a lineage at its true depth, with authorship and qualifier kept apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import (
    Lineage,
    Rank,
    ScientificName,
    Written,
    clean_name,
    is_above_genus,
    ordered_ranks,
    parse_name,
    says_no_name,
    unquoted,
    usual_capitals,
    written_name,
    written_taxon,
)

Convention = Literal["epithet", "binomial"]
"""What a source writes in its species column: "clarkii" or "Amphiprion clarkii"."""

NO_GENUS = "an epithet stands without a genus; fill in the genus, or write the whole binomial"
_EPITHETS_LIKE_PLACEHOLDERS = frozenset({("Ipomoea", "nil")})
_INFRASPECIFIC_WORDS = {"variety": "var.", "form": "f.", "subspecies": "subsp."}


@dataclass(frozen=True, slots=True)
class StatedTaxon:
    """One row's identification."""

    lineage: Lineage
    authorship: str | None = None
    qualifier: str | None = None
    notes: tuple[str, ...] = ()
    """What was read differently from the letter: "genus_filled", "species_as_binomial", "placeholder_species" …; with
    the words after a colon where a person will want to see them: "capitals: AMPHIPRION → Amphiprion"."""
    fault: str | None = None
    """Why the row contradicts itself; such a row is rejected."""


def says_species(cell: str) -> bool:
    """Whether a species cell may name one; `read_taxon` knows the genera of epithets that look like placeholders."""
    return clean_name(cell) is not None or cell.strip().lower() in {
        epithet for _, epithet in _EPITHETS_LIKE_PLACEHOLDERS
    }


def convention_of(species: str) -> Convention:
    """What one cell holds by its first letter: a binomial starts with a capital."""
    return "binomial" if unquoted(species.strip())[:1].isupper() else "epithet"


@lru_cache(maxsize=30_000)
def read_taxon(names: tuple[tuple[Rank, str], ...], species: str, convention: Convention) -> StatedTaxon:
    """The taxon of one row: `names` holds the cells above species, `species` the species cell, both as written.

    The epithet is taken from either convention (a first word equal to the genus column settles it); a missing genus is
    filled from a binomial. `cf.`, `aff.`, `sp.`, a BIN or a hybrid formula stop the lineage at the genus and stay in
    `qualifier`; a third name becomes the rank subspecies. Unusual capitals, quotation marks and a placeholder joined to
    a genus ("Amphiprion nan") are put right and noted. A species of another genus than the row's is a `fault`.
    """
    given = ((rank, cell, _read_cell(rank, cell)) for rank, cell in names)
    read = [(rank, cell, written) for rank, cell, written in given if cell.strip()]
    ranks = {rank: written.text for rank, _, written in read if written.text}
    notes = [f"placeholder_{rank}" for rank, _, written in read if not written.text]
    changes = [note for _, _, written in read for note in written.notes]
    genus = ranks.get("genus")
    is_real = (genus, species.strip().lower()) in _EPITHETS_LIKE_PLACEHOLDERS
    text = species.strip() if is_real else unquoted(clean_name(species) or "")
    if not text:
        notes += ["placeholder_species"] if species.strip() else []
        return StatedTaxon(Lineage.of(ranks), notes=(*notes, *_one_a_kind(changes)))
    full, convention_note = _full_name(ranks, text, convention)
    if not is_real and says_no_name(text.partition(" ")[0]):  # "nan nan"
        full, convention_note = text, None
    if full is None:
        return StatedTaxon(Lineage.of(ranks), qualifier=text, fault=NO_GENUS)
    written = written_name(full)
    changes += [f"quotation_marks: {species.strip()} → {text}"] if text != clean_name(species) and not is_real else []
    notes += [convention_note] if convention_note else []
    all_notes = (*notes, *_one_a_kind([*changes, *written.notes]))
    if not written.text:
        return StatedTaxon(Lineage.of(ranks), notes=all_notes)
    return _from_binomial(ranks, written, genus, all_notes)


def _read_cell(rank: Rank, cell: str) -> Written:
    """A cell above species, or that of the subspecies: an epithet, which may stand in its whole trinomial."""
    if rank != "subspecies" or not clean_name(cell):
        return written_taxon(cell)
    words = written_name(cell if " " in cell.strip() and cell.strip()[:1].isupper() else f"Genus {cell}")
    text = words.text.removeprefix("Genus").strip()
    parsed = parse_name(text)
    if parsed.infraspecific:
        text = _infraspecific(parsed)
    return Written(text, words.notes)


def _full_name(ranks: dict[Rank, str], text: str, convention: Convention) -> tuple[str | None, str | None]:
    """The species cell with its genus before it, and a note on the convention; None for an epithet without a genus."""
    genus = ranks.get("genus")
    first, _, others = text.partition(" ")
    if genus and first.casefold() == genus.casefold() and others:
        note = "species_as_binomial" if convention == "epithet" else None
        return text if text.isupper() else f"{genus} {others}", note
    if convention == "epithet" or text[:1].islower():
        note = "species_as_epithet" if convention == "binomial" else None
        return f"{genus} {text}" if genus else None, note
    if genus and not others and text.casefold() not in {name.casefold() for name in ranks.values()}:
        beside = f"{genus} {text}"  # "Clarkii" or "CLARKII" beside its genus
        return (beside, None) if usual_capitals(beside) != beside else (text, f"species_not_an_epithet: {text}")
    return text, None


def _one_a_kind(changes: list[str]) -> list[str]:
    """One note of each kind, about the row's finest name: so its count is a number of rows."""
    return list({change.partition(": ")[0]: change for change in changes}.values())


def _from_binomial(ranks: dict[Rank, str], written: Written, genus: str | None, notes: tuple[str, ...]) -> StatedTaxon:
    text, parsed = written.text, parse_name(written.text)
    if parsed.genus is None:
        return StatedTaxon(Lineage.of(ranks), qualifier=text, notes=(*notes, "species_not_a_name"))
    if parsed.epithet is None:
        return _above_species(ranks, text, parsed, notes)
    if genus is not None and parsed.genus != genus:
        return StatedTaxon(
            Lineage.of(ranks), fault="the species is of another genus than the genus column says; correct one"
        )
    if genus is None:
        notes = (*notes, "genus_filled")
    names: dict[Rank, str] = {**ranks, "genus": parsed.genus, "species": parsed.epithet}
    if parsed.infraspecific and "subspecies" not in names:
        names["subspecies"] = _infraspecific(parsed)
    qualifier = parsed.qualifier or ("hybrid" if parsed.hybrid else None)
    return StatedTaxon(Lineage.of(names), parsed.authorship, qualifier, notes)


def _above_species(ranks: dict[Rank, str], text: str, parsed: ScientificName, notes: tuple[str, ...]) -> StatedTaxon:
    """A name that stops at its first word. What stands before "cf.", "sp." or a placeholder is the genus, if a row has
    none and the word is no name of a coarser rank; of a word alone the rank is not known: it is kept as a qualifier."""
    name, qualifier = str(parsed.genus), parsed.qualifier
    is_known = name in ranks.values()
    other_parent = re.match(r"× ([A-Z]\w+\.?)", qualifier or "")
    of_two_genera = other_parent is not None and other_parent[1] not in (name, f"{name[0]}.")
    stops = qualifier is not None or any(note.startswith("placeholder_in_name") for note in notes)
    is_genus = stops and not of_two_genera and "genus" not in ranks and not is_above_genus(name)
    if is_genus and not is_known:
        return StatedTaxon(Lineage.of({**ranks, "genus": name}), None, qualifier, (*notes, "genus_filled"))
    return StatedTaxon(Lineage.of(ranks), qualifier=qualifier or (None if is_known else text), notes=notes)


def _infraspecific(parsed: ScientificName) -> str:
    rank = parsed.infraspecific_rank or "subspecies"
    mark = "" if rank == "subspecies" else _INFRASPECIFIC_WORDS[rank] + " "
    return mark + parsed.infraspecific[-1]


def kept_taxon_id(stated: str, taxon: StatedTaxon, ranks: tuple[Rank, ...]) -> str | None:
    """The id that a row states for its taxon, where the data set keeps that taxon: not one cut short at a coarser rank
    or at what is certain of it."""
    is_whole = taxon.lineage == taxon.lineage.only(ranks) and (taxon.qualifier is None or taxon.lineage.get("species"))
    return (stated or None) if is_whole else None


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
