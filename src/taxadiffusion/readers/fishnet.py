"""FishNet: two sources in one table, boxes beside the photographs (Khan et al. 2023, faixan-khan/FishNet)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.record import Box, Record, Rejected, as_on_disk, path_fault
from taxadiffusion.readers.table import SHORT_ROWS, Row, Table
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks, read_taxon

RANK_COLUMNS = {
    "superclass": "SuperClass",
    "class": "Class",
    "family": "Family",
    "subfamily": "Subfamily",
    "genus": "Genus",
}
AVAILABLE: tuple[Rank, ...] = ("superclass", "class", "order", "family", "subfamily", "genus", "species")
PAPER_RANKS: tuple[Rank, ...] = ("class", "order", "family", "genus", "species")
TABLES = {"train.csv": "train", "test.csv": "test"}

BoxPolicy = Literal["largest", "union", "none"]


def detect(source: Path) -> bool:
    tables = _tables(source)
    return bool(tables) and {"Folder", "image", "Family", "SpecCode"} <= set(Table(tables[0]).columns)


def open_source(
    source: Path,
    *,
    images: Path | None = None,
    boxes: Path | None = None,
    box_policy: BoxPolicy = "largest",
    order_column: str = "NewOrder",
    ranks: Sequence[Rank] | str | None = None,
) -> FishNet:
    """A FishNet checkout, its `anns` folder, or one table with its columns.

    `images`: folder holding `<Family>/<file>.jpg` (default: `Images` in the source, else the source). `boxes`: folder
    of `<Family>/<stem>.txt`, or a JSON `{stem: {x, y, w, h}}` (default: `boxes`, `bbox` or the image folder).
    `order_column`: "NewOrder" (no family lies in two orders) or "Order". Default ranks: the paper's five.
    """
    tables = _tables(source)
    if not tables:
        raise DataError(f"{source}: no FishNet table; expected anns/train.csv or anns/test.csv")
    if order_column not in Table(tables[0]).columns:
        raise SettingsError(f"order_column: {tables[0]} has no column {order_column!r}; use NewOrder or Order")
    if box_policy not in ("largest", "union", "none"):
        raise SettingsError(f"box_policy must be largest, union or none, not {box_policy!r}")
    base = source if source.is_dir() else source.parent
    base = base.parent if base.name == "anns" else base
    root = Path(images) if images else next((p for p in (base / "Images", base / "images") if p.is_dir()), base)
    found = Path(boxes) if boxes else next((p for p in (base / "boxes", base / "bbox", root) if p.is_dir()), root)
    return FishNet(tables, root, Boxes(found, box_policy), order_column, chosen_ranks(ranks, AVAILABLE, PAPER_RANKS))


class FishNet:
    """Yields one record per table row; `counts` tells after an iteration what was filled in or missing."""

    name = "fishnet"

    def __init__(
        self, tables: list[Path], root: Path, boxes: Boxes, order_column: str, ranks: tuple[Rank, ...]
    ) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._tables = tables
        self._boxes = boxes
        self._columns = {**RANK_COLUMNS, "order": order_column}

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        for path in self._tables:
            table = Table(path)
            table.may_end_after(["Folder", "image", "Family", "species", "source", *self._columns.values()])
            for row in table:
                yield row if isinstance(row, Rejected) else self._record(path, row)
            if table.num_short:
                self.counts[SHORT_ROWS] += table.num_short

    def _record(self, path: Path, row: Row) -> Record | Rejected:
        cell = row.get("image")
        file_name = cell.split("?")[0].rsplit("/", 1)[-1]
        self.counts["urls_reduced"] += file_name != cell
        folder = row.get("Folder") or row.get("Family")
        image = f"{folder}/{file_name}"
        if fault := path_fault(image) if file_name else "no image":
            return Rejected(path.name, row.number, cell, fault)
        taxon = self._taxon(row)
        if taxon.fault or not taxon.lineage:
            return Rejected(path.name, row.number, row.get("species"), taxon.fault or "the row names no taxon")
        self.counts.update(taxon.notes)
        box, note = self._boxes.of(folder, file_name.rsplit(".", 1)[0])
        if note:
            self.counts[note] += 1
        return Record(
            image=as_on_disk(self.root, image),
            lineage=taxon.lineage,
            source=path.name,
            row=row.number,
            split=TABLES.get(path.name),
            box=box,
            source_id=f"{row.get('source')}:{file_name.rsplit('.', 1)[0]}",
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
        )

    def _taxon(self, row: Row) -> StatedTaxon:
        """The row's taxon, names as written: the "/" of "Eupercaria/misc" belongs to the name."""
        names = tuple((rank, row.get(self._columns[rank])) for rank in self.ranks if rank in self._columns)
        species = row.get("species") if "species" in self.ranks else ""
        taxon = read_taxon(names, species, "binomial")
        return taxon if taxon.fault else _restricted(taxon, self.ranks)


