"""TreeOfLife-10M and -200M catalogues and shards, TaxonoPy's tables, the Rare Species table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.disk_index import DiskIndex
from taxadiffusion.readers.exported import exported_ranks, exported_record
from taxadiffusion.readers.record import LEFT_OUT, Record, Rejected, as_on_disk, path_fault
from taxadiffusion.readers.table import SHORT_ROWS, Row, Table
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks, convention_of, read_taxon

LINNAEAN: tuple[Rank, ...] = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
SPLITS = {"train": "train", "val": "val", "test": "test"}
KINGDOMS = {"metazoa": "Animalia", "archaeplastida": "Plantae", "chloroplastida": "Plantae", "viridiplantae": "Plantae"}
"""Spellings of one kingdom that TreeOfLife's own cleaning unites."""

_MAX_SHARD_DEPTH = 4
_TOO_LONG = "too long"  # no suffix of an entry: those hold no blank
_IMAGE_COLUMNS = ("filepath", "file_name", "treeoflife_id", "uuid")
_CATALOGS = ("catalog.csv", "catalog.parquet", "dataset/catalog.parquet", "metadata.csv")
_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp")


def detect(source: Path) -> bool:
    table = _catalog(source)
    return _is_catalog(table) if table is not None else bool(_shards(source))


def open_source(
    source: Path, *, images: Path | None = None, ranks: Sequence[Rank] | str | None = None
) -> Catalog | Shards:
    """A catalogue (CSV or Parquet), a folder holding one, or a folder of `shard-*.tar` alone.

    With shards beside a catalogue each picture is found in its shard by id; otherwise under `images` (default: the
    table's folder) by `filepath`, or as `<id>.jpg`. Default ranks: the seven Linnaean ones.
    """
    table, shards = _catalog(source), _shards(source)
    if table is not None and _is_catalog(table):
        root = source if source.is_dir() else source.parent
        wanted = chosen_ranks(ranks, LINNAEAN, LINNAEAN)
        return Catalog(table, Path(images) if images else root, shards if images is None else [], wanted)
    if shards:
        available = exported_ranks(shards[0]) or LINNAEAN
        return Shards(source, shards, chosen_ranks(ranks, available, available))
    raise DataError(f"{source}: no catalogue ({', '.join(_CATALOGS)}), no TaxonoPy table and no shard-*.tar")


class Catalog:
    """One record per row; rows of `train_small`, which repeat `train`, are passed over and counted."""

    name = "treeoflife"

    def __init__(self, table: Path, root: Path, shards: list[Path], ranks: tuple[Rank, ...]) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._path = table
        self._shards = shards

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        if not self._shards:
            yield from self._rows(None)
            return
        with DiskIndex(_shard_entries(self.root, self._shards)) as index:
            yield from self._rows(index)

    def _rows(self, index: DiskIndex | None) -> Iterator[Record | Rejected]:
        table = Table(self._path)
        image_column = next(column for column in _IMAGE_COLUMNS if column in table.columns)
        table.may_end_after([image_column, "split", "cls", *LINNAEAN])
        for row in table:
            if isinstance(row, Rejected):
                yield row
            elif row.get("split") == "train_small":
                self.counts[f"train_small_rows{LEFT_OUT}"] += 1
            else:
                yield self._record(row, image_column, index)
        if table.num_short:
            self.counts[SHORT_ROWS] = table.num_short

    def _record(self, row: Row, image_column: str, index: DiskIndex | None) -> Record | Rejected:
        name, key = self._path.name, row.get(image_column)
        is_path = image_column in ("filepath", "file_name")
        image, member = (key if is_path else f"{key}.jpg"), None
        if fault := path_fault(image) if key else f"{image_column} is empty":
            return Rejected(name, row.number, key, fault)
        image = as_on_disk(self.root, image)
        taxon = _row_taxon(row)
        if taxon.fault or not taxon.lineage:
            return Rejected(name, row.number, row.get("species") or key, taxon.fault or "the row names no taxon")
        self.counts.update(taxon.notes)
        if index is not None:
            found = index.get(key)
            if found is None:
                return Rejected(name, row.number, key, "no shard holds a picture of this id")
            image, member = found
        return Record(
            image=image,
            member=member,
            lineage=taxon.lineage.only(self.ranks),
            source=name,
            row=row.number,
            split=SPLITS.get(row.get("split")),
            source_id=key,
            license=row.get("license") or None,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
        )


