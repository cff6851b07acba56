"""Time and memory of an evaluation against the number of pictures, up to the paper's: ten of each of 17,357 species.

`python -m benchmarks.evaluate [--sizes N ...] [--width D] [--json FILE]`. Features are drawn, not extracted: what is
measured is all that follows them, but for the search for copies, which looks at pictures (`benchmarks.copies`). Each
size is a process of its own, so that its peak memory is its own. Of N pictures of species there are N / 10 species, in
genera, families and orders as many as FishNet has for its species; ten pictures of each of those beside; 75,000
training photographs to 173,570 pictures, a long tail over the species, and a quarter as many unseen ones.
"""

# Letters: N pictures of species, D feature width.
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from taxadiffusion.evaluate.judges import Judges, JudgeSettings, fit_namers
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.naming import FIRST_JUDGE
from taxadiffusion.names import Lineage

SIZES = (1_000, 10_000, 100_000, 173_570)
RANKS = ("order", "family", "genus", "species")
WIDTH = 2048  # of Inception's features
PER_TAXON = 10
FISHNET = {"species": 17_357, "genus": 3_826, "family": 463, "order": 83}
PHOTOGRAPHS_PER_SPECIES = 75_000 / 17_357
UNSEEN_PER_SPECIES = 18_900 / 17_357
MAX_BYTES, MAX_SECONDS = 12e9, 1800.0
"""What the largest size may take, on two cores."""


@dataclass(frozen=True)
class Measured:
    """One size: pictures of all ranks, photographs, taxa, what naming was done by, and what it cost."""

    pictures: int
    of_species: int
    photographs: int
    unseen: int
    namer: str
    seconds: float
    processor_seconds: float
    peak_bytes: int
    features_bytes: int
    phases: dict[str, tuple[float, float]]
    """Seconds and processor seconds."""


def lineages(num_species: int) -> list[Lineage]:
    """Species in genera, families and orders, evenly."""
    number = {rank: max(2, round(num_species * count / FISHNET["species"])) for rank, count in FISHNET.items()}
    number["species"] = num_species
    found = []
    for species in range(num_species):
        names = {rank: f"{rank.title()}{species * number[rank] // num_species}" for rank in RANKS[:-1]}
        found.append(Lineage.of({**names, "species": f"species{species}"}))
    return found


class World:
    """Where features lie: every taxon about its parent, every image about its taxon."""

    def __init__(self, species: list[Lineage], width: int, rng: np.random.Generator) -> None:
        self._rng, self._width = rng, width
        self.centres: dict[Lineage, np.ndarray] = {Lineage(): np.zeros(width, np.float32)}
        for lineage in species:
            above = Lineage()
            for rank in lineage.ranks:
                taxon = lineage.truncated(rank)
                if taxon not in self.centres:
                    self.centres[taxon] = self.centres[above] + 0.5 * rng.standard_normal(width, np.float32)
                above = taxon

    def side(self, taxa: list[Lineage], numbers: np.ndarray, name: str) -> Side:
        """`numbers[k]` images of `taxa[k]`."""
        features = np.empty((int(numbers.sum()), self._width), np.float32)
        shown: list[Lineage] = []
        for taxon, number in zip(taxa, numbers.tolist(), strict=True):
            rows = slice(len(shown), len(shown) + number)
            features[rows] = self._rng.standard_normal((number, self._width), np.float32) + self.centres[taxon]
            shown += [taxon] * number
        files = tuple(f"{name}/{i}.png" for i in range(len(shown)))
        return Side(features, tuple(shown), files, (0,) * len(shown), _no_picture)


def _no_picture(_position: int, _size_px: int) -> np.ndarray:
    raise AssertionError("features are given: no picture is looked at")


