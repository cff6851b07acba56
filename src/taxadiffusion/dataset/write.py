"""Last pass: what was listed and verified becomes the files of a prepared data set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from taxadiffusion.dataset.columns import IMAGE_ROWS, IMAGES, IMAGES_MAPPED, SPLITS, VERIFIED
from taxadiffusion.dataset.listing import ROWS_PER_BATCH, Listing, Quarantine
from taxadiffusion.dataset.verify import read_result, unpacked_path
from taxadiffusion.images.similarity import LAYOUT_BYTES

Bools = npt.NDArray[np.bool_]
_ROWS_PER_WRITE = 64 * ROWS_PER_BATCH
MAX_EXAMPLES = 100


@dataclass
class WrittenImages:
    """What `write_images` has written."""

    content_hash: str
    """sha256 over paths, files' hashes, taxa, splits and boxes; a file's time is no part of it."""
    num_content_boxes: int
    damaged_metadata: Counter[str]
    """Images by the kind of metadata that is damaged."""
    damaged_examples: list[str]


@dataclass
class SetFacts:
    """What verification found of the listing's N rows, as far as the judgements need it."""

    usable: Bools
    content_keys: npt.NDArray[np.uint64]
    """Hash of the file's bytes and of the box: equal keys show the same thing."""
    hashes: npt.NDArray[np.uint64]
    has_hash: Bools


def gather_facts(listing: Listing, results: list[Path] | None, left_out: Bools, quarantine: Quarantine) -> SetFacts:
    """Reads the parts' `results` (None: pictures were not verified) and quarantines the faulty pictures.

    Rows `left_out` already are not judged again.
    """
    num_rows = len(listing)
    facts = SetFacts(~left_out, listing.keys.copy(), np.zeros(num_rows, np.uint64), np.zeros(num_rows, np.bool_))
    if results is None:
        return facts
    file = listing.batches()
    for number, result in enumerate(results):
        batch, found = file.get_batch(number), read_result(result)
        rows = slice(number * ROWS_PER_BATCH, number * ROWS_PER_BATCH + batch.num_rows)
        faulty = found.column("fault").is_valid().to_numpy(zero_copy_only=False) & ~left_out[rows]
        for at in np.flatnonzero(faulty).tolist():
            values = [batch.column(name)[at].as_py() for name in ("source", "row", "image", "member")]
            quarantine.add(values[0], values[1], values[3] or values[2], found.column("fault")[at].as_py())
        facts.usable[rows] &= ~faulty
        facts.content_keys[rows] = _content_keys(found.column("sha256"), batch.column("box"))
        facts.hashes[rows] = found.column("perceptual_hash").fill_null(0).to_numpy(zero_copy_only=False)
        facts.has_hash[rows] = found.column("perceptual_hash").is_valid().to_numpy(zero_copy_only=False)
    facts.has_hash &= facts.usable
    return facts


def read_layouts(results: list[Path], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """(R, 48) colour layouts of R rows, which have one."""
    layouts = np.zeros((len(rows), LAYOUT_BYTES), np.uint8)
    parts = rows // ROWS_PER_BATCH
    for part in np.unique(parts).tolist():
        here = np.flatnonzero(parts == part)
        column = read_result(results[part]).column("colour_layout").take(pa.array(rows[here] % ROWS_PER_BATCH))
        layouts[here] = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, LAYOUT_BYTES)
    return layouts


