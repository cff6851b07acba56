"""The two sides of a comparison: photographs of a prepared data set, and folders of generated images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.features import Extractor
from taxadiffusion.images import load_image
from taxadiffusion.names import RANKS, Lineage, Rank
from taxadiffusion.pictures.recipe import refuse_mixed

# N images, D feature width

OnPicture = Callable[[int, int], None]
"""Images done, images asked for."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """N images on disk with what each shows."""

    name: str
    files: tuple[str, ...]
    """For messages and tables: where each image lies."""
    lineages: tuple[Lineage, ...]
    load: Callable[[int, int], NDArray[np.uint8]]
    """(position, size_px) → uint8 (3, size_px, size_px), a square crop with the aspect kept."""
    left_out: int = 0
    """Images of the same source that are not among these, since none of the ranks asked for is named or shown."""
    cut: Callable[[int], str] = lambda _: ""
    """position → which part of its file an image is, in words; with the file's content it decides the pixels."""
    groups: tuple[str, ...] | None = None
    """What stays on one side of a split with each image, e.g. its trajectory; None: each is alone."""
    model_sha256: str = ""
    """Of what made them, as their recipes name it; "" where nobody says."""
    prepared: Path | None = None
    """The folder of the prepared data set that they belong to, for photographs of one."""

    def __len__(self) -> int:
        return len(self.files)

    def select(self, positions: Sequence[int] | NDArray[np.integer]) -> Pictures:
        """Only the images at `positions`, in their order."""
        kept = [int(i) for i in positions]
        return Pictures(
            self.name,
            tuple(self.files[i] for i in kept),
            tuple(self.lineages[i] for i in kept),
            lambda i, size_px: self.load(kept[i], size_px),
            self.left_out,
            lambda i: self.cut(kept[i]),
            tuple(self.groups[i] for i in kept) if self.groups else None,
            self.model_sha256,
            self.prepared,
        )

    def images(self, size_px: int, batch_size: int = 64) -> Iterator[NDArray[np.uint8]]:
        """uint8 batches (B, 3, `size_px`, `size_px`)."""
        for start in range(0, len(self), batch_size):
            positions = range(start, min(start + batch_size, len(self)))
            yield np.stack([self.load(i, size_px) for i in positions])

    def features(self, extractor: Extractor, size_px: int, told: OnPicture = lambda *_: None) -> NDArray[np.float32]:
        """(N, D) features of the images at `size_px`."""
        if not len(self):
            raise DataError(f"{self.name}: holds no image to compute features from")
        found, done = [], 0
        for batch in self.images(size_px):
            found.append(extractor(batch))
            done += len(batch)
            told(done, len(self))
        return np.concatenate(found)


def unseen_split(dataset: PreparedDataset) -> str:
    """The split of photographs that no model was trained on: "test", or "val" where there is no test split (iNaturalist
    and TreeOfLife publish none). Raises `DataError` where there is neither."""
    for split in ("test", "val"):
        if len(dataset.rows(split)):
            return split
    raise DataError(
        f"{dataset.path}: holds no photograph of a test or validation split to compare with; prepare the source with "
        "--val-fraction"
    )


def photographs(dataset: PreparedDataset, split: str, ranks: Sequence[Rank]) -> Pictures:
    """The images of one split that name a taxon at any of `ranks`, with lineages cut at the finest of these.

    The coarser names stay, whether their ranks are asked for or not: an epithet alone is no species.
    """
    rows = [int(row) for row in dataset.rows(split)]
    lineages = [_cut(dataset.lineage(row), ranks) for row in rows]
    kept = [i for i, lineage in enumerate(lineages) if lineage]
    if not kept:
        raise DataError(f"{dataset.path}: split {split!r} has no image that names a taxon at {', '.join(ranks)}")
    return Pictures(
        f"{dataset.path.name} {split}",
        tuple(str(dataset.record(rows[i]).path) for i in kept),
        tuple(lineages[i] for i in kept),
        lambda i, size_px: dataset.image(rows[kept[i]], size_px),
        len(rows) - len(kept),
        lambda i: _boxes(dataset, rows[kept[i]]),
        tuple(dataset.groups(np.array([rows[i] for i in kept], dtype=np.int64))),
        prepared=dataset.path,
    )


def side_px(pictures: Pictures) -> int:
    """The longer side of the first picture. Raises `DataError` for a file that is no picture."""
    try:
        with Image.open(pictures.files[0]) as first:
            return max(first.size)
    except OSError as error:
        raise DataError(f"{pictures.files[0]}: cannot be read as a picture ({error}); make it again") from error


def common_side_px(sides: Iterable[tuple[str, int]]) -> int:
    """The side in pixels of all. sides: whose pictures, and theirs. Raises `SettingsError` where they differ."""
    of_side: dict[int, str] = {}
    for name, side in sides:
        of_side.setdefault(side, name)
    if len(of_side) > 1:
        (small, one), *_, (large, other) = sorted(of_side.items())
        raise SettingsError(
            f"pictures of {one} are {small} px wide and of {other} {large} px; say at which size to compare (--size-px)"
        )
    return next(iter(of_side))


