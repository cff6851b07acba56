"""Samples of our own WebDataset export: every column of the prepared set in one JSON beside the picture."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, Rank, ordered_ranks
from taxadiffusion.readers import bounded
from taxadiffusion.readers.record import Box, Record, Rejected

_BOX_KEYS = ("box_x", "box_y", "box_width", "box_height")
_TEXT_KEYS = ("split", "group", "source_id", "license", "rights_holder", "authorship", "qualifier", "source_taxon_id")


def exported_ranks(shard: Path) -> tuple[Rank, ...] | None:
    """The ranks that the shard's first JSON states; None where its first sample has none."""
    try:
        with closing(bounded.TarArchive(shard)) as archive:
            first = ""
            for entry in archive.entries():
                key = entry.name.rsplit("/", 1)[-1].partition(".")[0]
                if (first := first or key) != key:
                    return None
                if entry.name.endswith(".json"):
                    return _ranks(json.loads(archive.read(entry, bounded.MAX_TEXT_BYTES)))
    except (*bounded.DAMAGED, ValueError, RecursionError) as error:
        raise DataError(f"{shard}: damaged shard: {error}") from error
    return None


def exported_record(
    source: str, number: int, key: str, image: str, member: str, text: str, ranks: tuple[Rank, ...]
) -> Record | Rejected:
    """The record of one sample, from its JSON."""
    try:
        value = json.loads(text)
        lineage = Lineage.of({rank: value.get(rank) for rank in _ranks(value) or ()}).only(ranks)
        box = Box(*(float(value[k]) for k in _BOX_KEYS)) if value.get("box_x") is not None else None
        texts = {k: str(value[k]) if value.get(k) else None for k in _TEXT_KEYS}
    except (ValueError, TypeError, KeyError, AttributeError):
        return Rejected(source, number, key, "its JSON is not that of an exported data set")
    if not lineage:
        return Rejected(source, number, key, "the sample names no taxon")
    return Record(image=image, member=member, lineage=lineage, source=source, row=number, box=box, **texts)


def _ranks(value: Any) -> tuple[Rank, ...] | None:
    ranks = value.get("ranks") if isinstance(value, dict) else None
    if not isinstance(ranks, list) or not ranks or any(rank not in RANKS for rank in ranks):
        return None
    return ordered_ranks(ranks)
