"""Species folders: `Genus_species/` with pictures in them, perhaps within `train/`, `val/`, `test/`."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank
from taxadiffusion.readers.folder_columns import Columns, with_subspecies
from taxadiffusion.readers.folder_names import SPLITS, split_from_path, taxon_of_folder
from taxadiffusion.readers.links import Links, Refused
from taxadiffusion.readers.record import Record, Rejected, path_fault
from taxadiffusion.readers.table import Table
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
_NAME_TABLES = tuple(f"names{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".parquet"))


class FolderReader:
    """One record an image below `Genus_species/` folders, perhaps within `train/`, `val/`, `test/`.

    Links are read by the rule of `links`; a folder that is refused is one rejected row.
    """

    name = "folder"

    def __init__(
        self, root: Path, names: Path | None, ranks: str | Sequence[Rank] | None, follow_links: bool = False
    ) -> None:
        self.root = root
        self.counts: Counter[str] = Counter()
        self._follow_links = follow_links
        names = names or next((root / name for name in _NAME_TABLES if (root / name).is_file()), None)
        self._taxa: dict[str, StatedTaxon] | None = None
        self._source = root.name
        default: tuple[Rank, ...] = ("genus", "species")
        if names is not None:
            self._taxa, default = _read_names(names)
        self.ranks = chosen_ranks(ranks, with_subspecies(default), default)

    def __iter__(self) -> Iterator[Record | Rejected]:
        number = itertools.count(1)
        links = Links(self.root, self._follow_links)
        self.counts = links.counts
        for folder in self._species_folders(links):
            if isinstance(folder, Refused):
                yield self._rejected(folder, next(number))
                continue
            files, refused = links.files(folder, IMAGE_SUFFIXES)
            for refusal in refused:
                yield self._rejected(refusal, next(number))
            taxon = self._taxon(folder.name)
            for path in files:
                image, row = path.relative_to(self.root).as_posix(), next(number)
                if fault := path_fault(image):
                    yield Rejected(self._source, row, image, fault)
                elif isinstance(taxon, str):
                    yield Rejected(self._source, row, image, taxon)
                else:
                    self.counts.update(taxon.notes)
                    yield Record(
                        image=image,
                        lineage=taxon.lineage.only(self.ranks),
                        source=self._source,
                        row=row,
                        split=split_from_path(image),
                        authorship=taxon.authorship,
                        qualifier=taxon.qualifier,
                    )

    def _rejected(self, refused: Refused, row: int) -> Rejected:
        return Rejected(self._source, row, refused.path.relative_to(self.root).as_posix(), refused.reason)

    def _species_folders(self, links: Links) -> Iterator[Path | Refused]:
        for entry in links.folders(self.root):
            if isinstance(entry, Path) and entry.name.lower() in SPLITS:
                yield from links.folders(entry)
            else:
                yield entry

    def _taxon(self, folder: str) -> StatedTaxon | str:
        if self._taxa is None:
            return taxon_of_folder(folder)
        taxon = self._taxa.get(unicodedata.normalize("NFC", folder))
        return taxon if taxon and taxon.lineage else f"folder {folder!r} is not in the name table"


def _read_names(path: Path) -> tuple[dict[str, StatedTaxon], tuple[Rank, ...]]:
    table = Table(path)
    columns = Columns.of(table, {})
    if "folder" not in columns.named:
        raise DataError(f"{path}: no folder column, which says whose ranks a row gives")
    table.may_end_after(columns.needed)
    taxa: dict[str, StatedTaxon] = {}
    faults = []
    for row in table:
        if isinstance(row, Rejected):
            faults.append(str(row))
            continue
        folder = unicodedata.normalize("NFC", row.get(columns.named["folder"]))
        taxon = columns.taxon(row, with_subspecies(columns.all_ranks))
        if taxon.fault:
            faults.append(f"{path.name}:{row.number}: {taxon.fault}")
        elif taxa.setdefault(folder, taxon).lineage != taxon.lineage:
            both = f"{taxa[folder].lineage} and {taxon.lineage}"
            faults.append(f"{path.name}:{row.number}: folder {folder!r} has two lineages: {both}")
    if faults:
        raise DataError(f"{path}: {len(faults)} rows cannot be used:\n  " + "\n  ".join(faults))
    return taxa, columns.all_ranks