def generated_folder(folder: Path, ranks: Sequence[Rank]) -> Pictures:
    """A folder that `taxadiffusion generate` wrote: images beside a `metadata.csv` with a column for each rank.

    A `species` or `specific_epithet` column holds the epithet. An image's finest name is what it was asked to show;
    images asked for at another rank than `ranks` are left out and counted. Lineages are as the table gives them.
    Raises `DataError` for a missing table, column, file or name, for pictures of several recipes (older versions let
    them into one folder), and where no image is left.
    """
    table = folder / "metadata.csv"
    if not table.is_file():
        raise DataError(f"{folder}: no metadata.csv; give a folder that `taxadiffusion generate` wrote")
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or "file_name" not in rows[0]:
        raise DataError(f"{table}: needs a column file_name and one or more rows; generate images first")
    refuse_mixed(table, rows)
    files = [_file(table, number, row["file_name"]) for number, row in enumerate(rows, 2)]
    lineages = [_lineage(table, number, row) for number, row in enumerate(rows, 2)]
    kept = [i for i, lineage in enumerate(lineages) if lineage.rank in ranks]
    if not kept:
        found = ", ".join(sorted({str(lineage.rank) for lineage in lineages}))
        raise DataError(f"{table}: its images are of rank {found}, none of {', '.join(ranks)}; choose other --ranks")
    return Pictures(
        str(folder),
        tuple(str(files[i]) for i in kept),
        tuple(lineages[i] for i in kept),
        lambda i, size_px: load_image(files[kept[i]], size_px),
        len(files) - len(kept),
        model_sha256=drew.pop() if len(drew := {row.get("model_sha256") or "" for row in rows}) == 1 else "",
    )


def base_of(folder: Path) -> str | None:
    """The base that made a folder's pictures, if its table names one for all of them, by a public name."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as handle:
        bases = {row.get("base") or "local" for row in csv.DictReader(handle)}
    return None if len(bases) != 1 or "local" in bases else bases.pop()


def _boxes(dataset: PreparedDataset, row: int) -> str:
    record = dataset.record(row)
    return f"{record.box} {record.content_box}"


def _cut(lineage: Lineage, ranks: Sequence[Rank]) -> Lineage:
    """At the finest of `ranks` that it names; empty where it names none."""
    named = lineage.only(ranks).rank
    return lineage.truncated(named) if named else Lineage()


class Places:
    """Where a lineage with its own choice of ranks lies among the taxa of a data set.

    A table, or a model trained on fewer ranks, may leave out names that the data set has.
    """

    def __init__(self, lineages: Iterable[Lineage], ranks: Sequence[Rank]) -> None:
        """lineages: of the data set's images; ranks: the data set's."""
        self._lineages = set(lineages)
        self._ranks = tuple(ranks)
        self._by_names: dict[tuple[Rank, ...], dict[Lineage, set[Lineage]]] = {}
        self._found: dict[Lineage, Lineage] = {}

    def __call__(self, lineage: Lineage, name: str) -> Lineage:
        """The one taxon of the same finest rank with all of the given names; the lineage itself where there is none.

        name: whose image it is, for the message. Raises `DataError` where several taxa have these names.
        """
        if lineage not in self._found:
            self._found[lineage] = self._place(lineage.only(self._ranks), name)
        return self._found[lineage]

    def _place(self, wanted: Lineage, name: str) -> Lineage:
        if wanted.ranks not in self._by_names:
            index: dict[Lineage, set[Lineage]] = {}
            for lineage in self._lineages:
                if wanted.rank and lineage.get(wanted.rank):
                    index.setdefault(lineage.truncated(wanted.rank).only(wanted.ranks), set()).add(
                        lineage.truncated(wanted.rank)
                    )
            self._by_names[wanted.ranks] = index
        taxa = sorted(self._by_names[wanted.ranks].get(wanted, ()), key=lambda taxon: taxon.names)
        if len(taxa) > 1:
            raise DataError(
                f"{name}: {wanted} is {taxa[0]}, or {taxa[1]}, in the data set; name the coarser ranks in its table"
            )
        return taxa[0] if taxa else wanted


def _file(table: Path, number: int, name: str) -> Path:
    folder = table.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise DataError(f"{table} row {number}: file_name {name!r} is no file below {table.parent}")
    return path


def _lineage(table: Path, number: int, row: dict[str, str]) -> Lineage:
    names = {rank: row.get(rank) for rank in RANKS}
    names["species"] = names["species"] or row.get("specific_epithet")
    lineage = Lineage.of(names)
    if not lineage:
        raise DataError(f"{table} row {number}: no name in any column of a rank ({', '.join(RANKS)})")
    return lineage
