"""iNaturalist: the competition JSONs of 2017 to 2021, their folders alone, and the Open Data dumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.readers import bounded
from taxadiffusion.readers.inaturalist_dumps import OpenData, dump_tables
from taxadiffusion.readers.json_stream import stream_arrays
from taxadiffusion.readers.links import Links, Refused
from taxadiffusion.readers.record import Reader, Record, Rejected, as_on_disk, path_fault
from taxadiffusion.readers.taxon import StatedTaxon, chosen_ranks, read_taxon

LINNAEAN: tuple[Rank, ...] = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
AVAILABLE: tuple[Rank, ...] = (*LINNAEAN, "subspecies")
SUPERCATEGORY_RANKS = {
    "Plantae": "kingdom", "Animalia": "kingdom", "Fungi": "kingdom", "Chromista": "kingdom", "Protozoa": "kingdom",
    "Bacteria": "kingdom", "Mollusca": "phylum", "Aves": "class", "Insecta": "class", "Reptilia": "class",
    "Mammalia": "class", "Amphibia": "class", "Arachnida": "class", "Actinopterygii": "class",
}  # fmt: skip
"""Supercategories that are taxa (2017, 2018). Those of 2021 ("Ray-finned Fishes") are words and are not used."""

SPLITS = {"train": "train", "train_mini": "train", "val": "val", "test": "test", "public_test": "test"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def detect(source: Path) -> bool:
    if source.is_file():
        return source.suffix == ".json" and _looks_like_coco(source)
    if dump_tables(source) is not None:
        return True
    return any(_looks_like_coco(path) for path in _json_files(source)) or _first_class_folder(source) is not None


def open_source(
    source: Path,
    *,
    images: Path | None = None,
    categories: Path | None = None,
    size: str = "medium",
    ranks: Sequence[Rank] | str | None = None,
    follow_links: bool = False,
) -> Reader:
    """A competition JSON, a folder with one or more, the class folders of 2021 alone, or the Open Data dumps.

    `images`: folder below which `file_name` is looked up (default: the JSON's). `categories`: the real names that
    replace the obfuscated ones of 2018 and 2019. `size`: which picture of Open Data lies on
    disk ("original", "medium" …).
    """
    wanted = chosen_ranks(ranks, AVAILABLE, LINNAEAN)
    if source.is_dir() and (tables := dump_tables(source)) is not None:
        if categories is not None:
            raise SettingsError("categories: the Open Data dumps carry their own taxa")
        return OpenData(tables, Path(images) if images else source, size, wanted)
    files = [source] if source.is_file() else [path for path in _json_files(source) if _looks_like_coco(path)]
    root = Path(images) if images else (source if source.is_dir() else source.parent)
    if files:
        return Competition(files, root, Path(categories) if categories else None, wanted)
    if _first_class_folder(source) is None:
        raise DataError(f"{source}: no competition JSON, class folders or photos.csv + observations.csv + taxa.csv")
    return ClassFolders(source, wanted, follow_links)


class Competition:
    """One record per image of each JSON; an image without an annotation (test files) is rejected."""

    name = "inaturalist"

    def __init__(self, files: list[Path], root: Path, categories: Path | None, ranks: tuple[Rank, ...]) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._files = files
        self._categories = categories

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        for path in self._files:
            taxa, category_of, licenses = self._index(path)
            for number, (_, image) in enumerate(stream_arrays(path, ("images",)), start=1):
                yield self._record(path, number, image, taxa, category_of, licenses)

    def _index(self, path: Path) -> tuple[dict[str, StatedTaxon], dict[int | str, str], dict[str, str]]:
        """Categories, image id → category id, licences; ids of either type ("12", 12) are the same."""
        taxa: dict[str, StatedTaxon] = {}
        category_of: dict[int | str, str] = {}
        licenses: dict[str, str] = {}
        for key, value in stream_arrays(path, ("categories", "annotations", "licenses")):
            if not isinstance(value, dict):
                raise DataError(f"{path}: {key} holds {value!r:.80}, not an object")
            if key == "annotations":
                category_of[_id(value.get("image_id"))] = str(value.get("category_id"))
            elif key == "licenses":
                licenses[str(value.get("id"))] = str(value.get("url") or value.get("name") or "")
            elif self._categories is None:
                taxa[str(value.get("id"))] = _category(value)
        if self._categories is not None:
            taxa = _read_categories(self._categories)
        return taxa, category_of, licenses

    def _record(
        self,
        path: Path,
        number: int,
        image: Any,
        taxa: dict[str, StatedTaxon],
        category_of: dict[int | str, str],
        licenses: dict[str, str],
    ) -> Record | Rejected:
        file_name = str(image.get("file_name") or "") if isinstance(image, dict) else ""
        if fault := path_fault(file_name):
            return Rejected(path.name, number, file_name, fault)
        category = category_of.get(_id(image.get("id")))
        taxon = taxa.get(category) if category is not None else None
        if taxon is None:
            reason = "no annotation names this image" if category is None else "its category is not defined"
            return Rejected(path.name, number, f"{file_name} (category {category})", reason)
        lineage = taxon.lineage.only(self.ranks)
        if taxon.fault or not lineage:
            return Rejected(path.name, number, file_name, taxon.fault or "its category names no taxon")
        self.counts.update(taxon.notes)
        license_id = image.get("license")
        return Record(
            image=as_on_disk(self.root, file_name),
            lineage=lineage,
            source=path.name,
            row=number,
            split=_split_of(file_name, path.stem),
            source_id=str(image.get("id")),
            license=licenses.get(str(license_id)) or (None if license_id is None else str(license_id)),
            rights_holder=str(image["rights_holder"]) if image.get("rights_holder") else None,
            qualifier=taxon.qualifier,
        )


class ClassFolders:
    """The 2021 folders without their JSON: `02912_Animalia_Chordata_…_Ameiurus_nebulosus/<uuid>.jpg`."""

    name = "inaturalist"

    def __init__(self, root: Path, ranks: tuple[Rank, ...], follow_links: bool = False) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._follow_links = follow_links

    def __iter__(self) -> Iterator[Record | Rejected]:
        links = Links(self.root, self._follow_links)
        self.counts = links.counts
        number = 0
        for folder in _class_folders(self.root, links):
            if isinstance(folder, Refused):
                number += 1
                where = folder.path.relative_to(self.root).as_posix()
                yield Rejected(self.root.name, number, where, folder.reason)
                continue
            taxon = taxon_of_folder(folder.name)
            for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
                number += 1
                image = path.relative_to(self.root).as_posix()
                self.counts.update(taxon.notes)
                yield Record(
                    image=image,
                    lineage=taxon.lineage.only(self.ranks),
                    source=self.root.name,
                    row=number,
                    split=_split_of(image, self.root.name),
                    source_id=path.stem,
                    qualifier=taxon.qualifier,
                )


def taxon_of_folder(name: str) -> StatedTaxon:
    """The taxon of a 2021 class folder; epithets may hold hyphens. A name of another shape has an empty lineage."""
    parts = name.split("_", 7)
    if len(parts) != 8 or not parts[0].isdigit():
        return StatedTaxon(read_taxon((), "", "epithet").lineage)
    return read_taxon(tuple(zip(LINNAEAN[:6], parts[1:7], strict=True)), parts[7].replace("_", " "), "epithet")


def _category(value: dict[str, Any]) -> StatedTaxon:
    cells = {rank: str(value.get(rank) or "") for rank in LINNAEAN[:6]}
    supercategory = str(value.get("supercategory") or "")
    rank = SUPERCATEGORY_RANKS.get(supercategory)
    if rank and not any(cells.values()):
        cells[rank] = supercategory
    epithet = str(value.get("specific_epithet") or "")
    if epithet:
        return read_taxon(tuple(cells.items()), epithet, "epithet")
    return read_taxon(tuple(cells.items()), str(value.get("name") or ""), "binomial")


def _read_categories(path: Path) -> dict[str, StatedTaxon]:
    """A categories file: a JSON list, or an object with `categories`."""
    data = bounded.read_small(path) if path.is_file() else b""
    if not data:
        raise DataError(f"{path}: no such categories file, or it is empty")
    if data.lstrip().startswith(b"["):
        import json

        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a JSON list of categories: {error}") from error
    else:
        values = [value for _, value in stream_arrays(path, ("categories",))]
    if faulty := [value for value in values if not isinstance(value, dict)]:
        raise DataError(f"{path}: {faulty[0]!r:.80} is no category (an object)")
    return {str(value.get("id")): _category(value) for value in values}


def _id(value: Any) -> int | str:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else text


def _split_of(file_name: str, stem: str) -> str | None:
    """From the first folder ("train_mini/…"), else from the JSON's own name ("val2018")."""
    if (split := SPLITS.get(file_name.split("/", 1)[0])) is not None:
        return split
    return next((split for word in ("train", "val", "test") if stem.startswith(word) and (split := SPLITS[word])), None)


def _json_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return head.lstrip().startswith(b"{") and any(
        key in head for key in (b'"annotations"', b'"images"', b'"categories"')
    )


def _class_folders(root: Path, links: Links) -> Iterator[Path | Refused]:
    for entry in links.folders(root):
        if isinstance(entry, Refused):
            yield entry
        elif entry.name in SPLITS:
            yield from _class_folders(entry, links)
        elif taxon_of_folder(entry.name).lineage:
            yield entry


def _first_class_folder(source: Path) -> Path | None:
    if not source.is_dir():
        return None
    folders = _class_folders(source, Links(source, follow_links=True))  # whether it is one; nothing in it is read
    return next((folder for folder in folders if isinstance(folder, Path)), None)
