"""Gather the pretraining corpus: real training photographs and simulated pictures, each with its phrases."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors.torch import save_file

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.images import load_image
from taxadiffusion.simulate.captions import caption
from taxadiffusion.simulate.clade import Clade
from taxadiffusion.simulate.draw import photograph
from taxadiffusion.training_record import Source, TrainingRecord, write_record
from training.captions import measure, phrases, thresholds
from training.transform import components

SIZE_PX = 64


def photographs(dataset: PreparedDataset) -> np.ndarray:
    """Every training photograph as a 64 px centre crop, uint8 (N, 3, 64, 64); test photographs are never touched."""
    rows = dataset.rows("train")
    out = np.empty((len(rows), 3, SIZE_PX, SIZE_PX), np.uint8)
    for i, row in enumerate(track(rows, "photographs")):
        image = dataset.record(int(row))
        out[i] = load_image(image.path, SIZE_PX, "crop", image.box, image.content_box)
    return out


def record_of(dataset: PreparedDataset, num_simulated: int) -> TrainingRecord:
    """What a base that learns from this corpus has seen, photograph by taxon."""
    rows = dataset.rows("train")
    taxa = Counter(dataset.lineage(int(row)).label for row in rows)
    learnt = (
        "U-Net, text encoder and the autoencoder's decoder learnt from these photographs, all but the last 128, which "
        "validated; its components and the captions' thresholds come from all of them; captions hold no taxon name"
    )
    photographs = Source(
        name=dataset.path.name, splits=("train",), num_images=len(rows), taxa=dict(sorted(taxa.items())), learnt=learnt
    )
    pictures = Source(
        name="simulated pictures of clades of seeds from 10000",
        num_images=num_simulated,
        learnt="as above; they show no taxon that lives",
    )
    return TrainingRecord(sources=(photographs, pictures))


def simulated(num_images: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Pictures of ever new simulated species, with captions from their true traits (and those of the mirror image)."""
    out = np.empty((num_images, 3, SIZE_PX, SIZE_PX), np.uint8)
    captions = []
    for i in track(range(num_images), "simulated pictures"):
        if i % 240 == 0:  # a new clade, of seeds that the demo and the tests do not use
            clade = Clade.grow(10_000 + i // 240, num_species=60)
        traits = clade.traits[i % 60]
        pose, out[i] = photograph(traits, clade.seed, i % 60, i // 60)
        mirrored = replace(pose, facing="left" if pose.facing == "right" else "right", rotation=-pose.rotation)
        captions.append((caption(traits, pose), caption(traits, mirrored)))
    return out, captions


def describe(
    images: np.ndarray, cuts: dict[str, list[float]] | None
) -> tuple[list[dict[str, str]], dict[str, list[float]]]:
    """Phrases of every picture and of its mirror image, alternating: 2 N entries."""
    measured = []
    for image in track(images, "phrases"):
        measured += [measure(image), measure(image[:, :, ::-1])]
    cuts = cuts or thresholds(measured)
    return [phrases(m, cuts) for m in measured], cuts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared data set of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--simulated", type=int, default=9600, help="number of simulated pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = PreparedDataset.open(args.dataset)
    write_record(record_of(dataset, args.simulated), args.out)
    images = photographs(dataset)
    np.save(args.out / "photographs.npy", images)
    entries, cuts = describe(images, None)
    (args.out / "photographs.json").write_text(json.dumps(entries))
    (args.out / "thresholds.json").write_text(json.dumps(cuts))
    images, captions = simulated(args.simulated)
    np.save(args.out / "simulated.npy", images)
    entries, _ = describe(images, cuts)
    for i, pair in enumerate(captions):
        entries[2 * i]["caption"], entries[2 * i + 1]["caption"] = pair
    filters, bias = components(np.concatenate([np.load(args.out / "photographs.npy")[::4], images[::24]]))
    save_file({"filters": filters, "bias": bias}, args.out / "transform.safetensors")
    (args.out / "simulated.json").write_text(json.dumps(entries))


if __name__ == "__main__":
    main()
