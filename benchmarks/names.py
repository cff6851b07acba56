"""`python -m benchmarks.names`: time and memory of look-ups among many names, and of names read against a catalogue."""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prepare import letters
from taxadiffusion.dataset.catalogue import read_against
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import Taxonomy, TaxonomyBuilder, find_taxon

SPECIES_PER_GENUS = 20
REMARKS = "a remark as long as those of real catalogues, which carry references and links beside every name"


def taxonomy_of(lineages: Iterable[Lineage], ranks: tuple[Rank, ...]) -> Taxonomy:
    builder = TaxonomyBuilder(ranks)
    for lineage in lineages:
        builder.add(lineage)
    return builder.finish()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=100_000, help="species a model knows")
    parser.add_argument("--catalogue", type=int, default=1_000_000, help="names in the catalogue")
    parser.add_argument("--asked", type=int, default=2_000, help="species of the data set that is read against it")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {"look_up": look_up(args.known), "catalogue": catalogue(args.catalogue, args.asked)}
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def species(number: int) -> Lineage:
    return Lineage.of(
        {"genus": letters(number // SPECIES_PER_GENUS, "us").title(), "species": letters(number, "ensis")}
    )


def look_up(num_species: int) -> dict[str, float]:
    """Seconds of the first look-up, which builds the index, and of later ones."""
    taxonomy = taxonomy_of(map(species, range(num_species)), ("genus", "species"))
    label = species(num_species - 1).label
    names = {
        "first": label,
        "known": label,
        "with_author": f"{label} (Linnaeus, 1758)",
        "misspelt": f"X{label.lower()}",
    }
    return {"num_species": num_species, **{key: seconds(find_taxon, taxonomy, name) for key, name in names.items()}}


def catalogue(num_names: int, num_asked: int) -> dict[str, float]:
    """Seconds and peak memory of `read_against`: every third name is a synonym, and fifty asked for are unknown."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "NameUsage.tsv"
        write_names(path, num_names)
        asked = [species(number) for number in range(0, num_names, max(1, num_names // num_asked))]
        unknown = [Lineage.of({"genus": str(one.get("genus")), "species": "novus"}) for one in asked[:50]]
        taxonomy = taxonomy_of([*asked, *unknown], ("genus", "species"))
        before = peak_mb()
        taken = seconds(read_against, taxonomy, np.ones(len(taxonomy), np.int64), path.parent)
        megabytes = path.stat().st_size / 1e6
    return {
        "num_names": num_names,
        "table_mb": megabytes,
        "seconds": taken,
        "peak_mb_before": before,
        "peak_mb": peak_mb(),
    }


def write_names(path: Path, num_names: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("col:ID\tcol:parentID\tcol:status\tcol:scientificName\tcol:authorship\tcol:rank\tcol:remarks\n")
        for number in range(num_names):
            status = "synonym" if number % 3 == 1 else "accepted"
            name = species(number).label
            file.write(f"{number}\t{max(0, number - 1)}\t{status}\t{name}\t(Linnaeus, 1758)\tspecies\t{REMARKS}\n")


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    with contextlib.suppress(DataError):  # a misspelt name: the error holds the suggestion
        work(*arguments)
    return round(time.perf_counter() - start, 4)


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
