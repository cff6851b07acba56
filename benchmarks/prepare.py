"""Time and memory of `prepare` on generated tables: rows per second from 10^5 to 10^7, opening and sampling."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
IMAGES_PER_SPECIES = 10
CHILDREN = (8, 6, 12, 15, 8, 12)
"""Children of each taxon, coarse to fine: the shape of a large tree."""


def write_table(path: Path, num_rows: int) -> None:
    """metadata.csv of `num_rows` images, ten a species: 10^7 rows name a little over 10^6 taxa."""
    with path.open("w", encoding="utf-8") as file:
        file.write("file_name,split,observation,license," + ",".join(RANKS) + "\n")
        num_species = -(-num_rows // IMAGES_PER_SPECIES)
        row = 0
        for species in range(num_species):
            names = ",".join(lineage_names(species))
            for _ in range(min(IMAGES_PER_SPECIES, num_rows - row)):
                split = "test" if row % 10 == 0 else "train"
                file.write(f"{row % 997:03d}/{row:08d}.jpg,{split},o{row // 3},CC-BY,{names}\n")
                row += 1


def lineage_names(species: int) -> list[str]:
    """Coarse to fine: each unique at its rank but the epithets, which repeat across genera as real ones do."""
    names = [letters(species % 4_000, "us")]
    position = species
    for rank, num_children in zip(RANKS[-2::-1], reversed(CHILDREN), strict=False):
        position //= num_children
        names.append(letters(position, rank[:2]).title())
    return names[::-1]


def letters(number: int, end: str) -> str:
    text = ""
    for _ in range(5):
        number, rest = divmod(number, 26)
        text += chr(97 + rest)
    return text + end


def measure(num_rows: int, folder: Path) -> dict[str, float]:
    """Run `prepare` without photographs in this process; times in seconds, memory in MB at its peak.

    `cpu_us_per_row` does not count what other programs took of the processor meanwhile.
    """
    from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare

    source, out = folder / "source", folder / "prepared"
    source.mkdir()
    write_table(source / "metadata.csv", num_rows)
    start, cpu_start = time.perf_counter(), time.process_time()
    report = prepare(source, out, PrepareSettings(verify=False), num_workers=1)
    prepared, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    assert report.images == num_rows, report.reasons
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    opened, sampled, num_taxa = open_and_sample(out)
    assert len(PreparedDataset.open(out)) == num_rows
    return {
        "rows": num_rows,
        "taxa": num_taxa,
        "prepare_s": round(prepared, 2),
        "us_per_row": round(1e6 * prepared / num_rows, 2),
        "cpu_us_per_row": round(1e6 * cpu / num_rows, 2),
        "peak_mb": round(peak),
        "open_s": opened,
        "sample_us": sampled,
    }


def open_and_sample(out: Path) -> tuple[float, float, int]:
    """In a new process: seconds until the set is open, microseconds per random row, number of taxa."""
    script = (
        "import sys, time, json, numpy as np\n"
        "from pathlib import Path\n"
        "from taxadiffusion.dataset import PreparedDataset\n"
        "start = time.perf_counter(); d = PreparedDataset.open(Path(sys.argv[1]))\n"
        "opened = time.perf_counter() - start\n"
        "rows = np.random.default_rng(0).integers(0, len(d), 2000)\n"
        "d.record(0); start = time.perf_counter()\n"
        "for row in rows: d.record(int(row))\n"
        "sampled = 1e6 * (time.perf_counter() - start) / len(rows)\n"
        "print(json.dumps([round(opened, 3), round(sampled, 1), len(d.taxonomy)]))\n"
    )
    output = subprocess.run([sys.executable, "-c", script, str(out)], check=True, capture_output=True, text=True).stdout
    opened, sampled, num_taxa = json.loads(output)
    return opened, sampled, num_taxa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # measured here, for its own peak
    parser.add_argument("--folder", type=Path, help="where tables and sets are written (default: a temporary folder)")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(json.dumps(measure(arguments.one, Path(folder))))
        return
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free / 2**30
    print(f"{free_gb:.0f} GB free where tables are written", flush=True)
    for num_rows in arguments.rows:
        command = [sys.executable, __file__, "--one", str(num_rows)]
        command += ["--folder", str(arguments.folder)] if arguments.folder else []
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
