"""A source whose taxa carry the ids of a catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from taxadiffusion.dataset.catalogue import read_against
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.readers import Reader, Record, Rejected
from taxadiffusion.taxonomy import TaxonomyBuilder


class CatalogueReader:
    """The records of `reader`, each accepted name with the catalogue's taxonID in place of the source's own.

    Names stay as they are: what to do with a synonym is for a person to say (`check --names … --rules`, `--fix`). The
    source and the archive are read through once before the first record. Raises `DataError` as `read_against` does.
    """

    def __init__(self, reader: Reader, archive: Path) -> None:
        self.name = reader.name
        self.ranks: tuple[Rank, ...] = reader.ranks
        self.root = reader.root
        self.reader = reader
        self._archive = archive
        self._ids: dict[Lineage, str] | None = None
        self._judged: dict[str, int] = {}

    def __iter__(self) -> Iterator[Record | Rejected]:
        ids = self._ids = self._read() if self._ids is None else self._ids
        for item in self.reader:
            if isinstance(item, Record):
                item = replace(item, source_taxon_id=ids.get(item.lineage, item.source_taxon_id))
            yield item

    @property
    def counts(self) -> Mapping[str, int]:
        return {**getattr(self.reader, "counts", {}), **self._judged}

    def _read(self) -> dict[Lineage, str]:
        builder = TaxonomyBuilder(self.ranks)
        for item in self.reader:
            if isinstance(item, Record):
                builder.add(item.lineage)
        taxonomy, _ = builder.finish()
        report = read_against(taxonomy, np.zeros(len(taxonomy), np.int64), self._archive)
        self._judged = {
            "names_accepted": report.accepted,
            "names_that_are_synonyms": len(report.synonyms),
            "names_doubtful": len(report.doubtful),
            "names_unknown": len(report.unknown),
        }
        return {taxonomy.lineage(taxon_id): text for taxon_id, text in report.ids.items()}
