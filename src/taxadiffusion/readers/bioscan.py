"""What BIOSCAN-1M and BIOSCAN-5M share: where their pictures lie (folder, zip packages, HDF5), taxa, records."""

from __future__ import annotations

import importlib.util
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.record import Record, Rejected
from taxadiffusion.readers.table import SHORT_ROWS, Row, Table
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks, read_taxon

PACKAGES = ("cropped_256", "original_256", "cropped", "cropped_full", "original_full")
"""Published picture packages, the one looked for first at the left."""

AVAILABLE: tuple[Rank, ...] = (
    "phylum",
    "class",
    "order",
    "family",
    "subfamily",
    "tribe",
    "genus",
    "species",
    "subspecies",
)
PAPER_RANKS: tuple[Rank, ...] = ("class", "order", "family", "genus", "species")


@dataclass(frozen=True)
class PictureFiles:
    """Where the pictures of a BIOSCAN release lie below `root`.

    A folder layout puts `prefix` before the picture's path; a zip or HDF5 layout names the package in `package_of` (by
    the picture's path) and the entry by prefix + path (zip) or file name (HDF5).
    """

    root: Path
    prefix: str
    package_of: Callable[[str], str | None]
    is_hdf5: bool = False

    def locate(self, path: str) -> tuple[str, str | None]:
        """`Record.image` and `Record.member` of the picture at `path` ("part18/5351601.jpg", "train/0/ABC.jpg")."""
        package = self.package_of(path)
        if package is None:
            return self.prefix + path, None
        return package, path.rsplit("/", 1)[-1] if self.is_hdf5 else self.prefix + path


def find_pictures(source: Path, images: Path | None, release: str, first_folder: str) -> PictureFiles:
    """Look for the pictures: an explicit folder, .zip or .hdf5, else the published layouts below the source.

    `release` is "bioscan" or "bioscan5m"; `first_folder` starts a picture's path ("part", "train" …) and tells where a
    zip's own prefix ends. Without any pictures (tables only) paths are relative to the source. Raises `DataError` when
    `images` is missing.
    """
    base = source if source.is_dir() else source.parent
    if images is not None:
        images = Path(images)
        if not images.exists():
            raise DataError(f"{images}: no such picture folder or package")
        if images.is_file():
            return _in_packages([images], images.parent, first_folder)
        return _in_folder(images, release) or PictureFiles(images, "", _no_package)
    if layout := _in_folder(base, release) or _in_folder(base.parent, release):
        return layout
    found = (p for name in PACKAGES for kind in ("hdf5", "zip") for p in sorted(base.glob(f"*{name}*.{kind}")))
    packages = list(dict.fromkeys(found))
    return _in_packages(packages, base, first_folder) if packages else PictureFiles(base, "", _no_package)


def _no_package(_: str) -> str | None:
    return None


def _in_folder(base: Path, release: str) -> PictureFiles | None:
    releases = ("bioscan1m", "bioscan") if release == "bioscan" else (release,)
    for parts in (*((name, "images") for name in releases), ("images",), ()):
        folder = base.joinpath(*parts)
        for package in PACKAGES:
            if (folder / package).is_dir():
                return PictureFiles(base, "/".join((*parts, package, "")), _no_package)
    return None


def _in_packages(packages: list[Path], root: Path, first_folder: str) -> PictureFiles:
    """HDF5 files hold every picture; zips may be split by part or by split, told from their names."""
    first = packages[0]
    if first.suffix != ".zip":
        if importlib.util.find_spec("h5py") is None:
            raise SettingsError(f"{first}: reading HDF5 needs h5py: pip install 'taxadiffusion[data]'")
        return PictureFiles(root, "", lambda _: first.name, is_hdf5=True)
    kind = next((name for name in PACKAGES if name in first.name), "")
    zips = [path.name for path in packages if path.suffix == ".zip" and kind in path.name]
    return PictureFiles(root, _zip_prefix(first, first_folder), lambda path: _zip_of(zips, path))


