"""BIOSCAN-5M: one table of insect specimens, pictures by split and chunk, boxes apart (Gharaee et al. 2024)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank
from taxadiffusion.readers.bioscan import AVAILABLE, PAPER_RANKS, PictureFiles, find_pictures, read_specimen
from taxadiffusion.readers.bioscan_1m import find_table
from taxadiffusion.readers.record import Box, Record, Rejected, path_fault
from taxadiffusion.readers.table import SHORT_ROWS, Row, Table
from taxadiffusion.readers.taxon import chosen_ranks

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
    return Bioscan5M(table, pictures, Path(boxes) if boxes else None, chosen_ranks(ranks, AVAILABLE, PAPER_RANKS))


class Bioscan5M:
    """One record per specimen; an empty cell is no name; the picture's chunk is the column's, else the md5 rule's."""

    name = "bioscan-5m"

    def __init__(self, table: Path, pictures: PictureFiles, boxes: Path | None, ranks: tuple[Rank, ...]) -> None:
        self.root = pictures.root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._table = table
        self._pictures = pictures
        self._boxes = _read_boxes(boxes, downscaled="256" in pictures.prefix) if boxes else None

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        table = Table(self._table)
        table.may_end_after(["processid", "split", "chunk", "dna_bin", "species", *self.ranks])
        for row in table:
            yield row if isinstance(row, Rejected) else self._record(row)
        if table.num_short:
            self.counts[SHORT_ROWS] = table.num_short

    def _record(self, row: Row) -> Record | Rejected:
        process_id, split = row.get("processid"), row.get("split")
        path = picture_path(process_id, split, row.get("chunk"))
        if fault := path_fault(path) if process_id and split else "processid or split is empty":
            return Rejected(self._table.name, row.number, process_id, fault)
        taxon = read_specimen(row, self.ranks, "dna_bin")
        if taxon.fault or not taxon.lineage:
            return Rejected(self._table.name, row.number, row.get("species"), taxon.fault or "the row names no taxon")
        self.counts.update(taxon.notes)
        box = self._boxes.get(process_id) if self._boxes is not None else None
        self.counts["boxes_missing"] += self._boxes is not None and box is None
        image, member = self._pictures.locate(path)
        return Record(
            image=image,
            member=member,
            lineage=taxon.lineage,
            source=self._table.name,
            row=row.number,
            split=SPLITS.get(split),
            box=box,
            source_id=process_id,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
        )


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
