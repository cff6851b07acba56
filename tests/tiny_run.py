"""A whole training run in miniature: a random base, data whose latents spell their row, milliseconds a step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion import checkpoint
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.condition import TaxonomySettings
from taxadiffusion.condition.methods import build_conditioner, method_named
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.stages import plan
from taxadiffusion.trainer.gradients import TrainingData
from taxadiffusion.trainer.history import Identity, RunFolder
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.settings import LoopSettings
from tests.scratch import shared_scratch
from tests.tiny_base import WIDTH, write_tiny_base

RANKS = ("order", "family", "genus")
NUM_ROWS = 40
LATENT_SHAPE = (4, 8, 8)


def lineage_of(taxon_id: int) -> Lineage:
    """Taxon id → a lineage that spells it."""
    return Lineage.of({"order": f"O{taxon_id % 2}", "family": f"F{taxon_id % 4}", "genus": f"G{taxon_id}"})


NUM_TAXA = 8
TAXON_IDS = (np.arange(NUM_ROWS + 8) % NUM_TAXA).astype(np.int32)


def oracle_latents(rows: NDArray[np.int64], variants: NDArray[np.int64]) -> NDArray[np.float32]:
    """Latents that spell their row (element 0), taxon (element 1) and variant (element 2)."""
    latents = np.zeros((len(rows), *LATENT_SHAPE), dtype=np.float32)
    latents[:] = np.sin(np.arange(256, dtype=np.float32).reshape(LATENT_SHAPE) * (1 + rows[:, None, None, None] % 7))
    latents[:, 0, 0, 0] = rows
    latents[:, 0, 0, 1] = TAXON_IDS[rows]
    latents[:, 0, 0, 2] = variants
    latents[:, 0, 0, :3] /= 64
    return latents


@dataclass
class OracleSource:
    """Latents from nowhere; `unreadable` rows cannot be read, `poisoned` ones are NaN."""

    num_variants: int = 2
    unreadable: tuple[int, ...] = ()
    poisoned: tuple[int, ...] = ()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return LATENT_SHAPE

    def read(
        self, rows: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        latents = oracle_latents(rows, variants)
        readable = ~np.isin(rows, self.unreadable)
        latents[~readable] = 0
        latents[np.isin(rows, self.poisoned)] = np.nan
        return latents, readable


class MemoStates:
    """Token states of every text, made from the text's hash: no text encoder."""

    width = WIDTH
    num_tokens = 6
    content_hash = "memo"

    def __init__(self) -> None:
        self.known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if text not in self.known:
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
                self.known[text] = torch.randn(self.num_tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
        return torch.stack([self.known[text] for text in texts])


@cache
def tiny_base() -> Path:
    """A base whose U-Net is one cross-attention block deep."""
    path, is_new = shared_scratch("TAXADIFFUSION_TINY_BASE", "tiny-base-")
    if not is_new:
        return path
    write_tiny_base(path, "epsilon")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            mid_block_type=None,
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    unet.save_pretrained(path / "unet")
    return path


def tiny_denoiser(*, dropout: float = 0.1) -> Denoiser:
    backbone = Backbone.load(str(tiny_base()))
    backbone.add_lora(LoRASettings(rank=2, alpha=2))
    settings = TaxonomySettings(num_layers=1, num_heads=2, feed_forward=16, dropout=dropout)
    taxa = [lineage_of(taxon_id) for taxon_id in range(NUM_TAXA)]
    return Denoiser(backbone, build_conditioner(settings, RANKS, MemoStates(), taxa))


def tiny_data(source: OracleSource | None = None) -> TrainingData:
    rows = np.arange(NUM_ROWS, dtype=np.int64)
    held_out = np.arange(NUM_ROWS, NUM_ROWS + 8, dtype=np.int64)
    return TrainingData(source or OracleSource(), rows, held_out, TAXON_IDS, lineage_of, RANKS)


IDENTITY = Identity({"data": "d", "taxonomy": "t", "base": "b"}, {"seed": 0}, "c", {"torch": torch.__version__})

SETTINGS: Mapping[str, Any] = {
    "training": {"batch_size": 8, "micro_batch_size": 4, "timesteps": "uniform", "balance": 0.5},
    "optimiser": {"learning_rate": 1e-2, "warmup_steps": 2, "schedule": "cosine", "ema_decay": 0.9},
    "checkpoint": {"every_steps": 3},
    "validation": {"every_steps": 4, "num_samples": 8},
}


def loop_settings(**changes: Any) -> LoopSettings:
    """The settings of tests; `training={"batch_size": 4}` changes one key of a section."""
    merged: dict[str, Any] = {key: dict(value) for key, value in SETTINGS.items()}
    for key, value in changes.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, Mapping) else value
    return LoopSettings.model_validate(merged)


def write_marker(path: Path) -> None:
    """An adapter in miniature."""
    path.mkdir()
    (path / "adapter.json").write_text("{}")


def tiny_trainer(
    run_dir: Path,
    *,
    steps: int = 5,
    strategy: Any = "progressive",
    source: OracleSource | None = None,
    settings: LoopSettings | None = None,
    identity: Identity = IDENTITY,
    denoiser: Denoiser | None = None,
    **options: Any,
) -> Trainer:
    run_dir.mkdir(parents=True, exist_ok=True)
    together = strategy == "lora_in_every_stage"
    stages = plan(method_named("progressive" if together else strategy), RANKS, steps, lora_in_every_stage=together)
    data = replace(tiny_data(source), in_worker=options.pop("in_worker", None))
    folder = RunFolder(run_dir, identity, write_marker, options.pop("allow_change", ()))
    return Trainer(
        denoiser or tiny_denoiser(),
        stages,
        data,
        settings or loop_settings(),
        folder,
        **options,
    )


def state_hash(run_dir: Path) -> str:
    """One hash of everything the newest commit holds: parameters, moments, average, progress."""
    committed = checkpoint.latest(run_dir)
    assert committed is not None
    entries = {name: entry.sha256 for name, entry in committed.manifest.files.items() if name != "settings.json"}
    return hashlib.sha256(repr((committed.manifest.step, sorted(entries.items()))).encode()).hexdigest()
