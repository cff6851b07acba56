"""The taxon that each taxon is most easily taken for: what guidance from a sister is away from."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from taxadiffusion.adapter import Adapter
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.request import Request

Confusions = Mapping[tuple[str, str], int]
"""(what a photograph shows, what a judge took it for), by label → how often."""

NO_SISTER = "the model knows no other taxon of its rank, so guidance was from the null"

_PHOTOGRAPHS = "real_test_photographs"


class Sisters:
    """Finds the sister of a taxon among those of its rank that share the most of its lineage: its genus, or else its
    family, and so on up.

    Among several it is the one that the taxon is most often taken for; where that is not known, the next by name (after
    the last comes the first), so that not all are guided away from the same one. It depends on nothing else.
    """

    def __init__(self, lineages: Iterable[Lineage], confusions: Confusions | None = None) -> None:
        self.confusions = confusions or {}
        self._below: dict[tuple[object, ...], list[Lineage]] = defaultdict(list)
        for lineage in sorted(dict.fromkeys(lineages), key=lambda lineage: lineage.names):
            for depth in range(len(lineage.names)):
                self._below[(lineage.rank, *lineage.names[:depth])].append(lineage)

    def of(self, lineage: Lineage) -> Lineage | None:
        """None where no other taxon of its rank is known."""
        for depth in reversed(range(len(lineage.names))):
            others = [one for one in self._below.get((lineage.rank, *lineage.names[:depth]), ()) if one != lineage]
            if others:
                return self._chosen(lineage, others)
        return None

    def _chosen(self, lineage: Lineage, others: Sequence[Lineage]) -> Lineage:
        counts = [self.confusions.get((lineage.label, one.label), 0) for one in others]
        if max(counts):
            return others[counts.index(max(counts))]
        return next((one for one in others if one.names > lineage.names), others[0])


def with_sisters(
    adapter: Adapter, requests: Sequence[Request], confusions: Confusions | None = None
) -> tuple[list[Request], dict[Lineage, str]]:
    """The requests, those that are guided from a sister with theirs; and a note of each taxon that has none."""
    if not any(request.guidance.base == "sister" for request in requests):
        return list(requests), {}
    taxonomy, ranks = adapter.taxonomy, adapter.card.ranks
    sisters = Sisters((taxonomy.lineage(number).only(ranks) for number in range(len(taxonomy))), confusions)
    found = {request.lineage: sisters.of(request.lineage) for request in requests}
    notes = {lineage: NO_SISTER for lineage, sister in found.items() if sister is None}
    return [
        replace(request, sister=found[request.lineage]) if request.guidance.base == "sister" else request
        for request in requests
    ], notes


def read_confusions(path: Path) -> Confusions:
    """What photographs were taken for, from the JSON of an evaluation (`evaluate` writes it). Raises `DataError`."""
    counts: dict[tuple[str, str], int] = {}
    try:
        for scores in json.loads(path.read_text(encoding="utf-8"))["details"][_PHOTOGRAPHS].values():
            for pair in scores["confusions"]:
                key = str(pair["true"]), str(pair["predicted"])
                counts[key] = counts.get(key, 0) + int(pair["count"])
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: no evaluation with confusions of photographs ({type(error).__name__}: {error})"
        ) from error
    return counts