def _restricted(taxon: StatedTaxon, ranks: tuple[Rank, ...]) -> StatedTaxon:
    return StatedTaxon(taxon.lineage.only(ranks), taxon.authorship, taxon.qualifier, taxon.notes)


class Boxes:
    """Boxes of one data set: a folder of text files (`<Family> x1 y1 x2 y2` a line) or one JSON of x, y, w, h."""

    def __init__(self, source: Path, policy: BoxPolicy) -> None:
        self._policy = policy
        self._folder = source if source.is_dir() else None
        self._by_stem: dict[str, Box] = {} if self._folder or policy == "none" else _boxes_from_json(source)
        self._families: dict[str, bool] = {}

    def of(self, family: str, stem: str) -> tuple[Box | None, str | None]:
        """The box of one image by the policy, or why there is none: "boxes_missing", "box_folders_missing"."""
        if self._policy == "none":
            return None, None
        if self._folder is None:
            box = self._by_stem.get(stem)
            return box, None if box else "boxes_missing"
        folder = self._folder / family
        if family not in self._families:
            self._families[family] = folder.is_dir() and next(folder.glob("*.txt"), None) is not None
        if not self._families[family]:
            return None, "box_folders_missing"
        path = folder / f"{stem}.txt"
        if not path.is_file():
            return None, "boxes_missing"
        return self._pick(_boxes_from_text(path)), None

    def _pick(self, boxes: list[Box]) -> Box:
        if self._policy == "largest":
            return max(boxes, key=lambda box: box.width * box.height)
        left, top = min(box.x for box in boxes), min(box.y for box in boxes)
        right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
        return Box(left, top, right - left, bottom - top)


def _boxes_from_text(path: Path) -> list[Box]:
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            x1, y1, x2, y2 = (float(cell) for cell in line.split()[-4:])
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a box: {line!r}; expected '<Family> x1 y1 x2 y2'") from error
        if not (math.isfinite(x1 + y1 + x2 + y2) and x2 > x1 and y2 > y1):
            raise DataError(f"{path}:{number}: box {line!r} has no area; expected x1 < x2 and y1 < y2")
        boxes.append(Box(x1, y1, x2 - x1, y2 - y1))
    if not boxes:
        raise DataError(f"{path}: the box file is empty; delete it if the image has no box")
    return boxes


def _boxes_from_json(path: Path) -> dict[str, Box]:
    if not path.is_file():
        raise DataError(f"{path}: no such box file or folder")
    try:
        values = json.loads(bounded.read_small(path))
        return {stem: Box(*(float(box[key]) for key in ("x", "y", "w", "h"))) for stem, box in values.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a box JSON {{stem: {{x, y, w, h}}}}: {error!r}") from error


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix == ".csv" else []
    folders = [source / "anns", source]
    return next((found for folder in folders if (found := [p for n in TABLES if (p := folder / n).is_file()])), [])