def drawn(num_pictures: int, width: int) -> tuple[Side, Side, Side]:
    """Training photographs, unseen ones, generated pictures."""
    rng = np.random.default_rng(0)
    species = lineages(max(20, num_pictures // PER_TAXON))
    world = World(species, width, rng)
    photographs = _long_tail(round(PHOTOGRAPHS_PER_SPECIES * len(species)), len(species), rng)
    unseen = _long_tail(round(UNSEEN_PER_SPECIES * len(species)), len(species), rng)
    coarser = [taxon for taxon in world.centres if taxon and taxon.rank != "species"]
    asked = species + coarser
    return (
        world.side(species, photographs, "train"),
        world.side(species, unseen, "test"),
        world.side(asked, np.full(len(asked), PER_TAXON), "made"),
    )


def _long_tail(total: int, num_species: int, rng: np.random.Generator) -> np.ndarray:
    """(species,) numbers with this sum, one at least, in random order."""
    share = 1 / np.arange(1, num_species + 1) ** 0.7
    return rng.permutation(1 + rng.multinomial(total - num_species, share / share.sum()))


def measure(num_pictures: int, width: int) -> Measured:
    """Everything that `taxadiffusion evaluate` computes of these features."""
    train, unseen, made = drawn(num_pictures, width)
    phases: dict[str, tuple[float, float]] = {}
    started, processor = time.monotonic(), time.process_time()
    last = ("", started, processor)

    def progress(words: str) -> None:
        nonlocal last
        now, used = time.monotonic(), time.process_time()
        if last[0]:
            phases[last[0]] = now - last[1], used - last[2]
            print(
                f"{now - last[1]:9.1f} s  {used - last[2]:9.1f} s of processor  {last[0]}", file=sys.stderr, flush=True
            )
        last = words, now, used

    namers = fit_namers(train, None, None, 0, progress)
    judges = Judges(train, unseen, namers, JudgeSettings(RANKS), progress)
    scores = judges.of_method("made", made)
    real = judges.of_unseen("unseen photographs")
    progress("")
    _require_complete(scores, made)
    _require_complete(real, unseen)
    return Measured(
        pictures=len(made.files),
        of_species=num_pictures,
        photographs=len(train.files),
        unseen=len(unseen.files),
        namer=namers[FIRST_JUDGE].kind,
        seconds=time.monotonic() - started,
        processor_seconds=time.process_time() - processor,
        peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        features_bytes=sum(side.features.nbytes for side in (train, unseen, made)),
        phases=phases,
    )


def _require_complete(scores: tuple[RankScores, ...], side: Side) -> None:
    """Nothing may be fast because it was left out."""
    wanted = {
        "rank_accuracy", "error_height", "distance_to_real", "nearer_than_real", "frechet_distance",
        "kernel_distance", "precision", "recall", "density", "coverage",
    }  # fmt: skip
    for one in scores:
        missing = wanted - set(one.metrics)
        if missing or not one.taxa or not one.buckets or one.rank not in RANKS:
            raise SystemExit(f"rank {one.rank} of {len(side.files)} images lacks {missing or 'taxa or buckets'}")
    if [one.rank for one in scores] != list(RANKS):
        raise SystemExit(f"ranks {[one.rank for one in scores]} were measured, not {RANKS}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pictures of species, ten of each")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the features")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help="measure one size, in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asdict(measure(args.one, args.width))))
        return 0
    rows = []
    threads = os.environ.get("OMP_NUM_THREADS", f"all of {os.cpu_count()}")
    print(f"threads: {threads}; the largest size may take {MAX_BYTES / 1e9:g} GB and {MAX_SECONDS / 60:g} minutes")
    print("pictures (of species)   photographs   seconds   processor s   peak GB   of it features   named by")
    for size in args.sizes:
        command = [sys.executable, "-m", "benchmarks.evaluate", "--one", str(size), "--width", str(args.width)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout)
        rows.append(row)
        print(
            f"{row['pictures']:9,} ({size:,})  {row['photographs']:12,} {row['seconds']:10.1f} "
            f"{row['processor_seconds']:13.1f} {row['peak_bytes'] / 1e9:9.2f} {row['features_bytes'] / 1e9:16.2f}   "
            f"{row['namer']}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    largest = max(rows, key=lambda row: row["pictures"])
    return int(largest["peak_bytes"] > MAX_BYTES or largest["seconds"] > MAX_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
