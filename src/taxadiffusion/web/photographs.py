"""The photographs of a prepared data set beside a model's taxa: which show a taxon, with licence, made small."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.images import ImageError
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.memory import Memory
from taxadiffusion.web.served import ServedModel

THUMBNAIL_PX = 224
NUM_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Photograph:
    """What is told of a photograph; "" where the data set does not say it."""

    row: int
    licence: str
    holder: str
    label: str


class Photographs:
    """Training photographs by taxon of the model; counted with those of the taxa below."""

    def __init__(self, dataset: PreparedDataset, model: ServedModel, limits: Limits) -> None:
        """Raises `DataError` where the data set shows no taxon of the model."""
        self._dataset, self._model = dataset, model
        self._small: Memory[bytes] = Memory(limits.thumbnail_bytes)
        of_data = {
            taxon: lineage
            for taxon in range(len(dataset.taxonomy))
            if (lineage := dataset.taxonomy.lineage(taxon).only(model.ranks))
        }
        self._rows: dict[int, list[int]] = {}
        """Of each taxon those that name it or a taxon below it, ascending."""
        rows = dataset.rows("train")
        for row, taxon in zip(rows.tolist(), dataset.taxon_ids(rows).tolist(), strict=True):
            number = model.ids.get(of_data[taxon]) if taxon in of_data else None
            for above in model.path(number) if number is not None else ():
                self._rows.setdefault(above, []).append(row)
        if not self._rows:
            raise DataError(f"{dataset.path}: none of its training photographs shows a taxon of {model.name}")
        self._known = frozenset(row for found in self._rows.values() for row in found)

    def count(self, taxon: int) -> int:
        """How many taught it."""
        return len(self._rows.get(taxon, ()))

    def shown(self, taxon: int, number: int = NUM_SHOWN) -> list[Photograph]:
        """Some of the taxon, spread over all of its own."""
        rows = self._rows.get(taxon, [])
        chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int).tolist()]
        return [self.told(row) for row in chosen]

    def first(self, taxon: int) -> int | None:
        """The photograph that stands for the taxon."""
        return next(iter(self._rows.get(taxon, ())), None)

    def told(self, row: int) -> Photograph:
        """Licence, holder and taxon of a training photograph."""
        record = self._dataset.record(row)
        holder = record.rights_holder or record.authorship or ""
        return Photograph(row, record.license or "", holder, self._dataset.lineage(row).label)

    def small(self, row: int) -> bytes | None:
        """A JPEG of at most `THUMBNAIL_PX`; None for a row that is none of these, or cannot be read any more."""
        if row not in self._known:
            return None
        if (small := self._small.get(row)) is not None:
            return small
        try:
            pixels: npt.NDArray[np.uint8] = self._dataset.image(row, THUMBNAIL_PX, "crop")
        except (ImageError, DataError, OSError):
            return None
        packed = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(packed, "JPEG", quality=82)
        small = packed.getvalue()
        self._small.put(row, small, len(small))
        return small
