"""A prepared data set in other forms: Hugging Face imagefolder, WebDataset shards, tree files, one HTML page."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxadiffusion.dataset.columns import SPLITS
from taxadiffusion.dataset.export_html import write_html
from taxadiffusion.dataset.export_tree import write_csv, write_newick
from taxadiffusion.dataset.prepared import ImageRow, PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.images import read_image_file

TARGETS = ("imagefolder", "webdataset", "newick", "csv", "html")

SAMPLES_PER_SHARD = 10_000
BYTES_PER_SHARD = 1 << 30
ROWS_PER_BATCH = 1_000
_BOX_COLUMNS = ("box_x", "box_y", "box_width", "box_height")
_ORIGIN_COLUMNS = ("source_id", "license", "rights_holder", "authorship", "qualifier", "source_taxon_id")


@dataclass(frozen=True)
class Exported:
    """What was written: the path, and how many images or taxa are in it."""

    path: Path
    num_items: int


def export(dataset: PreparedDataset, out: Path, target: str) -> Exported:
    """Write `dataset` to `out`, a new folder (imagefolder, webdataset) or file (newick, csv, html).

    Image files are copied byte for byte. Raises `SettingsError` for an unknown target or an `out` that exists,
    `DataError` for an image that is gone or has changed since it was prepared.
    """
    if target not in TARGETS:
        raise SettingsError(f"--to {target!r}: choose one of {', '.join(TARGETS)}")
    if out.exists():
        raise SettingsError(f"{out}: exists already; name a new path, nothing is overwritten")
    if target in ("imagefolder", "webdataset"):
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_images = write_imagefolder if target == "imagefolder" else write_webdataset
        num_images = write_images(dataset, partial)
        partial.rename(out)
        return Exported(out, num_images)
    write_tree = {"newick": write_newick, "csv": write_csv, "html": write_html}[target]
    write_tree(dataset, out)
    return Exported(out, len(dataset.taxonomy))


def write_imagefolder(dataset: PreparedDataset, out: Path) -> int:
    """`<split>/<sha256>.<suffix>` and `<split>/metadata.parquet`, as `datasets` and our own folder reader read it.

    Parquet, because `datasets` guesses the types of a CSV for each split apart and refuses when they differ.
    """
    for split in SPLITS:
        rows = dataset.rows(split)
        if not len(rows):
            continue
        folder = out / split
        folder.mkdir()
        schema = _schema(dataset)
        with pq.ParquetWriter(folder / "metadata.parquet", schema) as writer:
            for start in range(0, len(rows), ROWS_PER_BATCH):
                metadata = [_exported_row(dataset, int(row), folder) for row in rows[start : start + ROWS_PER_BATCH]]
                writer.write_table(pa.Table.from_pylist(metadata, schema))
    return len(dataset)


def _exported_row(dataset: PreparedDataset, row: int, folder: Path) -> dict[str, Any]:
    """Copies the picture, if it is not there yet; its row of metadata."""
    record = dataset.record(row)
    name = _file_name(record)
    if not (folder / name).exists():
        (folder / name).write_bytes(_read(record))
    return {"file_name": name, **_metadata(dataset, row, record)}


def _schema(dataset: PreparedDataset) -> pa.Schema:
    texts = ("file_name", *dataset.ranks, "scientific_name", "split", "group")
    return pa.schema([
        *((name, pa.string()) for name in texts),
        *((name, pa.float64()) for name in _BOX_COLUMNS),
        *((name, pa.string()) for name in _ORIGIN_COLUMNS),
    ])  # fmt: skip


def write_webdataset(dataset: PreparedDataset, out: Path) -> int:
    """`<split>/shard-000000.tar` with `<key>.<suffix>`, `<key>.json` (all columns) and `<key>.scientific_name.txt`."""
    shards = {split: _ShardWriter(out / split) for split in SPLITS}
    for row in range(len(dataset)):
        record = dataset.record(row)
        metadata = {"ranks": dataset.ranks, **_metadata(dataset, row, record)}
        suffix = record.path.suffix.lower().lstrip(".") or "jpg"
        shards[record.split].add(
            f"{row:09d}",
            {
                suffix: _read(record),
                "json": json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode(),
                "scientific_name.txt": dataset.lineage(row).label.encode(),
            },
        )
    for shard in shards.values():
        shard.close()
    return len(dataset)


class _ShardWriter:
    """Tar files of at most `SAMPLES_PER_SHARD` samples or about `BYTES_PER_SHARD` bytes; equal input, equal bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive: tarfile.TarFile | None = None
        self._num_shards = 0
        self._samples = 0
        self._bytes = 0

    def add(self, key: str, entries: dict[str, bytes]) -> None:
        if self._archive is None or self._samples >= SAMPLES_PER_SHARD or self._bytes >= BYTES_PER_SHARD:
            self._start()
        assert self._archive is not None
        for suffix, data in entries.items():
            entry = tarfile.TarInfo(f"{key}.{suffix}")
            entry.size = len(data)
            self._archive.addfile(entry, io.BytesIO(data))
            self._bytes += len(data)
        self._samples += 1

    def _start(self) -> None:
        self.close()
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"shard-{self._num_shards:06d}.tar"
        self._archive = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by `close`
        self._num_shards += 1
        self._samples = self._bytes = 0

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


def _metadata(dataset: PreparedDataset, row: int, record: ImageRow) -> dict[str, Any]:
    """Columns that our readers read back: ranks (species is the epithet), names, split, group, box, origin."""
    lineage = dataset.lineage(row)
    values: dict[str, Any] = {rank: lineage.get(rank) for rank in dataset.ranks}
    values["scientific_name"] = lineage.binomial
    values["split"] = record.split
    values["group"] = record.group
    box = record.box
    values |= dict(zip(_BOX_COLUMNS, (box.x, box.y, box.width, box.height) if box else (None,) * 4, strict=True))
    for name in _ORIGIN_COLUMNS:
        values[name] = getattr(record, name)
    return values


def _file_name(record: ImageRow) -> str:
    """By content, so that two rows of one picture share a file; by path where contents were not hashed."""
    key = record.sha256 or hashlib.sha256(str(record.path).encode()).hexdigest()
    return f"{key}{record.path.suffix.lower()}"


def _read(record: ImageRow) -> bytes:
    return read_image_file(record.path, record.seen)
