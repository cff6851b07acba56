"""What the package ships, in miniature: a random base and a model on it, in the places of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from taxadiffusion.adapter import save_adapter
from taxadiffusion.base import weights
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.names import Lineage
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

RANKS = ("order", "family", "genus", "species")


def ship_tiny(folder: Path, model: str, species: Sequence[str], size_px: int, patch: pytest.MonkeyPatch) -> None:
    """From now on `folder` is where shipped weights are looked for: the base and `model`, which knows the species."""
    patch.setattr(weights, "shipped", lambda name: folder / name)
    if not (folder / SHIPPED_BASE).exists():
        write_tiny_base(folder / SHIPPED_BASE, "epsilon")
    lineages = []
    for binomial in species:
        genus, epithet = binomial.split()
        lineages.append(
            Lineage.of({"order": "Perciformes", "family": f"{genus}idae", "genus": genus, "species": epithet})
        )
    taxonomy = taxonomy_of(lineages, RANKS)
    denoiser = make(Path(SHIPPED_BASE), ranks=RANKS, taxonomy=taxonomy)
    save_adapter(folder / model, denoiser, taxonomy, recipe={}, read_me="# Fish\n", image_size_px=size_px)
