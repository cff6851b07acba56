"""Pictures of one colour a species, and networks that see it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from taxadiffusion.names import Lineage

RANKS = ("family", "genus", "species")


SPECIES: dict[Lineage, tuple[tuple[int, int, int], int]] = {  # true colour, training photographs
    Lineage.of({"family": "Rubridae", "genus": "Ruber", "species": "clarus"}): ((220, 60, 60), 30),
    Lineage.of({"family": "Rubridae", "genus": "Ruber", "species": "obscurus"}): ((150, 20, 60), 8),
    Lineage.of({"family": "Viridae", "genus": "Viridis", "species": "clarus"}): ((60, 220, 60), 12),
    Lineage.of({"family": "Viridae", "genus": "Caeruleus", "species": "clarus"}): ((60, 90, 220), 4),
}


class Colours:
    """Features: mean and spread of each channel."""

    name = "colours"
    content_hash = "c" * 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([images.mean((2, 3)), images.std((2, 3))], 1).astype(np.float32)


def paint(colour: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """An individual: its own shade of its species' colour, and a pattern."""
    shade = np.array(colour) + rng.normal(0, 8, 3)
    pixels = shade + rng.normal(0, rng.uniform(5, 15), (32, 32, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folder(folder: Path, pictures: list[tuple[Lineage, Image.Image, dict[str, str]]]) -> Path:
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["file_name", *RANKS, "seed", "split"], restval="")
        writer.writeheader()
        for i, (lineage, picture, more) in enumerate(pictures):
            picture.save(folder / f"{i:04d}.png")
            writer.writerow({"file_name": f"{i:04d}.png", **dict(lineage.names), **more})
    return folder


def fresh(folder: Path, seed: int, ranks: tuple[str, ...] = RANKS, per_taxon: int = 10, swap: bool = False) -> Path:
    """A perfect generator's folder: new individuals of every taxon; `swap` paints another species of the same genus."""
    rng = np.random.default_rng(seed)
    species = list(SPECIES)
    pictures = []
    for rank in ranks:
        for taxon in dict.fromkeys(lineage.truncated(rank) for lineage in species):
            members = [lineage for lineage in species if lineage.truncated(rank) == taxon]
            for i in range(per_taxon):
                shown = members[i % len(members)]
                if swap and shown.get("genus") == "Ruber":
                    shown = next(s for s in species if s.get("genus") == "Ruber" and s != shown)
                pictures.append((taxon, paint(SPECIES[shown][0], rng), {"seed": str(i)}))
    return write_folder(folder, pictures)


class ColourNames:
    """An image and a name in one space, as BioCLIP has it: mean colour, and true colour of the named."""

    content_hash = "n" * 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._unit(images.mean((2, 3)) - 110.0)

    def texts(self, lineages: Sequence[Lineage]) -> np.ndarray:
        members = [[c for s, (c, _) in SPECIES.items() if s.truncated(t.rank) == t] for t in lineages]
        return self._unit(np.array([np.mean(colours, axis=0) for colours in members]) - 110.0)

    @staticmethod
    def _unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
