"""Which column of a folder's metadata table means what, and whom its rows name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Rank, ordered_ranks, parse_name
from taxadiffusion.readers.table import Row, Table
from taxadiffusion.readers.taxon import StatedTaxon, convention_of, read_taxon, says_species

MEANINGS: dict[str, tuple[str, ...]] = {
    "image": ("file_name", "filename", "image", "file_path", "filepath", "path"),
    "epithet": ("specific_epithet", "specificepithet", "epithet"),
    "scientific_name": ("scientific_name", "scientificname", "binomial"),
    "split": ("split",),
    "group": ("group", "trajectory", "observation", "observation_id", "observation_uuid"),
    "source_id": ("source_id", "id", "uuid"),
    "license": ("license", "licence"),
    "source_taxon_id": ("source_taxon_id", "taxonid", "taxon_id"),
    "rights_holder": ("rights_holder", "rightsholder"),
    "folder": ("folder", "class_dir", "label"),
}
_BOX_COLUMNS = frozenset({"bbox", "box", "box_x"})


@dataclass(frozen=True)
class Columns:
    """Which column of a table means what; `ranks` without species, which has three possible columns."""

    named: dict[str, str]
    ranks: dict[Rank, str]
    has_box: bool

    @classmethod
    def of(cls, table: Table, chosen: dict[str, str | None]) -> Columns:
        lower = {name.lower(): name for name in reversed(table.columns) if name}
        told = (words for meaning, words in MEANINGS.items() if not chosen.get(meaning) and meaning != "folder")
        _refuse_doubled(table, {word for words in told for word in words})
        named = {}
        for meaning, candidates in MEANINGS.items():
            found = next((lower[candidate] for candidate in candidates if candidate in lower), None)
            if (wanted := chosen.get(meaning)) is not None:
                if wanted not in table.columns:
                    listed = ", ".join(name for name in table.columns if name)
                    raise DataError(f"{table.path}: no column {wanted!r}; its columns: {listed}")
                found = wanted
            if found:
                named[meaning] = found
        ranks = {rank: lower[word] for rank in RANKS for word in _rank_words(rank)[::-1] if word in lower}
        if "cls" in lower:  # beside it, `class` holds the label
            ranks["class"] = lower["cls"]
        if not ranks and "epithet" not in named and "scientific_name" not in named:
            listed = ", ".join(name for name in table.columns if name)
            raise DataError(
                f"{table.path}: no column names a rank (such as family, genus, species); its columns: {listed}"
            )
        return cls(named, ranks, not _BOX_COLUMNS.isdisjoint(table.columns))

    @property
    def all_ranks(self) -> tuple[Rank, ...]:
        has_species = "species" in self.ranks or "epithet" in self.named or "scientific_name" in self.named
        return ordered_ranks([*self.ranks, *(("genus", "species") if has_species else ())])

    @property
    def needed(self) -> list[str]:
        """The columns without which a row does not say what is in which picture."""
        names = (self.named.get(meaning) for meaning in ("image", "epithet", "scientific_name", "folder"))
        return [*(name for name in names if name), *self.ranks.values()]

    def taxon(self, row: Row, ranks: tuple[Rank, ...]) -> StatedTaxon:
        """The row's identification, kept to `ranks`."""
        above = tuple((rank, _alone(rank, row.get(column))) for rank, column in self.ranks.items() if rank != "species")
        cells = (self.named.get("epithet"), self.ranks.get("species"), self.named.get("scientific_name"))
        return _identified(above, tuple(row.get(column) for column in cells), ranks)


def with_subspecies(ranks: tuple[Rank, ...]) -> tuple[Rank, ...]:
    """A species cell may hold a third name, which is read when it is asked for."""
    return ordered_ranks([*ranks, "subspecies"]) if "species" in ranks else ranks


def _rank_words(rank: Rank) -> tuple[str, str]:
    """The column of a rank, or what iNaturalist's own export calls it."""
    return rank, f"taxon_{rank}_name"


def _refuse_doubled(table: Table, words: set[str]) -> None:
    """Two columns that differ in capitals alone and have a meaning: which of them is meant, only their owner knows."""
    known = words | {word for rank in RANKS for word in _rank_words(rank)}
    by_word: dict[str, list[str]] = {}
    for name in table.columns:
        by_word.setdefault(name.lower(), []).append(name)
    for word, names in by_word.items():
        if word in known and len(names) > 1:
            listed = " and ".join(repr(name) for name in names)
            raise DataError(f"{table.path}:1: columns {listed} both mean {word}; rename or drop one of them")


def _alone(rank: Rank, cell: str) -> str:
    """A subspecies by its own word, where its column holds the trinomial."""
    if rank != "subspecies" or " " not in cell.strip():
        return cell
    parsed = parse_name(cell)
    return parsed.infraspecific[-1] if parsed.infraspecific else cell


@lru_cache(maxsize=30_000)
def _identified(above: tuple[tuple[Rank, str], ...], cells: tuple[str, ...], ranks: tuple[Rank, ...]) -> StatedTaxon:
    """The taxon of the names above species and the species cells (epithet, species, scientific name), which agree."""
    *in_species, scientific = cells
    # A name in the column of scientific names has its genus, with a capital or not.
    stated = [cell for cell in (*in_species, scientific[:1].upper() + scientific[1:]) if says_species(cell)]
    taxa = [read_taxon(above, text, convention_of(text)) for text in stated]
    if not taxa:
        taxa = [read_taxon(above, "", "epithet")]
    faults = [taxon.fault for taxon in taxa if taxon.fault]
    binomials = sorted({taxon.lineage.binomial for taxon in taxa if taxon.lineage.binomial})
    if len(binomials) > 1:
        faults.append(f"the row names {len(binomials)} species: {', '.join(binomials)}")
    deepest = max(taxa, key=lambda taxon: len(taxon.lineage.names))
    authorship = next((taxon.authorship for taxon in taxa if taxon.authorship), None)
    fault = faults[0] if faults else None
    return replace(deepest, lineage=deepest.lineage.only(ranks), authorship=authorship, fault=fault)
