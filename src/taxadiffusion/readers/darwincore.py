"""Darwin Core archives and GBIF downloads: occurrences, their media and a folder of downloaded pictures."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, Rank
from taxadiffusion.readers.darwincore_archive import MEDIA_TYPES, Archive, DataFile, Row
from taxadiffusion.readers.disk_index import DiskIndex
from taxadiffusion.readers.record import Record, Rejected, clean_name, path_fault
from taxadiffusion.readers.taxon import Taxon, chosen_ranks, convention_of, kept_taxon_id, read_taxon, says_species
from taxadiffusion.scientific_names import Written, parse_name, written_name, written_taxon

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
_SUFFIXES = {
    "image/jpeg": ".jpg",
    "jpeg": ".jpg",
    "jpg": ".jpg",
    "image/png": ".png",
    "png": ".png",
    "image/tiff": ".tif",
}


def detect(source: Path) -> bool:
    if source.is_dir():
        return any((source / name).is_file() for name in ("meta.xml", "occurrence.txt"))
    if source.suffix.lower() != ".zip" or not zipfile.is_zipfile(source):
        return False
    with zipfile.ZipFile(source) as archive:
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
    """One record per picture: rows of the media extension, entries of associatedMedia, else `<id>.jpg` per core row.

    Media that are no still images are not pictures and are counted (`non_images`); one occurrence may have many, which
    share a group.
    """

    name = "darwincore"

    def __init__(self, archive: Archive, root: Path, ranks: tuple[Rank, ...]) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._archive = archive

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        occurrences = self._archive.core
        if occurrences.row_type == "event":
            occurrences = self._archive.extension(frozenset({"occurrence"})) or occurrences
        media = self._archive.extension(MEDIA_TYPES)
        if media is None:
            yield from self._core_rows(occurrences)
            return
        with DiskIndex(self._indexed(occurrences)) as index:
            for row in self._archive.rows(media):
                if isinstance(row, Rejected):
                    yield row
                elif not _is_image(row):
                    self.counts["non_images"] += 1
                else:
                    yield self._media_record(media, row, index)

    def _core_rows(self, file: DataFile) -> Iterator[Record | Rejected]:
        for row in self._archive.rows(file):
            if isinstance(row, Rejected):
                yield row
                continue
            key = row.get("id", "occurrenceID") or str(row.number)
            cells = tuple(row.get(term) for term in _TAXON_TERMS)
            for address in [text for text in row.get("associatedMedia").split("|") if text.strip()] or [""]:
                yield self._record(file, row.number, key, address.strip(), "", cells, row.get("license"), "")

    def _indexed(self, file: DataFile) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Occurrences by id and by occurrenceID; those of an event core only by the latter (events hold many)."""
        by_event = file is not self._archive.core
        for row in self._archive.rows(file):
            if isinstance(row, Rejected):
                self.counts["occurrence_rows_unreadable"] += 1
                continue
            self.counts["occurrences"] += 1
            cells = tuple(row.get(term) for term in _TAXON_TERMS)
            for key in {row.get("occurrenceID"), "" if by_event else row.get("id")} - {""}:
                yield key, cells

    def _media_record(self, media: DataFile, row: Row, index: DiskIndex) -> Record | Rejected:
        key = row.get("id", "gbifID")
        cells = index.get(key)
        if cells is None:
            return Rejected(media.name, row.number, key, "its occurrence is not in the archive")
        address = row.get("accessURI", "identifier", "references")
        holder = row.get("rightsHolder", "Owner", "creator")
        return self._record(
            media, row.number, key, address, row.get("format"), cells, row.get("license", "rights"), holder
        )

    def _record(
        self,
        file: DataFile,
        number: int,
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
            return Rejected(file.name, number, values["scientificName"] or key, reason)
        self.counts.update(taxon.notes)
        image = self._picture(key, address, format_)
        if fault := path_fault(image):
            return Rejected(file.name, number, address or key, fault)
        return Record(
            image=image,
            lineage=taxon.lineage.only(self.ranks),
            source=file.name,
            row=number,
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
        return next((name for name in candidates if (self.root / name).is_file()), candidates[0])


def picture_names(key: str, address: str, format_: str) -> list[str]:
    """File names under which a downloaded picture is looked for, the recommended one first.

    All but the URL's hashes may be shared by several pictures of one occurrence, never by pictures of two.
    """
    safe_key = re.sub(r"[^\w.-]", "_", key)
    suffix = _SUFFIXES.get(format_.lower(), ".jpg")
    if not address:
        return [f"{safe_key}{suffix}"]
    if not re.match(r"[a-z][a-z0-9+.-]*:", address, re.IGNORECASE):
        return [address]
    base = re.sub(r"[^\w.-]", "_", urlsplit(address).path.rstrip("/").rsplit("/", 1)[-1]) or "image"
    if "." not in base:
        base += suffix
    digests = [hashlib.new(kind, address.encode(), usedforsecurity=False).hexdigest() for kind in ("md5", "sha1")]
    return [*(f"{d}{suffix}" for d in digests), f"{safe_key}_{base}", f"{safe_key}/{base}", f"{safe_key}{suffix}"]


def taxon_of(values: dict[str, str]) -> Taxon:
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


def _of_rank(names: tuple[tuple[Rank, str], ...], rank: str, uninomial: str | None) -> Taxon:
    """A name above species stands at its stated rank; without one it is kept as a qualifier."""
    taxon = read_taxon(names, "", "epithet")
    if uninomial is None or uninomial in (name for _, name in taxon.lineage.names):
        return taxon
    if rank in RANKS and rank not in ("species", "subspecies") and taxon.lineage.get(rank) is None:
        return Taxon(Lineage.of((*taxon.lineage.names, (rank, uninomial))))
    return Taxon(taxon.lineage, qualifier=uninomial)


def _is_image(row: Row) -> bool:
    kind, format_ = row.get("type").lower(), row.get("format").lower()
    if format_ and not format_.startswith("image") and format_ not in _SUFFIXES:
        return False
    return "image" in kind or (not kind and bool(format_))
