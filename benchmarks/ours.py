"""Our step and our sampling as `taxadiffusion train` and `generate` run them: from caches, with their optimiser."""

# Letters: B batch, C latent channels, H W latent size.
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import RANKS, TAXA, Workload, noise_and_timesteps
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.text import rank_text
from taxadiffusion.cache import NameStates, cached_states
from taxadiffusion.condition import TaxonomyConditioner
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request, Sample, Sampler
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.settings import OptimiserSettings
from taxadiffusion.trainer.world import World

_LATENTS = "latents.f16"


def longest_name(workload: Workload) -> int:
    """Tokens of the longest name of the data: what `base.num_tokens` may be set to."""
    text = workload.plain().text
    return max(text.length(rank_text(rank, name)) for taxon in TAXA for rank, name in taxon.names)


def build_caches(workload: Workload, folder: Path, num_tokens: int | None) -> None:
    """Latents of the batch's images and states of every name, as the first minutes of a run write them."""
    backbone = workload.plain(num_tokens=num_tokens)
    backbone.encode(workload.images()).cpu().numpy().astype(np.float16).tofile(folder / _LATENTS)
    _states(folder, backbone)


def _states(folder: Path, backbone: Backbone) -> NameStates:
    known = [rank_text(rank, name) for taxon in TAXA for rank, name in taxon.names]
    texts = ["", *(rank_text(rank, None) for rank in RANKS), *known]
    return cached_states(
        folder, backbone.text_hash, backbone.num_text_tokens, backbone.width, texts, lambda: backbone.text
    )


class OurStep:
    """A training step from the caches in `folder`."""

    def __init__(self, workload: Workload, folder: Path, num_tokens: int | None = None) -> None:
        self.workload = workload
        self.backbone = workload.backbone(workload.precision, num_tokens)
        conditioner = TaxonomyConditioner(RANKS, _states(folder, self.backbone), workload.encoders)
        self.denoiser = Denoiser(self.backbone, conditioner.to(workload.device))
        shape = (workload.batch_size, *self.backbone.latent_shape_at(workload.size_px))
        self.cache = np.memmap(folder / _LATENTS, np.float16, mode="r", shape=shape)
        self.noise, self.timesteps = noise_and_timesteps(workload, self.backbone)
        self.all_lineages = workload.lineages()

    def begin(self, stage: Stage) -> None:
        self.stage = stage
        self.lineages: list[Lineage] = [lineage.truncated(stage.rank) for lineage in self.all_lineages]
        parameters = self.denoiser.prepare_stage(stage, merge_lora=True)
        self.optimiser = StageOptimiser(parameters, OptimiserSettings(), num_steps=1_000_000)

    def batch(self) -> Batch:
        latents = torch.from_numpy(self.cache.astype(np.float32)).to(self.workload.device)  # (B, C, H, W)
        return Batch(latents, self.lineages, self.noise, self.timesteps)

    def loss(self) -> Tensor:
        return self.denoiser(self.batch()).mean()

    def __call__(self) -> float:
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.reduced_norm(World())
        self.optimiser.update(0)
        self.optimiser.clear_gradients()
        return float(loss.detach())


class _EveryTime:
    """Token states straight from the text encoder."""

    def __init__(self, backbone: Backbone) -> None:
        self.width, self.num_tokens = backbone.width, backbone.num_text_tokens
        self.content_hash = backbone.text_hash
        self.encoder = backbone.text

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.encoder(texts)


class UncachedStep(OurStep):
    """Our step with both caches off: the VAE encodes the images and the text encoder the names, every time."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        self.denoiser.conditioner.states = _EveryTime(self.backbone)

    def batch(self) -> Batch:
        return Batch(self.backbone.encode(self.workload.images()), self.lineages, self.noise, self.timesteps)


def our_pictures(step: OurStep, requests: Sequence[Request], num_steps: int) -> list[Sample]:
    sampler = Sampler(step.denoiser, size_px=step.workload.size_px)
    return list(sampler(requests, num_steps=num_steps, batch_size=step.workload.sampling_batch))
