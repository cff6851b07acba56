"""The names of a data set read against a catalogue such as the Catalogue of Life: accepted, synonym, doubtful, unknown.

Offline, in two passes over the catalogue's table; memory holds the data set's names and the rows that carry them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from rapidfuzz import fuzz, process

from taxadiffusion.dataset.catalogue_file import NamesTable, OnBytes, open_names
from taxadiffusion.names import Lineage, Rank, parse_name
from taxadiffusion.taxonomy import Taxonomy

_WANTED = ("id", "parent", "accepted", "status", "rank", "name", "authorship", "kingdom")
_FIRST_WORDS = r"^(?P<first>[^ ,(]+)(?: \([^)]*\))?(?: (?P<second>[^ ,(\p{Lu}][^ ,]*))?"
_BELOW_GENUS = frozenset({
    "species", "subspecies", "variety", "form", "subvariety", "subform", "infraspecific name", "species aggregate",
})  # fmt: skip
_INFRASPECIFIC = _BELOW_GENUS - {"species", "species aggregate"}
_CERTAIN = frozenset({"accepted", "valid"})
_UNSURE = {
    "provisionally accepted": "accepted provisionally",
    "doubtful": "accepted with doubt",
    "ambiguous synonym": "a synonym that may belong to several taxa",
    "misapplied": "a name that was used for another taxon by mistake",
    "misapplied name": "a name that was used for another taxon by mistake",
    "bare name": "a name without a taxon",
}
_LATIN = str.maketrans({"æ": "ae", "œ": "oe", "Æ": "Ae", "Œ": "Oe", "ø": "oe", "ß": "ss"})
_CLOSE = 80


@dataclass(frozen=True)
class Judged:
    """What the catalogue says of one taxon of the data set."""

    rank: Rank
    name: str
    images: int
    accepted: str = ""
    """The accepted name of a synonym."""
    taxon_id: str = ""
    """taxonID of the accepted taxon."""
    why: str = ""
    """Why a name is doubtful, or which known name an unknown one is spelt like."""


@dataclass(frozen=True)
class CatalogueReport:
    """Every taxon of a data set stands in one of the four lists; `ids` is taxon → taxonID of the accepted ones."""

    archive: str
    names: int
    accepted: int
    synonyms: list[Judged]
    doubtful: list[Judged]
    unknown: list[Judged]
    ids: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Usage:
    """A row of the catalogue."""

    id: str
    accepted_id: str
    status: str
    rank: str
    name: str
    authorship: str
    kingdom: str


def read_against(
    taxonomy: Taxonomy, images: np.ndarray[Any, Any], archive: Path, on_bytes: OnBytes | None = None
) -> CatalogueReport:
    """The names of all taxa against a ColDP or Darwin Core archive. `images` (N,) are the images of each taxon.

    Raises `DataError` for an archive that cannot be read.
    """
    table = open_names(archive)
    lineages = [taxonomy.lineage(taxon_id) for taxon_id in range(len(taxonomy))]
    asked = [_asked(lineage) for lineage in lineages]
    usages = _usages(table, asked, on_bytes)
    found = [_fitting(usages.get(name, []), lineage) for name, lineage in zip(asked, lineages, strict=True)]
    accepted_ids = {usage.accepted_id for matches in found for usage in matches if usage.accepted_id}
    missing_genera = {
        str(lineage.get("genus")) for lineage, matches in zip(lineages, found, strict=True)
        if not matches and lineage.rank in ("species", "subspecies")
    }  # fmt: skip
    accepted, epithets = _second_pass(table, accepted_ids, missing_genera, on_bytes)
    report = CatalogueReport(str(archive), len(taxonomy), 0, [], [], [], {})
    ids: dict[int, str] = {}
    for taxon_id, (lineage, matches) in enumerate(zip(lineages, found, strict=True)):
        kind, judged = _judged(lineage, int(images[taxon_id]), matches, accepted)
        if kind == "accepted":
            ids[taxon_id] = judged.taxon_id
        elif kind == "unknown":
            report.unknown.append(_with_suggestion(judged, epithets.get(str(lineage.get("genus")), [])))
        else:
            (report.synonyms if kind == "synonym" else report.doubtful).append(judged)
    return CatalogueReport(
        report.archive, report.names, len(ids), report.synonyms, report.doubtful, report.unknown, ids
    )


def _asked(lineage: Lineage) -> str:
    """A taxon's name as a catalogue writes it: letters of Latin alone, no "var."."""
    text = re.sub(r" (?:var|f|subsp)\. ", " ", lineage.label)
    text = text.translate(_LATIN)
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _usages(table: NamesTable, asked: list[str], on_bytes: OnBytes | None) -> dict[str, list[_Usage]]:
    """The catalogue's rows by the names that are asked for."""
    names = set(asked)
    keys = pa.array(sorted({" ".join(name.split(" ")[:2]) for name in names}), pa.string())
    alone = pa.array(sorted(name for name in names if " " not in name), pa.string())
    usages: defaultdict[str, list[_Usage]] = defaultdict(list)
    for batch in table.batches(_WANTED, on_bytes):
        first, second = _words(batch.column("name"))
        below = pc.is_in(pc.utf8_lower(batch.column("rank")), pa.array(sorted(_BELOW_GENUS)))
        joined = pc.if_else(pc.equal(second, ""), first, pc.binary_join_element_wise(first, second, " "))
        chosen = pc.or_(pc.is_in(joined, keys), pc.and_(pc.is_in(first, alone), pc.invert(below)))
        for usage in _rows(table, batch.filter(chosen)):
            canonical = parse_name(usage.name).canonical
            if canonical in names:
                usages[canonical].append(usage)
    return usages


