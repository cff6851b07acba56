"""10,000 damaged pictures in eight formats through `prepare`: python -m tests.mutated_images --report FILE."""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "MPO", "PPM")  # PPM is not allowed: always quarantined
MUTATIONS = ("none", "flip", "truncate", "zero", "insert", "header", "swap", "html", "empty", "missing")
MAX_GROWTH_MB = 512


def encoded(kind: str, random: np.random.Generator) -> bytes:
    """A small whole picture, its mode and options drawn at random."""
    width, height = (int(n) for n in random.integers(16, 160, 2))
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = random.integers(0, 256, 3)  # flat areas, so that compression has something to do
    modes = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "RGBA", "L", "P", "I;16"),
        "TIFF": ("RGB", "RGBA", "CMYK", "L"),
    }
    mode = str(random.choice(modes.get(kind, ("RGB",))))
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    options = {"progressive": bool(random.integers(2))} if kind == "JPEG" else {}
    if kind in ("GIF", "MPO"):
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated(data: bytes, mutation: str, random: np.random.Generator) -> bytes | None:
    """The damaged bytes; None where the file is to be missing."""
    array = np.frombuffer(data, np.uint8).copy()
    start = int(random.integers(len(array)))
    length = int(random.integers(1, max(2, len(array) // 4)))
    if mutation == "flip":
        places = random.integers(0, len(array), int(random.integers(1, 12)))
        array[places] ^= (1 << random.integers(0, 8, len(places))).astype(np.uint8)
    elif mutation == "truncate":
        array = array[:start]
    elif mutation == "zero":
        array[start : start + length] = 0
    elif mutation == "insert":
        array = np.concatenate([array[:start], random.integers(0, 256, length, dtype=np.uint8), array[start:]])
    elif mutation == "header":
        places = random.integers(0, min(64, len(array)), 6)
        array[places] = random.integers(0, 256, len(places), dtype=np.uint8)
    elif mutation == "swap":
        other = np.frombuffer(encoded(str(random.choice(FORMATS)), random), np.uint8)
        array = np.concatenate([array[:start], other[start:]])
    elif mutation == "html":
        return b"<!DOCTYPE html><html><body>404 Not Found</body></html>" + data[:length]
    elif mutation in ("empty", "missing"):
        return b"" if mutation == "empty" else None
    return array.tobytes()


def write_source(folder: Path, num_images: int, seed: int) -> None:
    folder.mkdir()
    with (folder / "metadata.csv").open("w", encoding="utf-8") as table:
        table.write("file_name,genus,species\n")
        for i in range(num_images):
            random = np.random.default_rng((seed, i))
            kind, mutation = FORMATS[i % len(FORMATS)], MUTATIONS[i // len(FORMATS) % len(MUTATIONS)]
            name = f"{i:05d}-{mutation}.{kind.lower()}"
            data = mutated(encoded(kind, random), mutation, random)
            if data is not None:
                (folder / name).write_bytes(data)
            table.write(f"{name},Genus,epithet\n")


def peak_mb() -> float:
    """Of this process and of the largest of its finished children, together."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def run(num_images: int, seed: int, num_workers: int) -> dict[str, object]:
    """Prepare the damaged set; raises `AssertionError` when a picture is unaccounted for or memory grew too much."""
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "source", Path(temporary) / "out"
        write_source(source, 8, seed)  # once around first: what imports and pools need is no growth
        prepare(source, out / "first", PrepareSettings(max_bad_fraction=1.0), num_workers=num_workers)
        before = peak_mb()
        source = Path(temporary) / "all"
        write_source(source, num_images, seed)
        start = time.perf_counter()
        report = prepare(source, out / "all", PrepareSettings(max_bad_fraction=1.0), num_workers=num_workers)
        seconds = time.perf_counter() - start
        dataset = PreparedDataset.open(out / "all")
        kinds = Counter(dataset.record(row).path.name.split("-")[1] for row in range(len(dataset)))
        accepted = report.images + report.duplicate_images
        result = {
            "images": num_images,
            "accepted": accepted,
            "quarantined": report.quarantined,
            "seconds": round(seconds, 1),
            "growth_mb": round(peak_mb() - before, 1),
            "accepted_by_mutation_and_format": dict(sorted(kinds.items())),
            "reasons": report.reasons,
        }
        assert accepted + report.quarantined == num_images, result
        assert peak_mb() - before < MAX_GROWTH_MB, result
        whole = [name for name in FORMATS if name != "PPM"]
        expected = {f"none.{name.lower()}" for name in whole}
        assert expected <= set(kinds) or num_images < len(FORMATS), expected - set(kinds)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", type=Path, help="where the numbers are written as JSON")
    arguments = parser.parse_args()
    result = run(arguments.num_images, arguments.seed, arguments.workers)
    text = json.dumps(result, indent=1)
    if arguments.report:
        arguments.report.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
