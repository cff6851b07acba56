"""Settings of the loop: typed, frozen, unknown keys fail. Defaults are the paper's (docs/method.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taxadiffusion.sections import SettingsSection, free

TrackerName = Literal["tensorboard", "wandb"]


class OptimiserSettings(SettingsSection):
    """AdamW, begun anew in every stage."""

    learning_rate: float = Field(default=1e-4, gt=0, description="paper: 1e-4")
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="within a stage (paper: constant)")
    warmup_steps: int = Field(default=0, ge=0, description="linear rise at the start of each stage")
    final_fraction: float = Field(default=0.0, ge=0, le=1, description="cosine: share of the rate at a stage's end")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="of AdamW (paper)")
    weight_decay: float = Field(default=1e-2, ge=0, description="of AdamW (paper: 1e-2)")
    clip_norm: float = Field(default=1.0, gt=0, description="largest gradient norm (paper: 1)")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="moving average that a stage ends on; none: off (paper)"
    )


class TrainingSettings(SettingsSection):
    """What a step sees."""

    batch_size: int = Field(default=32, ge=1, description="samples of one optimizer step, over all processes")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="samples of one forward pass; the rest accumulates; none: batch_size / processes",
    )
    condition_dropout: float = Field(default=0.1, ge=0, lt=1, description="samples that train the null, first stage")
    condition_dropout_later: float = Field(default=0.0, ge=0, lt=1, description="the same, later stages")
    rank_dropout: float = Field(
        default=5 / 21, ge=0, le=1, description="samples that draw a rank to drop (paper: 5/21)"
    )
    truncation: float = Field(default=0.0, ge=0, lt=1, description="of the others, samples cut at a coarser rank")
    timesteps: Literal["uniform", "stratified"] = Field(default="uniform", description="drawn singly (paper) or spread")
    min_snr_gamma: float | None = Field(default=None, gt=0, description="min-SNR weight (Hang et al. 2023); none: off")
    balance: float = Field(default=0.0, ge=0, le=1, description="0: by images (paper), 0.5: by square root, 1: by taxa")
    merge_lora: bool = Field(default=True, description="add a LoRA to its weights while it is frozen: faster")
    gradient_checkpointing: bool = free(
        False, "keep few activations and compute the others once more: same gradients, less memory, a third slower"
    )
    max_refused_steps: int = Field(default=5, ge=1, description="non-finite steps in a row that end the run (exit 70)")
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1, description="bad images that end the run (exit 3)")


class CheckpointSettings(SettingsSection):
    every_steps: int = free(500, "optimizer steps between commits", ge=1)
    keep_last: int = free(2, "commits to keep", ge=1)
    keep_weaker: bool = free(False, "also keep the commit that the last stage begins from, to guide away from it")


class ValidationSettings(SettingsSection):
    every_steps: int = free(0, "optimizer steps between validations; 0: never", ge=0)
    num_samples: int = free(256, "held-out images; the same ones with the same noise each time", ge=1)


class PreviewSettings(SettingsSection):
    every_steps: int = free(0, "optimizer steps between preview grids; 0: at the end of each stage alone", ge=0)
    num_taxa: int = free(8, "taxa in a grid; 0: no grids", ge=0)
    num_steps: int = free(15, "sampling steps", ge=1)
    guidance_scale: float = free(6.0, "1: none")


class Seeded(SettingsSection):
    seed: int = Field(default=0, ge=0, lt=2**63, description="of everything random")


class LoopSettings(Seeded):
    """All that `Trainer` reads; a run's settings (`config.Settings`) are these and more."""

    num_workers: int = free(0, "loader processes; 0: load in the training process", ge=0)
    optimiser: OptimiserSettings = OptimiserSettings()
    training: TrainingSettings = TrainingSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    validation: ValidationSettings = ValidationSettings()
    preview: PreviewSettings = PreviewSettings()