class Shards:
    """One record per sample of the shards; a key ends at the first dot of an entry's name."""

    name = "treeoflife"

    def __init__(self, root: Path, shards: list[Path], ranks: tuple[Rank, ...]) -> None:
        self.root = root if root.is_dir() else root.parent
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._shards = shards

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        for path in self._shards:
            for number, (key, members) in enumerate(_samples(path), start=1):
                yield self._record(path, number, key, members)

    def _record(self, path: Path, number: int, key: str, members: dict[str, str]) -> Record | Rejected:
        member = next((members[suffix] for suffix in _IMAGE_SUFFIXES if suffix in members), None)
        if member is None or _TOO_LONG in members:
            return Rejected(path.name, number, key, members.get(_TOO_LONG, "the sample holds no picture"))
        image = path.relative_to(self.root).as_posix()
        if "json" in members:
            return exported_record(path.name, number, key, image, member, members["json"], self.ranks)
        taxon = _text_taxon(members)
        if taxon.fault or not taxon.lineage:
            return Rejected(path.name, number, key, taxon.fault or "the sample names no taxon")
        self.counts.update(taxon.notes)
        return Record(
            image=image,
            member=member,
            lineage=taxon.lineage.only(self.ranks),
            source=path.name,
            row=number,
            split=next((split for word, split in SPLITS.items() if word in path.parts), None),
            source_id=key,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
        )


def _row_taxon(row: Row) -> StatedTaxon:
    """Epithet (TreeOfLife, Rare Species) or binomial (TaxonoPy) in `species`; kingdoms' spellings united.

    Where there is a column `cls` it is the class (Rare Species), and `class` holds the binomial.
    """
    class_column = "cls" if "cls" in row.values else "class"
    return _cleaned_taxon({rank: row.get(class_column if rank == "class" else rank) for rank in LINNAEAN})


def _text_taxon(members: dict[str, str]) -> StatedTaxon:
    """From taxonTag.txt ("… kingdom Animalia phylum Chordata …"), else taxonomic_name.txt (names, coarse to fine)."""
    tagged = re.findall(
        rf"\b({'|'.join(LINNAEAN)})\s+(.+?)(?=\s+(?:{'|'.join(LINNAEAN)})\b|[.\s]*$)", members.get("taxontag.txt", "")
    )
    if tagged:
        return _cleaned_taxon(dict(tagged))
    words = members.get("taxonomic_name.txt", "").split()
    if len(words) == len(LINNAEAN):
        return _cleaned_taxon(dict(zip(LINNAEAN, words, strict=True)))
    return read_taxon((), members.get("scientific_name.txt", members.get("sci.txt", "")), "binomial")


def _cleaned_taxon(cells: dict[str, str]) -> StatedTaxon:
    cells = {rank: re.sub(r"<[^<>]*>|\((?:unidentified|unknown)\)", "", cell).strip() for rank, cell in cells.items()}
    kingdom = cells.get("kingdom", "")
    cells["kingdom"] = KINGDOMS.get(kingdom.casefold(), kingdom)
    species = cells.pop("species", "")
    return read_taxon(tuple(cells.items()), species, convention_of(species))


def _samples(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Samples of one shard: key and, by lower-case suffix, the text of .txt entries and the entry name of pictures."""
    key = ""
    members: dict[str, str] = {}
    try:
        with closing(bounded.TarArchive(path)) as archive:
            for entry in archive.entries():
                entry_key, _, suffix = entry.name.rsplit("/", 1)[-1].partition(".")
                if entry_key != key and members:
                    yield key, members
                    members = {}
                key, suffix = entry_key, suffix.rsplit("/", 1)[-1].lower()
                members[suffix] = entry.name
                if suffix.endswith(("txt", "json")):
                    if entry.size > bounded.MAX_TEXT_BYTES:
                        members[_TOO_LONG] = (
                            f"entry {entry.name!r} has {entry.size} bytes, more than {bounded.MAX_TEXT_BYTES}"
                        )
                        continue
                    members[suffix] = archive.read(entry, bounded.MAX_TEXT_BYTES).decode("utf-8", "replace").strip()
    except bounded.DAMAGED as error:
        raise DataError(f"{path}: damaged shard after sample {key!r}: {error}") from error
    if members:
        yield key, members


def _shard_entries(root: Path, shards: list[Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path in shards:
        for key, members in _samples(path):
            if member := next((members[suffix] for suffix in _IMAGE_SUFFIXES if suffix in members), None):
                yield key, (path.relative_to(root).as_posix(), member)


def _is_catalog(table: Path) -> bool:
    """By its columns: `treeoflife_id`, Rare Species' `cls` with `filepath`, or TaxonoPy's `uuid` without file_name."""
    columns = set(Table(table).columns)
    if not {"kingdom", "phylum", "order", "family", "genus", "species"} <= columns:
        return False
    is_rare_species = {"cls", "filepath"} <= columns
    is_taxonopy = "uuid" in columns and "file_name" not in columns
    return "treeoflife_id" in columns or is_rare_species or is_taxonopy


def _catalog(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix in (".csv", ".parquet") else None
    return next((path for name in _CATALOGS if (path := source / name).is_file()), None)


def _shards(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if re.fullmatch(r"shard-\d+\.tar", source.name) else []
    if not source.is_dir():
        return []
    return sorted(path for depth in range(_MAX_SHARD_DEPTH) for path in source.glob("*/" * depth + "shard-*.tar"))
