"""A contact sheet to judge by eye: for each species test photographs, then generated images.

    python -m training.sheet --real PREPARED --generated DIR --out FILE

The photographs are other people's: keep the file to yourself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.pictures import Pictures, generated_folder, photographs
from taxadiffusion.images import image_grid
from taxadiffusion.names import Lineage, Rank

RANKS: tuple[Rank, ...] = ("order", "family", "genus", "species")
NUM_REAL, NUM_GENERATED = 4, 6
SIZE_PX = 64


def of_taxon(pictures: Pictures, taxon: Lineage, number: int) -> list[np.ndarray]:
    """The first pictures of a taxon, filled up with white where there are fewer."""
    rows = [i for i, lineage in enumerate(pictures.lineages) if lineage == taxon][:number]
    blank = np.full((3, SIZE_PX, SIZE_PX), 255, np.uint8)
    return [pictures.load(i, SIZE_PX) for i in rows] + [blank] * (number - len(rows))


def names_of(taxon: Lineage) -> Sequence[str]:
    return [f"{taxon.label}: photographs", *[""] * (NUM_REAL - 1), "generated", *[""] * (NUM_GENERATED - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="prepared data set")
    parser.add_argument("--generated", type=Path, required=True, help="folder with images and metadata.csv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    real = photographs(PreparedDataset.open(options.real), "test", RANKS)
    generated = generated_folder(options.generated, RANKS)
    taxa = [taxon for taxon in dict.fromkeys(generated.lineages) if taxon.rank == "species"]
    cells, captions = [], []
    for taxon in taxa:
        cells += of_taxon(real, taxon, NUM_REAL) + of_taxon(generated, taxon, NUM_GENERATED)
        captions += names_of(taxon)
    image_grid(cells, NUM_REAL + NUM_GENERATED, captions, cell_px=128).save(options.out)


if __name__ == "__main__":
    main()
