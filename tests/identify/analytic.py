"""A denoiser that knows its data: photographs of a taxon lie about its centre, and the best prediction is a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import Taxonomy

SHAPE = (2, 4, 4)
SPREAD = 0.3
"""Standard deviation of a photograph's latents about its species."""

SETTINGS = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
            "beta_start": 0.00085, "beta_end": 0.012}  # fmt: skip


def species(branches: Sequence[int]) -> list[Lineage]:
    """A tree of orders, families, genera and species, of so many children a node."""
    found: list[dict[str, str]] = [{}]
    for rank, number in zip(("order", "family", "genus", "species"), branches, strict=True):
        found = [
            {**above, rank: f"{''.join(name[0] for name in above)}{rank[0]}{'-'.join(list(above.values())[-1:])}{i}"}
            for above in found
            for i in range(number)
        ]
    return [Lineage.of(names) for names in found]


@dataclass
class World:
    """Where taxa lie: each about its parent, so a taxon's photographs spread as its species do."""

    centres: dict[Lineage, Tensor]
    spreads: dict[Lineage, float]

    @classmethod
    def of(cls, lineages: Sequence[Lineage], step: float = 0.5) -> World:
        """step: how far a taxon lies from its parent; the smaller, the harder are species to tell apart."""
        generator = torch.Generator().manual_seed(0)
        tips = {}
        steps: dict[Lineage, Tensor] = {Lineage(): torch.zeros(SHAPE)}
        for lineage in lineages:
            above = Lineage()
            for rank in lineage.ranks:
                taxon = lineage.truncated(rank)
                if taxon not in steps:
                    steps[taxon] = steps[above] + step * torch.randn(SHAPE, generator=generator)
                above = taxon
            tips[lineage] = steps[lineage]
        centres, spreads = {}, {}
        for taxon in steps:
            below = torch.stack(
                [tip for lineage, tip in tips.items() if str(lineage).startswith(str(taxon)) or not taxon]
            )
            centres[taxon] = below.mean(0)
            spreads[taxon] = float((SPREAD**2 + below.var(0, correction=0).mean()).sqrt())
        return cls(centres, spreads)

    def photograph(self, taxon: Lineage, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 + seed)
        return self.centres[taxon] + SPREAD * torch.randn(SHAPE, generator=generator)


class AnalyticBackbone:
    """Predicts the noise as well as can be for latents N(centre, spread²) of the condition."""

    device = torch.device("cpu")
    lora_is_merged = False

    def __init__(self) -> None:
        self.schedule = NoiseSchedule(SETTINGS)
        self.calls: list[int] = []

    def latent_shape_at(self, _size_px: int) -> tuple[int, int, int]:
        return SHAPE

    def merge_lora(self) -> None:
        pass

    def unmerge_lora(self) -> None:
        pass

    def encode(self, images: Any) -> Tensor:
        """Latents that were written as pixels, see `as_pixels`."""
        return torch.stack([as_latents(image) for image in images])

    def __call__(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        self.calls.append(len(noisy))
        states = conditions.expanded()[:, 0]
        centre, spread = states[:, :-1].reshape(-1, *SHAPE), states[:, -1].reshape(-1, 1, 1, 1)
        alpha = self.schedule.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        share = alpha.sqrt() * spread**2 / (alpha * spread**2 + 1 - alpha)
        clean = centre + share * (noisy - alpha.sqrt() * centre)
        return (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()


def as_pixels(latents: Tensor) -> np.ndarray:
    """Latents as a picture of 16 px, to 1 part in 30."""
    values = np.clip(np.round(latents.numpy() * 30 + 128), 0, 255).astype(np.uint8)  # (2, 4, 4)
    return np.stack([*values, values[0]]).repeat(4, axis=1).repeat(4, axis=2)


def as_latents(image: np.ndarray) -> Tensor:
    return (torch.as_tensor(image[:2, ::4, ::4].astype(np.float32)) - 128) / 30


class AnalyticDenoiser:
    def __init__(self, world: World) -> None:
        self.world = world
        self.backbone = AnalyticBackbone()
        self.encoded: list[Lineage] = []

    def eval(self) -> AnalyticDenoiser:
        return self

    def conditioner(self, lineages: Sequence[Lineage]) -> Tensor:
        self.encoded += lineages
        world = self.world
        rows = [torch.cat([world.centres[one].flatten(), torch.tensor([world.spreads[one]])]) for one in lineages]
        return torch.stack(rows)[:, None]


def adapter_of(lineages: Sequence[Lineage], taxonomy: Taxonomy, step: float = 0.5) -> Any:
    """What an `Identifier` reads of an adapter."""
    card = SimpleNamespace(ranks=taxonomy.ranks, image_size_px=16, recipe={}, content_hash="a" * 64)
    return SimpleNamespace(denoiser=AnalyticDenoiser(World.of(lineages, step)), taxonomy=taxonomy, card=card)


class Photographs:
    """What is read of a prepared set: rows with labels and pictures."""

    path = Path("simulated")
    content_hash = "d" * 64

    def __init__(self, world: World, shown: Sequence[Lineage], labels: Sequence[Lineage] | None = None) -> None:
        self.labels = list(labels or shown)
        self.pictures = [as_pixels(world.photograph(taxon, row)) for row, taxon in enumerate(shown)]
        self.looked_at: list[int] = []

    def rows(self, _split: str) -> np.ndarray:
        return np.arange(len(self.labels))

    def lineage(self, row: int) -> Lineage:
        return self.labels[row]

    def image(self, row: int, _size_px: int, _fit: str) -> np.ndarray:
        self.looked_at.append(row)
        return self.pictures[row]

    def record(self, row: int) -> Any:
        return SimpleNamespace(path=Path(f"{row}.png"), split="test")
