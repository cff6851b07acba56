"""BIOSCAN-5M: one table of insect specimens, pictures by split and chunk, boxes apart (Gharaee et al. 2024)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank
from taxadiffusion.readers.bioscan import SpecimenReader, find_pictures
from taxadiffusion.readers.bioscan_1m import find_table
from taxadiffusion.readers.record import Box, Rejected, path_fault
from taxadiffusion.readers.table import Row, Table

TABLE_STEMS = ("BIOSCAN_5M_Insect_Dataset_metadata",)
CHUNK_CHARS = {"pretrain": 2, "train": 1, "other_heldout": 1}
"""Leading hexadecimal digits of md5(processid) that name the chunk folder; splits not named here have no chunks."""

SPLITS = {
    **dict.fromkeys(("pretrain", "train", "key_unseen"), "train"),
    **dict.fromkeys(("val", "val_unseen"), "val"),
    **dict.fromkeys(("test", "test_unseen"), "test"),
}
"""Published split → ours. `other_heldout` stays without one."""


def detect(source: Path) -> bool:
    table = find_table(source, TABLE_STEMS)
    return table is not None and {"processid", "split", "chunk"} <= set(Table(table).columns)


def open_source(
    source: Path,
    *,
    images: Path | None = None,
    boxes: Path | None = None,
    ranks: Sequence[Rank] | str | None = None,
) -> Bioscan5M:
    """A folder in the published layout (`bioscan5m/metadata/csv/…`), or the table itself.

    `images`: picture folder, .zip or .hdf5 (default: found beside the table). `boxes`: `BIOSCAN_5M_Insect_bbox.tsv`,
    for the uncropped packages. Default ranks: the paper's five.
    """
    table = find_table(source, TABLE_STEMS)
    if table is None:
        raise DataError(f"{source}: no BIOSCAN-5M table; expected {TABLE_STEMS[0]}.csv")
    base = source if source.is_dir() else source.parent
    pictures = find_pictures(base, images, "bioscan5m", "pretrain")
    reader = Bioscan5M(table, pictures, ranks)
    reader.boxes = _read_boxes(Path(boxes), downscaled="256" in pictures.prefix) if boxes else None
    return reader


class Bioscan5M(SpecimenReader):
    """One record per specimen; an empty cell is no name; the picture's chunk is the column's, else the md5 rule's."""

    name = "bioscan-5m"
    columns = ("processid", "split", "chunk", "dna_bin", "species")
    barcode_column = "dna_bin"
    boxes: Mapping[str, Box] | None = None

    def _path(self, row: Row) -> tuple[str, str | None]:
        process_id, split = row.get("processid"), row.get("split")
        path = picture_path(process_id, split, row.get("chunk"))
        fault = path_fault(path) if process_id and split else "processid or split is empty"
        return process_id if fault else path, fault

    def _facts(self, row: Row) -> dict[str, Any]:
        process_id = row.get("processid")
        box = self.boxes.get(process_id) if self.boxes is not None else None
        self.counts["boxes_missing"] += self.boxes is not None and box is None
        return {"split": SPLITS.get(row.get("split")), "box": box, "source_id": process_id}


def picture_path(process_id: str, split: str, chunk: str = "") -> str:
    """`<split>/[<chunk>/]<processid>.jpg`; the chunk column wins over the md5 rule."""
    num_chars = CHUNK_CHARS.get(split, 0)
    if not chunk and num_chars:
        chunk = hashlib.md5(process_id.encode(), usedforsecurity=False).hexdigest()[:num_chars]
    return f"{split}/{chunk}/{process_id}.jpg" if chunk else f"{split}/{process_id}.jpg"


def _read_boxes(path: Path, *, downscaled: bool) -> dict[str, Box]:
    """processid → box, scaled to the 256-pixel package where that is the one used (its shorter side is 256)."""
    boxes = {}
    for row in Table(path):
        if isinstance(row, Rejected):
            raise DataError(str(row))
        try:
            x0, y0, x1, y1, width, height = (
                float(row.get(key)) for key in ("x0", "y0", "x1", "y1", "width_original", "height_original")
            )
        except ValueError as error:
            raise DataError(f"{path}:{row.number}: not a box: {error}") from error
        scale = 256 / min(width, height) if downscaled else 1.0
        boxes[row.get("processid")] = Box(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale)
    return boxes