def _content_keys(sha256: pa.Array, boxes: pa.Array) -> npt.NDArray[np.uint64]:
    digests = sha256.fill_null(bytes(32))
    keys = np.frombuffer(b"".join(digests.to_pylist()), np.uint64).reshape(-1, 4)[:, 0].copy()
    has_box = boxes.is_valid().to_numpy(zero_copy_only=False)
    if has_box.any():
        sides = boxes.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        pair = np.ascontiguousarray(sides.reshape(-1, 4)).view(np.uint64)  # (boxes, 2)
        with np.errstate(over="ignore"):
            keys[has_box] ^= pair[:, 0] * np.uint64(0x9E3779B97F4A7C15) + pair[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return keys


def write_images(
    folder: Path,
    listing: Listing,
    results: list[Path] | None,
    kept: Bools,
    splits: npt.NDArray[np.int8],
    on_rows: Callable[[int], None],
) -> WrittenImages:
    """Writes the `kept` rows twice, as Parquet and as Arrow to be memory-mapped."""
    digest = hashlib.sha256()
    written = WrittenImages("", 0, Counter(), [])
    file = listing.batches()
    with (
        pq.ParquetWriter(folder / IMAGES, IMAGE_ROWS, compression="zstd") as parquet,
        pa.OSFile(str(folder / IMAGES_MAPPED), "wb") as sink,
        pa.ipc.new_file(sink, IMAGE_ROWS) as mapped,
    ):
        pending: list[pa.RecordBatch] = []
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            start = number * ROWS_PER_BATCH
            rows = np.flatnonzero(kept[start : start + batch.num_rows])
            found = read_result(results[number]) if results is not None else None
            pending.append(_image_rows(batch, found, listing, splits, start, rows))
            written.num_content_boxes += len(rows) - pending[-1].column("content_box").null_count
            if found is not None:
                _count_damage(written, found.column("damaged_metadata").take(pa.array(rows)), pending[-1])
            _update(digest, pending[-1])
            if sum(map(len, pending)) >= _ROWS_PER_WRITE or number == file.num_record_batches - 1:
                table = pa.Table.from_batches(pending, IMAGE_ROWS).combine_chunks()
                parquet.write_table(table)
                mapped.write_table(table, max_chunksize=max(1, len(table)))
                pending = []
            on_rows(start + batch.num_rows)
    written.content_hash = digest.hexdigest()
    return written


def _count_damage(written: WrittenImages, damaged: pa.Array, images: pa.RecordBatch) -> None:
    for at in np.flatnonzero(damaged.is_valid().to_numpy(zero_copy_only=False)).tolist():
        written.damaged_metadata[damaged[at].as_py()] += 1
        if len(written.damaged_examples) < MAX_EXAMPLES:
            written.damaged_examples.append(images.column("path")[at].as_py())


def _image_rows(
    batch: pa.RecordBatch,
    found: pa.RecordBatch | None,
    listing: Listing,
    splits: npt.NDArray[np.int8],
    start: int,
    rows: npt.NDArray[np.int64],
) -> pa.RecordBatch:
    chosen = batch.take(pa.array(rows))
    images, members = chosen.column("image").to_pylist(), chosen.column("member").to_pylist()
    columns: dict[str, Any] = {
        "path": [unpacked_path(i, m) if m is not None else i for i, m in zip(images, members, strict=True)],
        "unpacked": [member is not None for member in members],
        "taxon_id": listing.taxon_ids[start + rows],
        "split": pa.array(SPLITS).take(pa.array(splits[start + rows])),
    }
    for field in IMAGE_ROWS:
        if field.name in columns:
            continue
        if field.name in VERIFIED.names:
            known = (
                found.column(field.name).take(pa.array(rows)) if found is not None else pa.nulls(len(rows), field.type)
            )
            columns[field.name] = known
        else:
            columns[field.name] = chosen.column(field.name)
    arrays = [
        columns[field.name] if isinstance(columns[field.name], pa.Array) else pa.array(columns[field.name], field.type)
        for field in IMAGE_ROWS
    ]
    return pa.record_batch(arrays, schema=IMAGE_ROWS)


def _update(digest: Any, rows: pa.RecordBatch) -> None:
    for name in ("path", "sha256", "split", "box", "content_box"):
        digest.update(repr(rows.column(name).to_pylist()).encode())
    digest.update(np.ascontiguousarray(rows.column("taxon_id").to_numpy(), "<i4").tobytes())
