"""A prepared data set, opened memory-mapped: rows by number, images per split and taxon."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taxadiffusion.dataset.columns import IMAGES_MAPPED, SPLITS, TAXONOMY
from taxadiffusion.dataset.report import PrepareReport
from taxadiffusion.errors import DataError
from taxadiffusion.images import Fit, Seen, load_image
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.readers import Box, path_fault
from taxadiffusion.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a prepared set."""

    path: Path
    """Absolute."""
    taxon_id: int
    split: str
    width: int | None
    height: int | None
    sha256: str | None
    """Hexadecimal; None, like the size, where pictures were not verified."""
    box: Box | None = None
    content_box: Box | None = None
    """The part of the picture inside black bands and below a time stamp; None: all of it."""
    group: str | None = None
    source: str = ""
    row: int = 0
    source_id: str | None = None
    license: str | None = None
    rights_holder: str | None = None
    authorship: str | None = None
    qualifier: str | None = None
    source_taxon_id: str | None = None
    """The source's id of the image's taxon (Darwin Core's taxonID)."""
    seen: Seen | None = None
    """The file as it was prepared, against which it is read; None where that was not kept."""


class PreparedDataset:
    """Rows 0 … len-1 in the order of the source. Opening reads only the report; columns are mapped when used."""

    def __init__(self, path: Path, report: PrepareReport, root: Path) -> None:
        """Use `open`."""
        self.path = path
        self.root = root
        self.report = report
        self.ranks: tuple[Rank, ...] = tuple(report.ranks)
        self.content_hash = report.content_hash
        self.follows_links = bool(report.settings.get("follow_links"))
        self._file = _open_mapped(path / IMAGES_MAPPED)
        self._batch_starts = _batch_starts(self._file)
        if self._batch_starts[-1] != report.images:
            found = self._batch_starts[-1]
            raise DataError(f"{path}: {IMAGES_MAPPED} has {found} rows, the report {report.images}; run prepare again")
        self.keeps_files_seen = "num_bytes" in self._file.schema.names
        """Whether a change of a picture can be noticed: sets of earlier versions do not say what to compare with."""
        self._batch = lru_cache(maxsize=64)(self._file.get_batch)

    @classmethod
    def open(cls, path: Path | str, root: Path | str | None = None) -> PreparedDataset:
        """Opens what `prepare` wrote; `root` overrides the image folder, when it was moved.

        Raises `DataError` when `path` is not a whole prepared set of this schema, or the image folder is missing.
        """
        path = Path(path).absolute()
        report = PrepareReport.read(path)
        image_root = Path(root or report.root).absolute()
        if not image_root.is_dir():
            raise DataError(
                f"{path}: its image folder {image_root} is missing; say where the pictures are now with --root FOLDER "
                "(data.root in the settings of a run)"
            )
        dataset = cls(path, report, image_root)
        if not dataset.keeps_files_seen:
            _say_unchecked(path)
        return dataset

    def __len__(self) -> int:
        return self.report.images

    @cached_property
    def taxonomy(self) -> Taxonomy:
        taxonomy = Taxonomy.read(self.path / TAXONOMY)
        if taxonomy.content_hash != self.report.taxonomy_hash:
            raise DataError(f"{self.path}: taxonomy and report belong to different data sets; run prepare again")
        return taxonomy

    def rows(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """Indices of a split's images, ascending; of all images without one."""
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; splits: {', '.join(SPLITS)}")
        return np.flatnonzero(self._split_codes == SPLITS.index(split))

    def taxon_ids(self, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int32]:
        """The deepest known taxon of each image."""
        return self._taxon_ids if rows is None else self._taxon_ids[rows]

    def groups(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """What stays on one side of a split with each image: its group, or where it has none the image alone.

        rows: ascending.
        """
        parts = []
        for number in range(self._file.num_record_batches):
            here = rows[(rows >= self._batch_starts[number]) & (rows < self._batch_starts[number + 1])]
            batch = (
                self._file.get_batch(number).select(["group", "path"]).take(pa.array(here - self._batch_starts[number]))
            )
            alone = pc.binary_join_element_wise("image", batch.column("path"), "\0")
            grouped = pc.binary_join_element_wise("group", batch.column("group"), "\0")
            parts += pc.coalesce(grouped, alone).to_pylist()
        return parts

    def record(self, row: int) -> ImageRow:
        """All that is known of one image. Raises `IndexError` out of range, `DataError` for a path outside."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = bisect_right(self._batch_starts, row) - 1
        batch = self._batch(number)
        values = {name: batch.column(name)[row - self._batch_starts[number]].as_py() for name in batch.schema.names}
        unpacked = values.pop("unpacked")
        folder = self.path if unpacked else self.root
        del values["perceptual_hash"]
        values["path"] = _inside(folder, values["path"], self.path, self.follows_links and not unpacked)
        values["sha256"] = values["sha256"].hex() if values["sha256"] else None
        num_bytes, time_ns = values.pop("num_bytes", None), values.pop("file_time_ns", None)
        values["seen"] = Seen(num_bytes, time_ns, values["sha256"]) if num_bytes is not None else None
        for name in ("box", "content_box"):
            values[name] = Box(*values[name]) if values[name] else None
        return ImageRow(**values)

    def lineage(self, row: int) -> Lineage:
        return self.taxonomy.lineage(int(self._taxon_ids[row]))

    def image(self, row: int, size_px: int, fit: Fit = "crop") -> npt.NDArray[np.uint8]:
        """The picture as uint8 (3, size_px, size_px), without black bands and time stamp.

        Raises `ImageError`, also for a file that has changed since it was prepared.
        """
        record = self.record(row)
        return load_image(record.path, size_px, fit, record.box, record.content_box, record.seen)

    def counts(self, split: str = "train") -> npt.NDArray[np.int64]:
        """(number of taxa,) images of each taxon in a split, its subtree included."""
        own = np.bincount(self.taxon_ids(self.rows(split)), minlength=len(self.taxonomy))
        return self.taxonomy.summed(own.astype(np.int64))

    def source_taxon_ids(self) -> dict[int, str]:
        """Taxon → the id that the source (or a catalogue) gives it, where all of its images that state one agree."""
        if "source_taxon_id" not in self._file.schema.names:
            return {}
        stated: dict[int, set[str]] = {}
        for number in range(self._file.num_record_batches):
            pairs = pa.Table.from_batches([self._file.get_batch(number).select(["taxon_id", "source_taxon_id"])])
            distinct = pairs.drop_null().group_by(["taxon_id", "source_taxon_id"]).aggregate([])
            for taxon_id, text in zip(*(column.to_pylist() for column in distinct.columns), strict=True):
                stated.setdefault(taxon_id, set()).add(text)
        return {taxon_id: texts.pop() for taxon_id, texts in sorted(stated.items()) if len(texts) == 1}

    @cached_property
    def _taxon_ids(self) -> npt.NDArray[np.int32]:
        parts = [batch.column("taxon_id").to_numpy() for batch in self._batches("taxon_id")]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    @cached_property
    def _split_codes(self) -> npt.NDArray[np.int8]:
        splits = pa.array(SPLITS)
        parts = [pc.index_in(batch.column("split"), splits).to_numpy() for batch in self._batches("split")]
        return np.concatenate(parts).astype(np.int8) if parts else np.zeros(0, np.int8)

    def _batches(self, column: str) -> list[pa.RecordBatch]:
        return [self._file.get_batch(i).select([column]) for i in range(self._file.num_record_batches)]

    def __reduce__(self) -> tuple[object, tuple[Path, Path]]:
        """Worker processes open the data set themselves."""
        return PreparedDataset.open, (self.path, self.root)


@cache
def _say_unchecked(path: Path) -> None:
    """Once for each data set."""
    logging.getLogger(__name__).warning(
        "%s: prepared by an earlier version: whether its pictures have changed since is not checked. "
        "Prepare them anew to another folder to have that",
        path,
    )


def _inside(folder: Path, name: str, prepared: Path, follow_links: bool) -> Path:
    """The path of an image below `folder`: a prepared set may come from a stranger."""
    path = folder / name
    leaves = not follow_links and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    if path_fault(name) or leaves:
        raise DataError(f"{prepared}: image {name!r} leads outside of {folder}; prepare the data set again")
    return path


def _open_mapped(path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: missing or damaged: {error}; run prepare again") from error


def _batch_starts(file: pa.RecordBatchFileReader) -> list[int]:
    """First row of each batch, and the number of rows."""
    starts = [0]
    for number in range(file.num_record_batches):
        starts.append(starts[-1] + file.get_batch(number).num_rows)
    return starts
