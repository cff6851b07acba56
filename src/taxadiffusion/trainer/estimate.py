"""What a stage costs, measured: a few steps of it on random latents, before anything is computed or written."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from taxadiffusion.base.transfer import memory_faults
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.settings import LoopSettings
from taxadiffusion.trainer.world import World

_NUM_TIMED = 2

FEWER = (
    "set training.micro_batch_size lower (the same step in more passes), training.gradient_checkpointing=true, or "
    "base.dtype=bfloat16"
)


@dataclass(frozen=True, slots=True)
class StageCost:
    stage: str
    num_steps: int
    num_trained: int  # parameters
    seconds_per_step: float
    peak_bytes: int  # of the process on a CPU, of the device on a GPU, so far

    @property
    def seconds(self) -> float:
        return self.num_steps * self.seconds_per_step


def stage_cost(
    denoiser: Denoiser,
    stage: Stage,
    settings: LoopSettings,
    taxa: Sequence[Lineage],
    latent_shape: tuple[int, int, int],
    num_processes: int = 1,
) -> StageCost:
    """Time of one step and peak memory, from one warm-up and two timed steps. Weights are put back as they were."""
    training = settings.training
    size = training.micro_batch_size or max(1, training.batch_size // num_processes)
    device = denoiser.backbone.device
    trained = denoiser.prepare_stage(stage, merge_lora=training.merge_lora)
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimiser = StageOptimiser(trained, settings.optimiser, stage.num_steps)
    lineages = [taxa[index % len(taxa)].truncated(stage.rank) for index in range(size)]
    noise = torch.randn(size, *latent_shape, generator=torch.Generator().manual_seed(0)).to(device)
    levels = denoiser.backbone.schedule.timesteps_of(torch.linspace(0, 0.999, size)).to(device)
    seconds = 0.0
    for number in range(1 + _NUM_TIMED):
        started = time.perf_counter()
        with memory_faults(f"{size} samples at once in stage {stage.name}", FEWER):
            denoiser(Batch(noise, lineages, noise, levels)).mean().backward()
        passed = time.perf_counter()
        optimiser.reduced_norm(World())
        optimiser.update(0)
        optimiser.clear_gradients()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            accumulation = training.batch_size / (size * num_processes)
            seconds += ((passed - started) * accumulation + time.perf_counter() - passed) / _NUM_TIMED
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(before[name])
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    num_trained = sum(parameter.numel() for parameter in trained.values())
    return StageCost(stage.name, stage.num_steps, num_trained, seconds, peak)