def _zip_prefix(path: Path, first_folder: str) -> str:
    try:
        with bounded.open_zip(path) as archive:
            name = next((name for name in archive.namelist() if not name.endswith("/")), "")
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: damaged zip package: {error}") from error
    parts = name.split("/")[:-1]
    starts = [i for i, part in enumerate(parts) if part.startswith(first_folder) or part in _FIVE_M_FOLDERS]
    return "".join(f"{part}/" for part in parts[: starts[0]]) if starts else "".join(f"{part}/" for part in parts)


_FIVE_M_FOLDERS = frozenset(
    {"pretrain", "train", "val", "test", "key_unseen", "val_unseen", "test_unseen", "other_heldout"}
)


def _zip_of(zips: list[str], path: str) -> str:
    """The package of a picture: `…_part18.zip`, `…_part1-20.zip`, `…_pretrain.zip`, `…_eval.zip`, or the only one."""
    if len(zips) == 1:
        return zips[0]
    top = path.split("/", 1)[0]
    number = int(top[4:]) if top.startswith("part") and top[4:].isdigit() else None
    for name in zips:
        stem = name.removesuffix(".zip")
        if number is not None:
            span = stem.rsplit("part", 1)[-1].split("-")
            if all(part.isdigit() for part in span) and int(span[0]) <= number <= int(span[-1]):
                return name
        elif stem.endswith(f"_{top}") or (stem.endswith("_eval") and top not in ("pretrain", "train")):
            return name
    raise DataError(f"no zip package for {path!r} among {', '.join(zips)}; download the missing part")


def read_specimen(row: Row, ranks: tuple[Rank, ...], bin_column: str) -> StatedTaxon:
    """The taxon of one specimen; without a species its BIN ("BOLD:AER5166") is the qualifier."""
    names = tuple((rank, row.get(rank)) for rank in ranks if rank not in ("species", "subspecies"))
    taxon = read_taxon(names, row.get("species") if "species" in ranks else "", "binomial")
    if taxon.fault:
        return taxon
    bin_id = row.get(bin_column)
    qualifier = taxon.qualifier or (bin_id if bin_id.startswith("BOLD:") and not taxon.lineage.get("species") else None)
    return StatedTaxon(taxon.lineage.only(ranks), taxon.authorship, qualifier, taxon.notes)


class SpecimenReader:
    """One record per specimen of a release's metadata table; what differs between releases is below `_path`."""

    name: str
    columns: tuple[str, ...]
    """Those without which a row is no specimen, beside the ranks."""
    barcode_column: str

    def __init__(self, table: Path, pictures: PictureFiles, ranks: Sequence[Rank] | str | None) -> None:
        self.root = pictures.root
        self.ranks = chosen_ranks(ranks, AVAILABLE, PAPER_RANKS)
        self.counts: Counter[str] = Counter()
        self._table = table
        self._pictures = pictures

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        table = Table(self._table)
        table.may_end_after([*self.columns, *self.ranks])
        for row in table:
            yield row if isinstance(row, Rejected) else self._record(row)
        if table.num_short:
            self.counts[SHORT_ROWS] = table.num_short

    def _record(self, row: Row) -> Record | Rejected:
        path, fault = self._path(row)
        if fault:
            return Rejected(self._table.name, row.number, path, fault)
        taxon = read_specimen(row, self.ranks, self.barcode_column)
        if taxon.fault or not taxon.lineage:
            return Rejected(self._table.name, row.number, row.get("species"), taxon.fault or "the row names no taxon")
        self.counts.update(taxon.notes)
        image, member = self._pictures.locate(path)
        return Record(
            image=image,
            member=member,
            lineage=taxon.lineage,
            source=self._table.name,
            row=row.number,
            authorship=taxon.authorship,
            qualifier=taxon.qualifier,
            **self._facts(row),
        )

    def _path(self, row: Row) -> tuple[str, str | None]:
        """Where the picture lies; or what the row says of it, and why that is no path."""
        raise NotImplementedError

    def _facts(self, row: Row) -> dict[str, Any]:
        """The other fields of the row's `Record`."""
        raise NotImplementedError
