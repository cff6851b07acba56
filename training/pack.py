"""Pack pictures for pretraining: 128 px photographs of a prepared data set, or simulated ones, with measured phrases.

    python -m training.pack photographs prepared/butterflies work/packs --name butterflies
    python -m training.pack photographs prepared/reef-fish work/packs --name fish
    python -m training.pack simulated work/packs --number 5000

Split `judge` is never packed, nor the training photographs of taxa that have ten or fewer: what a model makes of these
it learns from their relatives or from those few. `val` and `test` photographs are only held out. Each pack says what
it shows in `NAME.seen.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from loky import get_reusable_executor
from numpy.typing import NDArray
from rich.progress import track

from taxadiffusion.base.training_record import Source
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.simulate.captions import caption
from taxadiffusion.simulate.clade import Clade
from taxadiffusion.simulate.draw import photograph
from training.captions import measure
from training.command import run
from training.packs import SIMULATED, webp, write_pack

SIZE_PX, MEASURED_PX = 128, 64
MOST_OF_A_RARE_TAXON = 10
CHUNK = 128
MOTHS = frozenset({"Erebidae", "Noctuidae", "Saturniidae", "Sphingidae", "Uraniidae", "Yponomeutidae", "Zygaenidae"})
FIRST_SEED = 10_000
"""Of the simulated clades: seeds that neither the demo nor the tests use."""
SPECIES_A_CLADE, PICTURES_A_CLADE = 60, 240


def noun(lineage: Lineage) -> str:
    """What captions call it: they hold no taxon name."""
    if lineage.get("order") == "Lepidoptera":
        return "moth" if lineage.get("family") in MOTHS else "butterfly"
    return "fish" if lineage.get("class") == "Actinopterygii" else "animal"


def both_measured(small: NDArray[np.uint8]) -> list[dict[str, object]]:
    """What the pixels of (3, 64, 64) say, and those of the mirror image."""
    return [dataclasses.asdict(measure(view)) for view in (small, small[:, :, ::-1])]


def chosen(dataset: PreparedDataset) -> list[int]:
    """Rows that go into a pack. Raises `DataError` where no training photograph is left."""
    train = dataset.rows("train")
    counts = Counter(dataset.taxon_ids(train).tolist())
    common = [int(row) for row, taxon in zip(train, dataset.taxon_ids(train), strict=True)
              if counts[int(taxon)] > MOST_OF_A_RARE_TAXON]  # fmt: skip
    if not common:
        raise DataError(f"{dataset.path}: no taxon has more than {MOST_OF_A_RARE_TAXON} training photographs")
    held = [int(row) for split in ("val", "test") for row in dataset.rows(split)]
    return sorted(common + held)


def packed(dataset: PreparedDataset, rows: Sequence[int]) -> list[tuple[bytes, dict[str, object]]]:
    """Each photograph as `prepare` cut it: its bytes at 128 px and its row of the pack."""
    found = []
    for row in rows:
        measured = both_measured(dataset.image(row, MEASURED_PX))
        values = {"noun": noun(dataset.lineage(row)), "split": dataset.record(row).split, "measured": measured}
        found.append((webp(dataset.image(row, SIZE_PX)), values))
    return found


def seen(dataset: PreparedDataset, rows: Sequence[int]) -> Source:
    """What a base that learns from these rows has seen."""
    train = [row for row in rows if dataset.record(row).split == "train"]
    taxa = Counter(dataset.lineage(row).label for row in train)
    learnt = "U-Net, text encoder, codec, decoder and visual words learnt from these photographs; captions hold no name"
    return Source(
        name=dataset.path.name, splits=("train",), num_images=len(train), taxa=dict(sorted(taxa.items())), learnt=learnt
    )


def write_seen(source: Source, folder: Path, name: str) -> None:
    (folder / f"{name}.seen.json").write_text(json.dumps(source.model_dump(mode="json"), indent=1, ensure_ascii=False))


def pack_photographs(dataset: PreparedDataset, out: Path, name: str, num_processes: int | None = None) -> int:
    """→ how many pictures the pack holds."""
    rows = chosen(dataset)
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    if num_processes == 1:
        parts = [packed(dataset, chunk) for chunk in chunks]
    else:
        pool = get_reusable_executor(num_processes)
        parts = list(track(pool.map(partial(packed, dataset), chunks), "photographs", total=len(chunks)))
    pairs = [pair for part in parts for pair in part]
    write_pack(out, name, [blob for blob, _ in pairs], [values for _, values in pairs])
    write_seen(seen(dataset, rows), out, name)
    return len(rows)


def pack_simulated(number: int, out: Path) -> int:
    """Pictures of ever new simulated species at 64 px, with captions from their true traits, mirrored too."""
    blobs, rows = [], []
    for i in track(range(number), "simulated pictures"):
        if i % PICTURES_A_CLADE == 0:
            clade = Clade.grow(FIRST_SEED + i // PICTURES_A_CLADE, num_species=SPECIES_A_CLADE)
        species = i % SPECIES_A_CLADE
        traits = clade.traits[species]
        pose, image = photograph(traits, clade.seed, species, i // SPECIES_A_CLADE)
        facing = "left" if pose.facing == "right" else "right"
        mirrored = dataclasses.replace(pose, facing=facing, rotation=-pose.rotation)
        blobs.append(webp(image, quality=88))
        captions = [caption(traits, pose), caption(traits, mirrored)]
        rows.append({"noun": "fish", "split": "train", "measured": both_measured(image), "captions": captions})
    write_pack(out, SIMULATED, blobs, rows)
    name = f"simulated pictures of clades of seeds from {FIRST_SEED}"
    write_seen(Source(name=name, num_images=number, learnt="they show no taxon that lives"), out, SIMULATED)
    return number


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    real = kinds.add_parser("photographs")
    real.add_argument("dataset", type=Path, help="a prepared data set")
    real.add_argument("out", type=Path)
    real.add_argument("--name", required=True, help="butterflies or fish, which have shares of their own; or another")
    drawn = kinds.add_parser("simulated")
    drawn.add_argument("out", type=Path)
    drawn.add_argument("--number", type=int, default=5000)
    args = parser.parse_args()
    if args.kind == "simulated":
        print(f"{pack_simulated(args.number, args.out)} simulated pictures in {args.out}")
    else:
        print(f"{pack_photographs(PreparedDataset.open(args.dataset), args.out, args.name)} photographs in {args.out}")


if __name__ == "__main__":
    run(command)
