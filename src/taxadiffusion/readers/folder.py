"""Image folders: Hugging Face imagefolder with metadata, a table with an image root, `Genus_species/` folders."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank, ordered_ranks
from taxadiffusion.readers.folder_columns import MEANINGS, Columns, with_subspecies
from taxadiffusion.readers.folder_names import SPLITS, split_from_path
from taxadiffusion.readers.folder_species import FolderReader
from taxadiffusion.readers.parquet import held_pictures, picture_member
from taxadiffusion.readers.record import Box, Record, Rejected, as_on_disk, path_fault
from taxadiffusion.readers.table import SHORT_ROWS, TABLE_SUFFIXES, Row, Table
from taxadiffusion.readers.taxon import chosen_ranks, kept_taxon_id

_METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet", ".tsv"))


def detect(source: Path) -> bool:
    """A folder with metadata or with a sub-folder, or a table that names or holds images."""
    if source.is_dir():
        has_folder = any(p.is_dir() or p.is_symlink() for p in source.iterdir())
        return bool(_metadata_tables(source)) or has_folder or bool(_picture_tables(source))
    if held_pictures(source):
        return True
    if source.name.lower().endswith(TABLE_SUFFIXES):
        columns = {name.lower() for name in Table(source).columns}
        return any(name in columns for name in MEANINGS["image"])
    return False


@dataclass(frozen=True)
class Options:
    """What may be said of a folder.

    `names` is a table that gives the ranks of each folder (column `folder`); without it a folder's name is a binomial.
    """

    ranks: str | Sequence[Rank] | None = None
    root: Path | None = None
    names: Path | None = None
    image_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    follow_links: bool = False

    @property
    def chosen(self) -> dict[str, str | None]:
        """The columns that were named, by what they hold."""
        return {"image": self.image_column, "split": self.split_column, "group": self.group_column}


def open_source(source: Path, options: Options) -> TableReader | FolderReader:
    """A reader for `source`: a folder with `metadata.csv|jsonl|parquet`, a table (with `root`), Parquet files that hold
    the pictures, or species folders."""
    tables = (_metadata_tables(source) or _picture_tables(source)) if source.is_dir() else [source]
    if not tables:
        if any(column is not None for column in options.chosen.values()):
            raise SettingsError(f"{source}: there is no metadata table whose columns could be named")
        return FolderReader(options.root or source, options.names, options.ranks, options.follow_links)
    if options.names is not None:
        raise SettingsError(
            f"{source}: --names is for species folders without a metadata table; {tables[0].name} exists"
        )
    root = options.root or (source if source.is_dir() else source.parent)
    return TableReader(tables, root, options.chosen, options.ranks)


def _metadata_tables(folder: Path) -> list[Path]:
    for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
        found = [place / name for name in _METADATA if (place / name).is_file()]
        if len(found) > 1:
            raise DataError(f"{place}: holds both {found[0].name} and {found[1].name}; keep one")
        if found and place == folder:
            return found
    nested = [entry / name for entry in sorted(folder.iterdir()) if entry.is_dir() for name in _METADATA]
    return [table for table in nested if table.is_file()]


def _picture_tables(folder: Path) -> list[Path]:
    """Parquet files that hold the pictures themselves: `data/train-00000-of-00001.parquet` of the Hugging Face hub."""
    found = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    return [path for path in found if path.is_file() and held_pictures(path)]


class TableReader:
    """One record a row of one or more tables, which name the pictures or hold them."""

    name = "folder"

    def __init__(
        self, tables: list[Path], root: Path, chosen: dict[str, str | None], ranks: str | Sequence[Rank] | None
    ) -> None:
        self.root = root
        self.counts: Counter[str] = Counter()
        self._tables = [(Table(path), path.parent) for path in tables]
        self._columns = [Columns.of(table, chosen) for table, _ in self._tables]
        available = ordered_ranks(rank for columns in self._columns for rank in columns.all_ranks)
        self.ranks = chosen_ranks(ranks, with_subspecies(available), available)
        self._held_in = {path: name for path in tables if (name := held_pictures(path)) and not chosen["image"]}
        for (table, _), columns in zip(self._tables, self._columns, strict=True):
            table.may_end_after(columns.needed)
            if "image" not in columns.named and table.path not in self._held_in:
                listed = ", ".join(name for name in table.columns if name)
                raise DataError(f"{table.path}: no file_name column; its columns: {listed}")

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        for (table, folder), columns in zip(self._tables, self._columns, strict=True):
            prefix = _below(folder, self.root)
            for row in table:
                yield row if isinstance(row, Rejected) else self._record(table, columns, row, prefix)
            if table.num_short:
                self.counts[SHORT_ROWS] += table.num_short

    def _record(self, table: Table, columns: Columns, row: Row, prefix: str) -> Record | Rejected:
        name, named = table.path.name, columns.named
        held = self._held_in.get(table.path)
        image = row.get(held or named.get("image"))
        if held is None and (fault := path_fault(image)):
            return Rejected(name, row.number, image, fault)
        split = row.get(named.get("split"))
        if split and split.lower() not in SPLITS:
            return Rejected(name, row.number, split, "unknown split; use train, val, test or judge")
        taxon = columns.taxon(row, self.ranks)
        if taxon.fault:
            return Rejected(name, row.number, image, taxon.fault)
        try:
            box = _box(row) if columns.has_box else None
        except ValueError as error:
            return Rejected(name, row.number, image, str(error))
        if not taxon.lineage:
            return Rejected(name, row.number, image, "no rank has a name")
        self.counts.update(taxon.notes)
        path, member = prefix + image.removeprefix("./"), None
        if held is None:
            path = as_on_disk(self.root, path)
        else:
            path, member = prefix + name, picture_member(row.number - 1, image)
        return Record(
            image=path,
            member=member,
            lineage=taxon.lineage,
            source=name,
            row=row.number,
            split=SPLITS[split.lower()] if split else split_from_path(path) or _split_from_name(name, held),
            group=row.get(named.get("group")) or None,
            box=box,
            source_id=row.get(named.get("source_id")) or None,
            license=row.get(named.get("license")) or None,
            rights_holder=row.get(named.get("rights_holder")) or None,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
            source_taxon_id=kept_taxon_id(row.get(named.get("source_taxon_id")), taxon, self.ranks),
        )


def _below(folder: Path, root: Path) -> str:
    """ "train/" for a folder in the root, which may be a link; "" for the root and for folders elsewhere."""
    pairs = ((folder.absolute(), root.absolute()), (folder.resolve(), root.resolve()))
    inside = next((f.relative_to(r).as_posix() for f, r in pairs if f.is_relative_to(r)), ".")
    return "" if inside == "." else f"{inside}/"


def _split_from_name(name: str, held: str | None) -> str | None:
    """ "train-00000-of-00001.parquet" → "train", where the file holds the pictures."""
    return None if held is None else SPLITS.get(re.split(r"[-.]", name.lower(), maxsplit=1)[0])


def _box(row: Row) -> Box | None:
    """Columns box_x, box_y, box_width, box_height, or bbox as a list [x, y, width, height]. Raises `ValueError`."""
    text = row.get("bbox") or row.get("box")
    parts = [row.get(f"box_{side}") for side in ("x", "y", "width", "height")]
    if text:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, list) or len(value) != 4:
            raise ValueError(f"box {text[:40]!r} is not a list [x, y, width, height]")
        parts = [str(number) for number in value]
    if not any(parts):
        return None
    try:
        box = Box(*(float(part) for part in parts))
    except ValueError:
        raise ValueError(f"box {parts} is not four numbers") from None
    if not (box.width > 0 and box.height > 0 and abs(box.x) + abs(box.y) + box.width + box.height < 1e9):
        raise ValueError(f"box {parts} has no area")
    return box
