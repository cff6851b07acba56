"""CUB-200-2011: pictures, boxes and splits by id; English class names that a user's table turns into taxa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import RANKS, Rank, ordered_ranks
from taxadiffusion.readers import bounded
from taxadiffusion.readers.record import Box, Record, Rejected, as_on_disk, path_fault
from taxadiffusion.readers.table import Table
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks, convention_of, read_taxon

FILES = ("images.txt", "classes.txt", "image_class_labels.txt")


def detect(source: Path) -> bool:
    return source.is_dir() and all((source / name).is_file() for name in FILES)


def open_source(source: Path, *, names: Path | None = None, ranks: Sequence[Rank] | str | None = None) -> Cub:
    """The unpacked CUB folder. `names`: table with a column `name` ("Black footed Albatross") and a column per rank or
    `scientific_name` (default: `names.csv` in the folder).

    Raises `SettingsError` without such a table, `DataError` listing every class it lacks.
    """
    table = Path(names) if names else source / "names.csv"
    if not table.is_file():
        raise SettingsError(
            f"{table}: CUB has English names only; give a table (option names) with the columns name, order, family, "
            "genus, species that tells each class's taxon"
        )
    missing_files = [name for name in FILES if not (source / name).is_file()]
    if missing_files:
        raise DataError(f"{source}: {', '.join(missing_files)} missing; expected the unpacked CUB_200_2011 folder")
    taxa, available = _read_names(table)
    classes = {number: _key(name.split(".", 1)[-1]) for number, name in _pairs(source / "classes.txt")}
    unnamed = sorted(key for key in classes.values() if key not in taxa)
    if unnamed:
        raise DataError(f"{table}: {len(unnamed)} of {len(classes)} classes have no row: {', '.join(unnamed)}")
    by_class = {number: taxa[key] for number, key in classes.items()}
    return Cub(source, by_class, chosen_ranks(ranks, available, available))


class Cub:
    """One record per line of images.txt, with its box and its published split."""

    name = "cub"

    def __init__(self, source: Path, taxa: dict[str, StatedTaxon], ranks: tuple[Rank, ...]) -> None:
        self.root = source / "images" if (source / "images").is_dir() else source
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._source = source
        self._taxa = taxa

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        labels = dict(_pairs(self._source / "image_class_labels.txt"))
        splits = _optional(self._source / "train_test_split.txt")
        boxes = _optional(self._source / "bounding_boxes.txt")
        for number, (image_id, path) in enumerate(_pairs(self._source / "images.txt"), start=1):
            taxon = self._taxa.get(labels.get(image_id, ""))
            fault = path_fault(path) or (None if taxon else f"image {image_id} has no class")
            if fault or taxon is None:
                yield Rejected("images.txt", number, path, fault or "")
                continue
            box = _box(self._source / "bounding_boxes.txt", image_id, boxes.get(image_id))
            self.counts["boxes_missing"] += box is None
            self.counts.update(taxon.notes)
            yield Record(
                image=as_on_disk(self.root, path),
                lineage=taxon.lineage.only(self.ranks),
                source="images.txt",
                row=number,
                split={"1": "train", "0": "test"}.get(splits.get(image_id, "")),
                box=box,
                source_id=image_id,
                authorship=taxon.authorship,
                qualifier=taxon.qualifier,
            )


def _read_names(path: Path) -> tuple[dict[str, StatedTaxon], tuple[Rank, ...]]:
    table = Table(path)
    ranks = [rank for rank in RANKS if rank in table.columns]
    if "name" not in table.columns or not (ranks or "scientific_name" in table.columns):
        raise DataError(
            f"{path}: needs a column name and columns of ranks or scientific_name; has {', '.join(table.columns)}"
        )
    table.may_end_after(["name", "scientific_name", *ranks])
    taxa: dict[str, StatedTaxon] = {}
    faults = []
    for row in table:
        if isinstance(row, Rejected):
            faults.append(str(row))
            continue
        species = row.get("species") or row.get("scientific_name")
        above = tuple((rank, row.get(rank)) for rank in ranks if rank != "species")
        taxon = read_taxon(above, species, convention_of(species))
        if taxon.fault or not taxon.lineage:
            faults.append(f"{path.name}:{row.number}: {taxon.fault or 'no taxon'}")
        taxa[_key(row.get("name"))] = taxon
    if faults:
        raise DataError(f"{path}: {len(faults)} rows cannot be used:\n  " + "\n  ".join(faults))
    return taxa, ordered_ranks(rank for taxon in taxa.values() for rank in taxon.lineage.ranks)


def _key(name: str) -> str:
    """ "001.Black_footed_Albatross" and "Black-footed albatross" are one name."""
    return "".join(c if c.isalnum() else " " for c in name.casefold()).strip()


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(bounded.lines(file), start=1):
            key, _, value = (line or "").strip().partition(" ")
            if not value:
                raise DataError(f"{path}:{number}: expected '<id> <value>', found {(line or '')[:80].strip()!r}")
            yield key, value


def _optional(path: Path) -> dict[str, str]:
    return dict(_pairs(path)) if path.is_file() else {}


def _box(path: Path, image_id: str, text: str | None) -> Box | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(cell) for cell in text.split())
    except ValueError as error:
        raise DataError(f"{path}: image {image_id}: {text!r} is not 'x y width height'") from error
    return Box(x, y, width, height)