def _words(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """First and second word of each name, "" without; a subgenus and the signs of hybrids and fossils passed over."""
    parts = pc.extract_regex(pc.replace_substring_regex(names, "[×†] ?", ""), _FIRST_WORDS)
    return tuple(pc.fill_null(pc.struct_field(parts, [name]), "") for name in ("first", "second"))


def _rows(table: NamesTable, batch: pa.RecordBatch) -> Iterator[_Usage]:
    for row in batch.to_pylist():
        status = row["status"].strip().lower().replace("_", " ")
        is_synonym = "synonym" in status or status.startswith("misapplied")
        target = row.get("accepted" if table.is_darwin_core else "parent", "") if is_synonym else ""
        name, authorship = row["name"], row.get("authorship", "")
        yield _Usage(row["id"], target, status, row["rank"].lower(), name, authorship, row.get("kingdom", ""))


def _second_pass(
    table: NamesTable, ids: set[str], genera: set[str], on_bytes: OnBytes | None
) -> tuple[dict[str, _Usage], dict[str, list[str]]]:
    """The taxa that synonyms point to, by id, and the species of the genera of unknown species."""
    accepted: dict[str, _Usage] = {}
    species: defaultdict[str, list[str]] = defaultdict(list)
    if not ids and not genera:
        return accepted, species
    wanted_ids, wanted_genera = pa.array(sorted(ids), pa.string()), pa.array(sorted(genera), pa.string())
    for batch in table.batches(_WANTED, on_bytes):
        for usage in _rows(table, batch.filter(pc.is_in(batch.column("id"), wanted_ids))):
            accepted[usage.id] = usage
        if genera:
            first, second = _words(batch.column("name"))
            here = pc.and_(pc.is_in(first, wanted_genera), pc.equal(pc.utf8_lower(batch.column("rank")), "species"))
            for genus, epithet in zip(first.filter(here).to_pylist(), second.filter(here).to_pylist(), strict=True):
                species[genus].append(f"{genus} {epithet}")
    return accepted, species


def _fitting(usages: Iterable[_Usage], lineage: Lineage) -> list[_Usage]:
    """Rows of the taxon's rank and, where both say one, its kingdom; without any of its rank, those of other ranks."""
    kingdom = lineage.get("kingdom")
    here = [u for u in usages if not (kingdom and u.kingdom) or u.kingdom.casefold() == kingdom.casefold()]
    return [u for u in here if _is_of_rank(u.rank, lineage.rank)] or here


def _is_of_rank(stated: str, rank: Rank | None) -> bool:
    if rank == "subspecies":
        return stated in _INFRASPECIFIC
    return stated in (rank, "", "unranked") or (rank == "species" and stated == "species aggregate")


def _judged(lineage: Lineage, images: int, usages: list[_Usage], accepted: Mapping[str, _Usage]) -> tuple[str, Judged]:
    rank, name = str(lineage.rank), lineage.label

    def doubtful(why: str) -> tuple[str, Judged]:
        return "doubtful", Judged(rank, name, images, why=why)

    if not usages:
        return "unknown", Judged(rank, name, images)
    if not any(_is_of_rank(usage.rank, lineage.rank) for usage in usages):
        return doubtful(f"the catalogue knows it as a {' or a '.join(sorted({u.rank for u in usages}))}")
    certain = [usage for usage in usages if usage.status in _CERTAIN]
    if len(certain) > 1:
        return doubtful(f"a homonym: {' and '.join(sorted(_with_author(u) for u in certain))}")
    if certain:
        return "accepted", Judged(rank, name, images, name, certain[0].id)
    unsure = sorted({_UNSURE[usage.status] for usage in usages if usage.status in _UNSURE})
    targets = {usage.accepted_id for usage in usages if "synonym" in usage.status and usage.status not in _UNSURE}
    known = sorted((accepted[target] for target in targets if target in accepted), key=lambda usage: usage.name)
    if len(known) == 1 and len(targets) == 1:
        accepted_name = parse_name(known[0].name).canonical or known[0].name
        return "synonym", Judged(rank, name, images, accepted_name, known[0].id)
    if len(targets) > 1:
        return doubtful(f"a synonym of several taxa: {' and '.join(_with_author(u) for u in known)}")
    if targets:
        return doubtful("a synonym whose accepted name the catalogue does not hold")
    return doubtful(" and ".join(unsure) or f"its status is {usages[0].status or 'not stated'}")


def _with_author(usage: _Usage) -> str:
    is_inside = usage.authorship and usage.name.endswith(usage.authorship)
    return usage.name if is_inside or not usage.authorship else f"{usage.name} {usage.authorship}"


def _with_suggestion(judged: Judged, known: list[str]) -> Judged:
    nearest = process.extractOne(judged.name, sorted(set(known)), scorer=fuzz.ratio, score_cutoff=_CLOSE)
    why = f"did you mean {nearest[0]}?" if nearest else ""
    return Judged(judged.rank, judged.name, judged.images, why=why)


def rules_of(report: CatalogueReport) -> str:
    """Rules for `--fix` (YAML) that give every synonym its accepted name; a subspecies is left to its species' rule."""
    rules = [
        {"rank": judged.rank, "from": judged.name, "to": judged.accepted}
        for judged in report.synonyms
        if judged.rank != "subspecies" and judged.accepted.count(" ") == judged.name.count(" ")
    ]
    head = f"# {len(rules)} of {len(report.synonyms)} synonyms, after {Path(report.archive).name}\n"
    return head + (yaml.safe_dump({"rename": rules}, allow_unicode=True, sort_keys=False) if rules else "")
