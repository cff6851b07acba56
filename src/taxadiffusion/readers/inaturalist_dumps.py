"""The iNaturalist Open Data dumps: photos × observations × taxa, joined on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.names import RANKS, Lineage, Rank, parse_name, written_name
from taxadiffusion.readers.disk_index import DiskIndex, KeyedRow
from taxadiffusion.readers.record import Record, Rejected, path_fault
from taxadiffusion.readers.table import Row, Table


@dataclass(frozen=True)
class DumpTables:
    photos: Path
    observations: Path
    taxa: Path


def dump_tables(folder: Path) -> DumpTables | None:
    """The three tables (.csv or .csv.gz, tab-separated) of a dump folder; None where one is missing."""
    if not folder.is_dir():
        return None
    found = {
        stem: next((path for suffix in (".csv", ".csv.gz") if (path := folder / f"{stem}{suffix}").is_file()), None)
        for stem in ("photos", "observations", "taxa")
    }
    if (photos := found["photos"]) and (observations := found["observations"]) and (taxa := found["taxa"]):
        return DumpTables(photos, observations, taxa)
    return None


class OpenData:
    """One record per photo; the observation is the group, the identification's grade is kept in `qualifier`.

    Rows of the other two tables that cannot be read are rejected rows too.
    """

    name = "inaturalist"

    def __init__(self, tables: DumpTables, root: Path, size: str, ranks: tuple[Rank, ...]) -> None:
        self.root = root
        self.ranks = ranks
        self.counts: Counter[str] = Counter()
        self._tables = tables
        self._size = size

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.counts.clear()
        rows = list(_dump(self._tables.taxa))
        yield from (row for row in rows if isinstance(row, Rejected))
        taxa = Taxa(row for row in rows if not isinstance(row, Rejected))
        del rows
        with DiskIndex() as index:
            yield from index.fill(_dump(self._tables.observations), _observation)
            for row in _dump(self._tables.photos):
                yield row if isinstance(row, Rejected) else self._record(row, index, taxa)

    def _record(self, row: Row, index: DiskIndex, taxa: Taxa) -> Record | Rejected:
        source, photo_id, uuid = self._tables.photos.name, row.get("photo_id"), row.get("observation_uuid")
        image = f"photos/{photo_id}/{self._size}.{row.get('extension')}"
        if fault := path_fault(image) if photo_id and row.get("extension") else "photo_id or extension is empty":
            return Rejected(source, row.number, photo_id, fault)
        found = index.get(uuid)
        if found is None:
            return Rejected(source, row.number, uuid, f"its observation is not in {self._tables.observations.name}")
        taxon_id, grade = found
        lineage = taxa.lineage(taxon_id)
        if lineage is None:
            return Rejected(source, row.number, taxon_id, f"its taxon is not in {self._tables.taxa.name}")
        whole = lineage
        if not (lineage := lineage.only(self.ranks)):
            return Rejected(source, row.number, taxon_id, "its taxon lies above every rank of the data set")
        self.counts[f"grade_{grade or 'missing'}"] += 1
        return Record(
            image=image,
            lineage=lineage,
            source=source,
            row=row.number,
            group=uuid,
            source_id=row.get("photo_uuid") or photo_id,
            license=row.get("license") or None,
            rights_holder=row.get("observer_id") or None,
            qualifier=None if grade == "research" else grade or None,
            source_taxon_id=taxon_id if lineage == whole else None,
        )


class Taxa:
    """taxa.csv: each taxon's own rank and name, and its ancestors' ids joined by "/" (or "\\", as the README says)."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._own: dict[str, tuple[str, str, str]] = {
            row.get("taxon_id"): (row.get("ancestry"), row.get("rank"), row.get("name")) for row in rows
        }
        self._lineages: dict[str, Lineage | None] = {}

    def lineage(self, taxon_id: str) -> Lineage | None:
        """Names of the taxon and of those ancestors the table lists; None for an unknown id."""
        if taxon_id not in self._lineages:
            self._lineages[taxon_id] = self._build(taxon_id)
        return self._lineages[taxon_id]

    def _build(self, taxon_id: str) -> Lineage | None:
        if taxon_id not in self._own:
            return None
        names: dict[Rank, str] = {}
        for ancestor in (*self._own[taxon_id][0].replace("\\", "/").split("/"), taxon_id):
            if ancestor in self._own:
                _, rank, name = self._own[ancestor]
                names.update(_named(rank, name))
        return Lineage.of(names)


def _named(rank: str, name: str) -> dict[Rank, str]:
    """One ancestor's contribution: a species gives its genus and epithet, a hybrid or form nothing below them."""
    if rank in ("species", "subspecies", "hybrid", "variety", "form"):
        parsed = parse_name(written_name(name).text)
        if parsed.genus is None:
            return {}
        parts: dict[Rank, str] = {"genus": parsed.genus}
        if parsed.epithet:
            parts["species"] = parsed.epithet
        if rank == "subspecies" and parsed.infraspecific:
            parts["subspecies"] = parsed.infraspecific[-1]
        return parts
    return {rank: name} if rank in RANKS else {}


def _dump(path: Path) -> Table:
    return Table(path, delimiter="\t", quoted=False)


def _observation(row: Row) -> list[KeyedRow]:
    return [(row.get("observation_uuid"), (row.get("taxon_id"), row.get("quality_grade")))]
