"""Darwin Core archives and GBIF downloads: occurrences, their media and a folder of downloaded pictures."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, Rank, Written, parse_name, written_name, written_taxon
from taxadiffusion.readers import bounded
from taxadiffusion.readers.darwincore_archive import MEDIA_TYPES, Archive, ArchiveRow
from taxadiffusion.readers.darwincore_descriptor import DataFile
from taxadiffusion.readers.darwincore_media import PICTURE, addresses, kind_of, picture_names
from taxadiffusion.readers.disk_index import DiskIndex, KeyedRow
from taxadiffusion.readers.record import LEFT_OUT, Record, Rejected, as_on_disk, clean_name, path_fault
from taxadiffusion.readers.table import SHORT_ROWS
from taxadiffusion.readers.taxon import (
    StatedTaxon,
    chosen_ranks,
    convention_of,
    kept_taxon_id,
    read_taxon,
    says_species,
)

LINNAEAN: tuple[Rank, ...] = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
AVAILABLE: tuple[Rank, ...] = (
    "kingdom", "phylum", "class", "order", "superfamily", "family", "subfamily", "tribe", "genus", "subgenus",
    "species", "subspecies",
)  # fmt: skip
_ABOVE_SPECIES = tuple(rank for rank in AVAILABLE if rank not in ("species", "subspecies"))
_TAXON_TERMS = (
    *_ABOVE_SPECIES, "species", "specificEpithet", "infraspecificEpithet", "scientificName", "scientificNameAuthorship",
    "taxonRank", "taxonID", "acceptedTaxonKey", "taxonKey", "license", "rightsHolder",
)  # fmt: skip


def detect(source: Path) -> bool:
    if source.is_dir():
        return any((source / name).is_file() for name in ("meta.xml", "occurrence.txt"))
    if source.suffix.lower() != ".zip" or not zipfile.is_zipfile(source):
        return False
    with bounded.open_zip(source) as archive:
        names = {name.rsplit("/", 1)[-1].lower() for name in archive.namelist()}
    return bool(names & {"meta.xml", "occurrence.txt"}) or any(re.fullmatch(r"\d+-\d+\.csv", name) for name in names)


def open_source(source: Path, *, media: Path | None = None, ranks: Sequence[Rank] | str | None = None) -> DarwinCore:
    """An archive (zip, tar.gz, folder) or one occurrence table; `media` is the folder of downloaded pictures.

    A picture is looked for under the identifier itself when it is a relative path, else the md5 or sha1 of its URL,
    `<id>_<file name of the URL>`, `<id>/<file name>` and `<id>.jpg`; the first that exists is taken (`picture_names`).
    Default: `media` beside the tables. Default ranks: the seven Linnaean ones.
    """
    base = source if source.is_dir() else source.parent
    root = Path(media) if media else (base / "media" if (base / "media").is_dir() else base)
    if not root.is_dir():
        raise DataError(f"{root}: no such media folder")
    return DarwinCore(Archive(source), root, chosen_ranks(ranks, AVAILABLE, LINNAEAN))


class DarwinCore:
    """One record per picture: rows of the media extensions, entries of associatedMedia, else `<id>.jpg` per core row.

    Media that are no still images are counted (`non_images`, and by kind: "films_left_out" …); one occurrence may have
    many pictures, which share a group. Occurrences that cannot be read are rejected rows even where the pictures stand
    in another table.
    """

    name = "darwincore"

    def __init__(self, archive: Archive, root: Path, ranks: tuple[Rank, ...]) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._archive = archive

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        self._archive.num_short = 0
        occurrences = self._archive.core
        if occurrences.row_type == "event":
            occurrences = self._archive.extension(frozenset({"occurrence"})) or occurrences
        media = self._archive.extensions_of(MEDIA_TYPES)
        if not media:
            yield from self._core_rows(occurrences)
        else:
            with DiskIndex() as index:
                by_event = occurrences is not self._archive.core
                yield from index.fill(self._archive.rows(occurrences), partial(self._pairs, by_event=by_event))
                for file in media:
                    yield from self._media_rows(file, index)
        if self._archive.num_short:
            self.counts[SHORT_ROWS] = self._archive.num_short

    def _core_rows(self, file: DataFile) -> Iterator[Record | Rejected]:
        for row in self._archive.rows(file):
            if isinstance(row, Rejected):
                yield row
                continue
            key = row.get("id", "occurrenceID") or str(row.number)
            cells = tuple(row.get(term) for term in _TAXON_TERMS)
            stated = addresses(row.get("associatedMedia"))
            for address in self._pictures(stated, "image", "", "") if stated else [""]:
                yield self._record(row, key, address, "", cells, row.get("license"), "")

    def _pictures(self, stated: list[str], row_type: str, type_: str, format_: str) -> Iterator[str]:
        """Those of the addresses that are pictures; the others are counted."""
        for address in stated:
            kind = kind_of(row_type, type_, format_, address)
            if kind == PICTURE:
                yield address
            else:
                self.counts.update(("non_images", kind + LEFT_OUT))

    def _pairs(self, row: ArchiveRow, *, by_event: bool) -> list[KeyedRow]:
        """An occurrence by id and by occurrenceID; that of an event core only by the latter (events hold many)."""
        self.counts["occurrences"] += 1
        cells = tuple(row.get(term) for term in _TAXON_TERMS)
        return [(key, cells) for key in {row.get("occurrenceID"), "" if by_event else row.get("id")} - {""}]

    def _media_rows(self, file: DataFile, index: DiskIndex) -> Iterator[Record | Rejected]:
        for row in self._archive.rows(file):
            if isinstance(row, Rejected):
                yield row
                continue
            format_, stated = row.get("format"), addresses(row.get("accessURI", "identifier", "references")) or [""]
            pictures = list(self._pictures(stated, file.row_type, row.get("type"), format_))
            if not pictures:
                continue
            key = row.get("id", "gbifID")
            cells = index.get(key)
            if cells is None:
                yield Rejected(row.source, row.number, key, "its occurrence is not in the archive")
                continue
            holder = row.get("rightsHolder", "Owner", "creator")
            for address in pictures:
                yield self._record(row, key, address, format_, cells, row.get("license", "rights"), holder)

    def _record(
        self,
        row: ArchiveRow,
        key: str,
        address: str,
        format_: str,
        cells: tuple[str, ...],
        license_: str,
        holder: str,
    ) -> Record | Rejected:
        values = dict(zip(_TAXON_TERMS, cells, strict=True))
        taxon = taxon_of(values)
        if taxon.fault or not taxon.lineage.only(self.ranks):
            reason = taxon.fault or "the row names no taxon at the ranks of the data set"
            return Rejected(row.source, row.number, values["scientificName"] or key, reason)
        self.counts.update(taxon.notes)
        image = self._picture(key, address, format_)
        if fault := path_fault(image):
            return Rejected(row.source, row.number, address or key, fault)
        return Record(
            image=image,
            lineage=taxon.lineage.only(self.ranks),
            source=row.source,
            row=row.number,
            group=key,
            source_id=key,
            license=license_ or values["license"] or None,
            rights_holder=holder or values["rightsHolder"] or None,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
            source_taxon_id=kept_taxon_id(
                values["taxonID"] or values["acceptedTaxonKey"] or values["taxonKey"], taxon, self.ranks
            ),
        )

    def _picture(self, key: str, address: str, format_: str) -> str:
        """The first candidate name that exists below the root, else the first candidate."""
        candidates = picture_names(key, address, format_)
        found = next((name for name in candidates if (self.root / name).is_file()), candidates[0])
        return found if path_fault(found) else as_on_disk(self.root, found)


def taxon_of(values: dict[str, str]) -> StatedTaxon:
    """The taxon of Darwin Core terms: `species` (GBIF's accepted binomial), specificEpithet, else scientificName."""
    names = tuple((rank, values.get(rank, "")) for rank in _ABOVE_SPECIES)
    scientific = values.get("scientificName", "")
    scientific = scientific[:1].upper() + scientific[1:]
    rank = values.get("taxonRank", "").lower()
    is_above = rank in RANKS and rank not in ("species", "subspecies") and not scientific.isupper()
    written = Written(scientific) if is_above else written_name(scientific)  # "Zanclus Pavona": here an author follows
    stated = parse_name(written.text) if written.text else None
    species = values.get("species") or values.get("specificEpithet") or ""
    if says_species(species):
        taxon = read_taxon(names, species, convention_of(species))
        infraspecific = read_taxon((("subspecies", values.get("infraspecificEpithet", "")),), "", "epithet").lineage
        if infraspecific and taxon.lineage.get("species") and not taxon.lineage.get("subspecies"):
            taxon = replace(taxon, lineage=Lineage.of((*taxon.lineage.names, *infraspecific.names)))
    elif stated is not None and stated.genus is not None and (stated.epithet or stated.qualifier or written.notes):
        genus = written_taxon(values.get("genus", "")).text
        same = not genus or genus.casefold() == stated.genus.casefold()
        taxon = read_taxon(names, scientific if same else "", "binomial")
    else:
        taxon = _of_rank(names, rank, stated.genus if stated else None)
    authorship = clean_name(values.get("scientificNameAuthorship")) or (stated.authorship if stated else None)
    return replace(taxon, authorship=authorship or taxon.authorship)


def _of_rank(names: tuple[tuple[Rank, str], ...], rank: str, uninomial: str | None) -> StatedTaxon:
    """A name above species stands at its stated rank; without one it is kept as a qualifier."""
    taxon = read_taxon(names, "", "epithet")
    if uninomial is None or uninomial in (name for _, name in taxon.lineage.names):
        return taxon
    if rank in RANKS and rank not in ("species", "subspecies") and taxon.lineage.get(rank) is None:
        return StatedTaxon(Lineage.of((*taxon.lineage.names, (rank, uninomial))))
    return StatedTaxon(taxon.lineage, qualifier=uninomial)
