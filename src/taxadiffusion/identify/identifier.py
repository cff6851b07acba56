"""A model that names photographs: a lineage down to the rank that the evidence carries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.adapter import Adapter
from taxadiffusion.identify.calibration import Calibration
from taxadiffusion.identify.known_tree import KnownTree
from taxadiffusion.identify.losses import EVENLY, ConditionLosses, DrawSettings
from taxadiffusion.identify.walk import AS_USUAL, Evidence, Walk, WalkSettings, walk
from taxadiffusion.images import FITS, Fit, load_image
from taxadiffusion.names import Lineage, Rank


@dataclass(frozen=True, slots=True)
class Named:
    """One name of the answer. probability: that it and all above are right; None where it is not calibrated."""

    rank: Rank
    name: str
    evidence: Evidence
    probability: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The best lineage, and how much of it the evidence carries."""

    taxon: int | None
    lineage: Lineage
    names: tuple[Named, ...]
    num_predictions: int
    seconds: float

    def carried(self, least: float, separation: float) -> Lineage:
        """Down to the finest rank of probability `least`; uncalibrated, while each name is ahead by `separation`."""
        depth: Rank | None = None
        for named in self.names:
            sure = named.probability >= least if named.probability is not None else (
                named.evidence.standard_errors > separation
            )  # fmt: skip
            if not sure:
                break
            depth = named.rank
        return self.lineage.truncated(depth) if depth else Lineage()


class Identifier:
    """Names photographs with an opened model. Within `at_work` the LoRA is merged, which is faster."""

    def __init__(
        self,
        adapter: Adapter,
        settings: WalkSettings = AS_USUAL,
        draws: DrawSettings = EVENLY,
        calibration: Calibration | None = None,
        batch_size: int = 64,
    ) -> None:
        self.adapter = adapter
        self.settings = settings
        self.calibration = calibration
        self.tree = KnownTree(adapter.taxonomy, adapter.card.ranks)
        self.size_px = adapter.card.image_size_px
        self.losses = ConditionLosses(adapter.denoiser, self.size_px, draws, batch_size)
        self.way = {
            "separation": f"{settings.separation:g}",
            "draws": f"{settings.draws[0]}-{settings.draws[1]}",
            "beam": str(settings.beam),
            "asked": f"{settings.most_asked} tips, log",
            "noise_levels": f"{draws.noise_levels[0]:g}-{draws.noise_levels[1]:g}",
            "seed": str(draws.seed),
        }
        """All that decides an answer beside model and photograph."""

    @property
    def fit(self) -> Fit:
        """How the model's training photographs became squares."""
        stated = self.adapter.card.recipe.get("data.fit", "crop")
        return stated if stated in FITS else "crop"  # type: ignore[return-value]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The weights as they are faster to predict with; afterwards as before, bit for bit."""
        backbone = self.adapter.denoiser.backbone
        merged = backbone.lora_is_merged
        backbone.merge_lora()
        try:
            yield
        finally:
            if not merged:
                backbone.unmerge_lora()

    def load(self, path: Path) -> NDArray[np.uint8]:
        """A photograph's file as the model sees it: uint8 (3, size, size). Raises `ImageError`."""
        return load_image(path, self.size_px, self.fit)

    def walk(self, image: NDArray[np.uint8], label: int | None = None) -> Walk:
        """Of a photograph, uint8 (3, size, size)."""
        latents = self.adapter.denoiser.backbone.encode(image[None])[0]
        return walk(
            self.tree, lambda lineages, draws: self.losses(latents, lineages, draws), self.settings, label=label
        )

    def __call__(self, image: NDArray[np.uint8]) -> Answer:
        """The answer for a photograph, uint8 (3, size, size)."""
        start, before = time.perf_counter(), self.losses.num_predictions
        way = self.walk(image)
        evidence = [(self.tree.rank(taxon), way.evidence(taxon)) for taxon in way.path]
        known = self.calibration.probabilities(evidence) if self.calibration else [None] * len(evidence)
        names = tuple(
            Named(rank, self.adapter.taxonomy.name(taxon), one, probability)
            for taxon, (rank, one), probability in zip(way.path, evidence, known, strict=True)
        )
        taxon = way.path[-1] if way.path else None
        lineage = Lineage() if taxon is None else self.tree.lineage(taxon)
        return Answer(taxon, lineage, names, self.losses.num_predictions - before, time.perf_counter() - start)
