"""BIOSCAN-1M: one TSV or JSON Lines of insect specimens, pictures in 113 parts (Gharaee et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.bioscan import SpecimenReader, find_pictures
from taxadiffusion.readers.record import path_fault
from taxadiffusion.readers.table import Row, Table

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
    reader = Bioscan1M(table, pictures, ranks)
    reader.experiment = experiment
    reader.splits = _read_partition(Path(partition)) if partition else {}
    return reader


class Bioscan1M(SpecimenReader):
    """One record per specimen; `not_classified` is no name, tribes and subfamilies are kept when asked for."""

    name = "bioscan-1m"
    columns = ("image_file", "chunk_number", "sampleid", "uri", "species")
    barcode_column = "uri"
    experiment: str | None = None
    splits: Mapping[str, str] = MappingProxyType({})

    def _path(self, row: Row) -> tuple[str, str | None]:
        file_name, chunk = row.get("image_file"), row.get("chunk_number")
        fault = path_fault(file_name) or (None if chunk.isdecimal() else "chunk_number is no number")
        return (f"{file_name} (chunk_number {chunk!r})", fault) if fault else (f"part{int(chunk)}/{file_name}", None)

    def _facts(self, row: Row) -> dict[str, Any]:
        sample_id = row.get("sampleid")
        return {
            "split": SPLITS.get(row.get(self.experiment)) if self.experiment else self.splits.get(sample_id),
            "source_id": row.get("processid") or sample_id or None,
            "license": row.get("copyright_license") or None,
            "rights_holder": row.get("copyright_holder") or row.get("copyright_institution") or None,
        }


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
