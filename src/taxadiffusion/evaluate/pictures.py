"""The two sides of a comparison: photographs of a prepared data set, and a folder of generated images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.features.cache import Extractor
from taxadiffusion.images import load_image
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.readers.record import Box

# N images, D feature width


@dataclass(frozen=True, slots=True)
class Pictures:
    """N images on disk with what each shows; `seeds` is None for photographs."""

    name: str
    paths: tuple[Path, ...]
    lineages: tuple[Lineage, ...]
    boxes: tuple[Box | None, ...]
    seeds: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> Pictures:
        """Only the images at `indices`, in their order."""
        return Pictures(
            self.name,
            tuple(self.paths[i] for i in indices),
            tuple(self.lineages[i] for i in indices),
            tuple(self.boxes[i] for i in indices),
            None if self.seeds is None else tuple(self.seeds[i] for i in indices),
        )

    def images(self, size_px: int, batch_size: int = 64) -> Iterator[NDArray[np.uint8]]:
        """uint8 batches (B, 3, `size_px`, `size_px`), square crops with the aspect kept."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            pairs = zip(self.paths[start:stop], self.boxes[start:stop], strict=True)
            yield np.stack([load_image(path, size_px, "crop", box) for path, box in pairs])

    def features(self, extractor: Extractor, size_px: int) -> NDArray[np.float32]:
        """(N, D) features of the images at `size_px`."""
        if not len(self):
            raise DataError(f"{self.name}: holds no image to compute features from")
        return np.concatenate([extractor(batch) for batch in self.images(size_px)])


def photographs(dataset: PreparedDataset, split: str, ranks: Sequence[Rank]) -> Pictures:
    """The images of one split that name a taxon at any of `ranks`, with lineages reduced to `ranks`."""
    records = [dataset.record(int(row)) for row in dataset.rows(split)]
    lineages = [dataset.taxonomy.lineage(record.taxon_id).only(ranks) for record in records]
    kept = [i for i, lineage in enumerate(lineages) if lineage]
    if not kept:
        raise DataError(f"{dataset.path}: split {split!r} has no image that names a taxon at {', '.join(ranks)}")
    return Pictures(
        f"{dataset.path.name} {split}",
        tuple(records[i].path for i in kept),
        tuple(lineages[i] for i in kept),
        tuple(records[i].box for i in kept),
    )


def generated_folder(folder: Path, ranks: Sequence[Rank]) -> Pictures:
    """A folder that `taxadiffusion generate` wrote: images beside a `metadata.csv` with rank columns and `seed`.

    A `species` or `specific_epithet` column holds the epithet. Lineages are reduced to `ranks`. Raises `DataError` for
    a missing table, column, file or name.
    """
    table = folder / "metadata.csv"
    if not table.is_file():
        raise DataError(f"{folder}: no metadata.csv; give a folder that `taxadiffusion generate` wrote")
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows:
        raise DataError(f"{table}: no rows; generate at least one image")
    if "file_name" not in rows[0]:
        raise DataError(f"{table}: no column file_name; columns are {', '.join(rows[0])}")
    paths, lineages, seeds = [], [], []
    for number, row in enumerate(rows, 1):
        path = folder / row["file_name"]
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise DataError(f"{table} row {number}: file_name {row['file_name']!r} is not a file in {folder}")
        names = {rank: row.get(rank) for rank in ranks}
        if "species" in names and not names["species"]:
            names["species"] = row.get("specific_epithet")
        lineage = Lineage.of(names)
        if not lineage:
            raise DataError(f"{table} row {number}: no name in any of the columns {', '.join(ranks)}")
        paths.append(path)
        lineages.append(lineage)
        seeds.append(int(row.get("seed") or 0))
    return Pictures(str(folder), tuple(paths), tuple(lineages), (None,) * len(paths), tuple(seeds))
