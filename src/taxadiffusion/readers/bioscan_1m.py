"""BIOSCAN-1M: one TSV or JSON Lines of insect specimens, pictures in 113 parts (Gharaee et al. 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.bioscan import AVAILABLE, PAPER_RANKS, PictureFiles, find_pictures, read_specimen
from taxadiffusion.readers.record import Record, Rejected, path_fault
from taxadiffusion.readers.table import SHORT_ROWS, Row, Table
from taxadiffusion.readers.taxon import chosen_ranks

TABLE_STEMS = ("BIOSCAN_Insect_Dataset_metadata", "BIOSCAN_1M_Insect_Dataset_metadata")
SUFFIXES = (".tsv", ".csv", ".jsonl")
EXPERIMENTS = tuple(
    f"{size}_{group}" for group in ("diptera_family", "insect_order") for size in ("large", "medium", "small")
)
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def detect(source: Path) -> bool:
    table = find_table(source, TABLE_STEMS)
    return table is not None and {"sampleid", "image_file", "chunk_number"} <= set(Table(table).columns)


def open_source(
    source: Path,
    *,
    images: Path | None = None,
    experiment: str | None = None,
    partition: Path | None = None,
    ranks: Sequence[Rank] | str | None = None,
) -> Bioscan1M:
    """A folder with the metadata table under either published name, or the table itself.

    `images`: picture folder, .zip or .hdf5 (default: found beside the table). `experiment`: take the published split of
    that column ("large_insect_order" …). `partition`: folder of CLIBD split files (one sampleid a line; the file's name
    tells the split). Without either, `prepare` splits. Default ranks: the paper's five; subfamily and tribe on demand.
    """
    table = find_table(source, TABLE_STEMS)
    if table is None:
        raise DataError(f"{source}: no BIOSCAN-1M table; expected {TABLE_STEMS[0]}.tsv or {TABLE_STEMS[1]}.tsv")
    if experiment is not None and experiment not in EXPERIMENTS:
        raise SettingsError(f"experiment: no column {experiment!r}; choose one of {', '.join(EXPERIMENTS)}")
    if experiment is not None and partition is not None:
        raise SettingsError("give either experiment or partition: each defines the split")
    pictures = find_pictures(source, images, "bioscan", "part")
    splits = _read_partition(Path(partition)) if partition else {}
    return Bioscan1M(table, pictures, experiment, splits, chosen_ranks(ranks, AVAILABLE, PAPER_RANKS))


class Bioscan1M:
    """One record per specimen; `not_classified` is no name, tribes and subfamilies are kept when asked for."""

    name = "bioscan-1m"

    def __init__(
        self,
        table: Path,
        pictures: PictureFiles,
        experiment: str | None,
        splits: dict[str, str],
        ranks: tuple[Rank, ...],
    ) -> None:
        self.root = pictures.root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._table = table
        self._pictures = pictures
        self._experiment = experiment
        self._splits = splits

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        table = Table(self._table)
        table.may_end_after(["image_file", "chunk_number", "sampleid", "uri", "species", *self.ranks])
        for row in table:
            yield row if isinstance(row, Rejected) else self._record(row)
        if table.num_short:
            self.counts[SHORT_ROWS] = table.num_short

    def _record(self, row: Row) -> Record | Rejected:
        file_name, chunk = row.get("image_file"), row.get("chunk_number")
        fault = path_fault(file_name) or (None if chunk.isdecimal() else "chunk_number is no number")
        if fault:
            return Rejected(self._table.name, row.number, f"{file_name} (chunk_number {chunk!r})", fault)
        taxon = read_specimen(row, self.ranks, "uri")
        if taxon.fault or not taxon.lineage:
            return Rejected(self._table.name, row.number, row.get("species"), taxon.fault or "the row names no taxon")
        self.counts.update(taxon.notes)
        image, member = self._pictures.locate(f"part{int(chunk)}/{file_name}")
        sample_id = row.get("sampleid")
        return Record(
            image=image,
            member=member,
            lineage=taxon.lineage,
            source=self._table.name,
            row=row.number,
            split=SPLITS.get(row.get(self._experiment)) if self._experiment else self._splits.get(sample_id),
            source_id=row.get("processid") or sample_id or None,
            license=row.get("copyright_license") or None,
            rights_holder=row.get("copyright_holder") or row.get("copyright_institution") or None,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
        )


def find_table(source: Path, stems: tuple[str, ...]) -> Path | None:
    """The metadata table of a BIOSCAN release: the file given, or a published name in or below the folder."""
    if source.is_file():
        return source if source.name.startswith(stems) and source.suffix in SUFFIXES else None
    folders = [source, source / "metadata", *(source.glob("*/metadata/*")), *(source.glob("metadata/*"))]
    names = [stem + suffix for stem in stems for suffix in SUFFIXES]
    return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)


def _read_partition(folder: Path) -> dict[str, str]:
    """CLIBD's partition: `<split>.txt` with one sampleid a line → sampleid → train, val or test."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"{folder}: no partition files; expected <split>.txt with one sampleid a line")
    splits = {}
    for path in files:
        split = next((word for word in ("train", "val", "test") if word in path.stem.lower()), None)
        if split is not None and "pretrain" not in path.stem.lower():
            splits.update(dict.fromkeys(bounded.read_small(path).decode("utf-8", "replace").split(), split))
    return splits
