"""Growth: start-up, batches and tree queries against 10² … 10⁶ taxa and 10³ … 10⁷ images, latents simulated.

`python -m benchmarks.scale [--most-taxa N] [--most-images N] [--json FILE]`. What a step does besides the network: find
the rows, read latents from a memory-mapped file, draw noise, look up lineages. The network's own time knows no taxa.
"""

# Letters: N images, C latent channels, H W latent size.
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.names import taxonomy_of
from taxadiffusion.cache.files import mapped
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import Taxonomy
from taxadiffusion.trainer.loader import MicroBatches, Share
from taxadiffusion.trainer.order import Order

LATENT_SHAPE = (24, 8, 8)  # as the shipped base's at 64 px
BATCH_SIZE = 32
RANKS = ("class", "order", "family", "genus", "species")
CHILDREN = 10  # of each taxon


class SimulatedLatents:
    """Latents (N, 1, C, H, W) float16 in a sparse file: the reading of a real cache, without its disk space."""

    num_variants = 1
    latent_shape = LATENT_SHAPE

    def __init__(self, path: Path, num_images: int) -> None:
        shape = (num_images, 1, *LATENT_SHAPE)
        with path.open("wb") as file:
            file.truncate(2 * int(np.prod(shape)))
        self._map = mapped(path, shape)

    def read(self, rows: np.ndarray, variants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._map[rows, variants].astype(np.float32), np.ones(len(rows), np.bool_)


def lineages(num_taxa: int) -> Iterator[Lineage]:
    """Species of a tree of about `num_taxa` taxa, ten children a taxon."""
    for number in range(num_taxa * (CHILDREN - 1) // CHILDREN):
        names = {"species": f"species{number % 5000}"}
        for depth, rank in enumerate(RANKS[-2::-1], start=1):
            names[rank] = f"{rank.title()}{number // CHILDREN**depth}"
        yield Lineage.of(names)


def measure_taxa(num_taxa: int, folder: Path) -> dict[str, float]:
    """Reading a taxonomy and asking it; microseconds a query, seconds to open, bytes of the process at its peak."""
    path = folder / "taxonomy.parquet"
    taxonomy_of(lineages(num_taxa), RANKS).write(path)
    start = time.process_time()
    tree = Taxonomy.read(path)
    found = {"taxa": float(len(tree)), "open_s": time.process_time() - start}
    chosen = np.random.default_rng(0).integers(0, len(tree), 2000).tolist()
    tree.lineage(chosen[0])
    start = time.process_time()
    for taxon_id in chosen:
        tree.lineage(taxon_id)
    found["lineage_us"] = 1e6 * (time.process_time() - start) / len(chosen)
    start = time.process_time()
    for a, b in zip(chosen, reversed(chosen), strict=True):
        tree.lowest_common_ancestor(a, b)
    found["ancestor_us"] = 1e6 * (time.process_time() - start) / len(chosen)
    return found | _peak()


def measure_images(num_images: int, folder: Path) -> dict[str, float]:
    """Start-up up to the first batch, and the time of a batch, both of this process's processor time."""
    path = folder / "latents.f16"
    start = time.process_time()
    source = SimulatedLatents(path, num_images)
    rows = np.arange(num_images, dtype=np.int64)
    taxon_ids = np.arange(num_images, dtype=np.int32) % max(1, num_images // 10)
    order = Order.balanced(0, rows, taxon_ids, 0.5)
    batches = MicroBatches(source, order, Share.of(BATCH_SIZE, None, 0, 1))
    batches[0]
    startup = time.process_time() - start
    for number in range(1, 20):
        batches[number]
    seconds = []
    for number in range(20, 120):
        start = time.process_time()
        batches[number]
        seconds.append(time.process_time() - start)
    return {"images": float(num_images), "startup_s": startup, "batch_ms": 1e3 * float(np.median(seconds))} | _peak()


def _peak() -> dict[str, float]:
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--most-taxa", type=int, default=10**6)
    parser.add_argument("--most-images", type=int, default=10**7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NUMBER"), help="measure one size, in this process")
    args = parser.parse_args()
    if args.one:
        kind, number = args.one[0], int(args.one[1])
        with tempfile.TemporaryDirectory() as folder:
            measure = measure_taxa if kind == "taxa" else measure_images
            print(json.dumps(measure(number, Path(folder))))
        return
    found = [_in_own_process("taxa", 10**power) for power in range(2, 7) if 10**power <= args.most_taxa]
    found += [_in_own_process("images", 10**power) for power in range(3, 8) if 10**power <= args.most_images]
    for row in found:
        print("  ".join(f"{name} {value:,.6g}" for name, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def _in_own_process(kind: str, number: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--one", kind, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, float] = json.loads(done.stdout)
    return row


if __name__ == "__main__":
    main()
