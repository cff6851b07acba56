"""One pass over a source: its taxa with their number of images, and what its rows say beside them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from taxadiffusion.dataset.columns import IMAGES
from taxadiffusion.dataset.prepared import PreparedDataset
from taxadiffusion.dataset.verify import MISSING, resolve_inside
from taxadiffusion.images import ImageError
from taxadiffusion.names import Rank, kinds
from taxadiffusion.readers import Reader, Rejected
from taxadiffusion.taxonomy import Taxonomy, TaxonomyBuilder

_NUM_REJECTED_KEPT = 1_000


@dataclass
class Census:
    """What a source holds. `images` (N,) counts the images identified exactly at each taxon (not below it)."""

    source: str
    format: str
    ranks: tuple[Rank, ...]
    taxonomy: Taxonomy
    images: npt.NDArray[np.int64]
    first_row: list[str]
    """First row ("table:row") identified exactly at each taxon, "" elsewhere."""
    rows: int
    rejected: list[Rejected] = field(default_factory=list)
    num_rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    qualifiers: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    picture_faults: Counter[str] = field(default_factory=Counter)
    """Why pictures cannot be used, as far as that can be seen without opening them."""
    faulty_pictures: list[Rejected] = field(default_factory=list)
    reader_counts: Mapping[str, int] = field(default_factory=dict)
    names_put_right: list[tuple[str, str, int]] = field(default_factory=list)
    """Kind, "as written → as read", rows; most rows first."""


def take_census(reader: Reader, source: Path, *, look_at_pictures: bool = False, follow_links: bool = False) -> Census:
    """Read every row once; memory holds the taxa, the folders of pictures and the first thousand rejected rows.

    With `look_at_pictures`, pictures (or their packages) that do not exist below the reader's root, or leave it through
    a link (unless `follow_links`), are counted by reason; none is opened.
    """
    finder = _Finder(reader.root, follow_links)
    builder = TaxonomyBuilder(reader.ranks)
    images: list[int] = []
    first: list[str] = []
    census = Census(str(source), reader.name, reader.ranks, builder.finish()[0], np.zeros(0, np.int64), [], 0)
    for item in reader:
        census.rows += 1
        if isinstance(item, Rejected):
            census.num_rejected += 1
            census.reasons[item.reason] += 1
            if len(census.rejected) < _NUM_REJECTED_KEPT:
                census.rejected.append(item)
            continue
        taxon_id = builder.add(item.lineage)
        while len(images) < len(builder):
            images.append(0)
            first.append("")
        if taxon_id >= 0:
            images[taxon_id] += 1
            first[taxon_id] = first[taxon_id] or f"{item.source}:{item.row}"
        if look_at_pictures and (fault := finder.fault(item.image)):
            census.picture_faults[fault] += 1
            if len(census.faulty_pictures) < _NUM_REJECTED_KEPT:
                census.faulty_pictures.append(Rejected(item.source, item.row, item.image, fault))
        census.licenses[item.license or "(none stated)"] += 1
        census.splits[item.split or "(none)"] += 1
        if item.qualifier:
            census.qualifiers[qualifier_kind(item.qualifier)] += 1
    taxonomy, final = builder.finish()
    order = np.argsort(final)
    census.taxonomy = taxonomy
    census.images = np.array(images, dtype=np.int64)[order] if images else np.zeros(0, np.int64)
    census.first_row = [first[i] for i in order]
    counts = getattr(reader, "counts", {})
    census.reader_counts = dict(kinds(counts))
    census.names_put_right = put_right(counts)
    return census


class _Finder:
    """Whether pictures can be reached, quickly where neither their folder nor they are links."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self._root = os.path.realpath(root)
        self._follow = follow_links
        self._inside: dict[str, bool] = {}

    def fault(self, image: str) -> str | None:
        folder = image.rpartition("/")[0]
        inside = self._inside.get(folder)
        if inside is None:
            real = Path(os.path.realpath(Path(self._root, folder)))
            inside = self._inside[folder] = self._follow or real.is_relative_to(self._root)
        try:
            if inside and stat.S_ISREG(os.lstat(f"{self._root}/{image}").st_mode):
                return None
            resolve_inside(self._root, image, self._follow)
        except (OSError, ValueError):
            return MISSING
        except ImageError as error:
            return error.reason
        return None


def prepared_census(dataset: PreparedDataset) -> Census:
    """The same counts of a prepared data set, from its columns; rows are its images and what it quarantined."""
    report = dataset.report
    census = Census(
        source=str(dataset.path),
        format=report.format,
        ranks=dataset.ranks,
        taxonomy=dataset.taxonomy,
        images=np.bincount(dataset.taxon_ids(), minlength=len(dataset.taxonomy)).astype(np.int64),
        first_row=[""] * len(dataset.taxonomy),
        rows=report.rows,
        num_rejected=report.quarantined,
        reasons=Counter(report.reasons),
        reader_counts={
            "repeated_rows": report.repeated_rows,
            "duplicate_images": report.duplicate_images,
            **report.reader_counts,
        },
    )
    taxa, first_rows = np.unique(dataset.taxon_ids(), return_index=True)
    order = np.argsort(first_rows)
    taxa, first_rows, start = taxa[order], first_rows[order], 0
    wanted = ["license", "split", "qualifier", "source", "row"]
    for batch in pq.ParquetFile(dataset.path / IMAGES).iter_batches(columns=wanted, batch_size=65_536):
        census.licenses.update(text or "(none stated)" for text in batch.column("license").to_pylist())
        census.splits.update(batch.column("split").to_pylist())
        census.qualifiers.update(qualifier_kind(text) for text in batch.column("qualifier").to_pylist() if text)
        sources, numbers = batch.column("source"), batch.column("row")
        here = slice(*np.searchsorted(first_rows, (start, start + batch.num_rows)))
        for taxon_id, row in zip(taxa[here].tolist(), (first_rows[here] - start).tolist(), strict=True):
            census.first_row[taxon_id] = f"{sources[row]}:{numbers[row]}"
        start += batch.num_rows
    return census


def put_right(counts: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """The notes of a reader that say what was read otherwise than written: kind, "from → to", rows."""
    parts = ((*note.partition(": "), rows) for note, rows in counts.items())
    return sorted(((kind, names, rows) for kind, _, names, rows in parts if names), key=lambda p: (p[0], -p[2], p[1]))


def qualifier_kind(qualifier: str) -> str:
    """ "cf. cooperi" → "cf.", "BOLD:AAV0432" → "BIN", "× S. caprea" → "hybrid formula", others → "other"."""
    if "BOLD:" in qualifier.upper():
        return "BIN"
    word = qualifier.split(" ", 1)[0].strip(".").lower()
    if word in ("cf", "aff", "sp", "spp", "nr"):
        return f"{word}."
    if word == "×":
        return "hybrid formula"
    return word if word in ("hybrid", "complex", "group", "agg", "casual", "needs_id") else "other"
