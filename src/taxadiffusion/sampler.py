"""Requests (lineage, seed) → images, in full batches."""

# Letters: B pictures of a batch, M predictions of a step (one a picture and condition), C latent channels, H W size.
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion.base.device import described
from taxadiffusion.base.noise import SamplerName
from taxadiffusion.base.onnx import EngineName
from taxadiffusion.base.transfer import memory_faults, moved, multiplies_in_bfloat16
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.guidance import combined
from taxadiffusion.names import Rank
from taxadiffusion.request import (
    NO_GUIDANCE,
    Mix,
    Predictions,
    Request,
    conditions_of,
    gathered,
    gathered_weaker,
    target,
    terms,
)

__all__ = ["BLANK_LEVELS", "NO_GUIDANCE", "Request", "Sample", "Sampler", "Weaker", "seeded"]

_TWISTER = slice(24, 24 + 8 * 624)
"""Where the state of a generator on the CPU holds the Mersenne Twister's 624 words of 32 bits, in 64 each."""

BLANK_LEVELS = 2
"""A picture whose channels each span at most this many of 256 levels is blank."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what was asked for."""

    request: Request
    image: NDArray[np.uint8]  # (3, h, w)


@dataclass(frozen=True, slots=True, eq=False)
class Weaker:
    """A model of the same base that guidance is away from. rank: where its conditions are cut, if they are."""

    denoiser: Denoiser
    rank: Rank | None = None


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU whose numbers follow from all bits of `seed`, 0 … 2⁶³ - 1.

    `manual_seed` reads 32 of them, so of a hundred thousand pictures with seeds of their own some would share noise. Up
    to 32 bits the numbers are those of `manual_seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    if seed >> 32:
        state = generator.get_state()
        words = state.numpy()[_TWISTER].view(np.uint64)
        words[:] = np.random.MT19937(seed).state["state"]["key"]
        generator.set_state(state)
    return generator


class Sampler:
    """Makes pictures (F11) with any diffusers scheduler over the base's noise schedule (default DPM-Solver++).

    A picture is a function of its request, not of its neighbours: the initial noise comes from a generator of the
    request's seed, so alone and in a batch differ by rounding only (at most 2 of 256 levels in float32 on a CPU).
    engine: what predicts. "onnxruntime" is faster on a CPU and differs by rounding; every call begins by building it,
    so it pays from some hundred pictures on. "bfloat16" is fast where the device multiplies in it (a CPU with AMX or
    AVX-512 BF16). "compiled" is torch.compile: minutes the first time, after a restart less.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        scheduler: SamplerName | None = None,
        size_px: int | None = None,
        engine: EngineName = "torch",
        weaker: Weaker | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """on_step: called after each step of a batch; what it raises ends the sampling, and the model is as it was."""
        self.denoiser = denoiser
        self._on_step = on_step
        self.weaker = weaker
        denoiser.backbone.schedule.scheduler(scheduler)  # one that cannot follow the base is refused here
        self.scheduler_name = scheduler
        self.engine = engine
        self.size_px = size_px or denoiser.backbone.image_size_px
        self.latent_shape = denoiser.backbone.latent_shape_at(self.size_px)

    def __call__(self, requests: Sequence[Request], *, num_steps: int = 25, batch_size: int = 16) -> Iterator[Sample]:
        """The pictures, in order, as their batches are done; read them all before training goes on.

        A batch holds `batch_size` pictures, whatever their taxa; base and target of each are predicted in one forward.
        Raises `SettingsError` for impossible numbers or an engine that cannot be had, `NonFiniteError` for a picture
        that is blank or no numbers.
        """
        limit = self.denoiser.backbone.schedule.num_timesteps
        if not 1 <= num_steps <= limit:
            raise SettingsError(f"num_steps must lie between 1 and the base's {limit}, got {num_steps}")
        if batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
        if self.weaker is None and any(request.guidance.weaker_coefficient for request in requests):
            raise SettingsError("guidance from a weaker model needs one: say which (--guide-with)")
        own: dict[Mix, Tensor] = {}
        weaker: dict[Mix, Tensor] = {}
        with ExitStack() as stack:
            for denoiser in (self.denoiser, *(() if self.weaker is None else (self.weaker.denoiser,))):
                stack.enter_context(_evaluating(denoiser))
                if self.engine == "onnxruntime":
                    stack.enter_context(denoiser.backbone.on_onnxruntime(self.latent_shape))
                elif self.engine == "compiled":
                    stack.enter_context(denoiser.backbone.on_compiled_code())
                elif self.engine == "bfloat16":
                    stack.enter_context(_in_bfloat16(denoiser))
            for start in range(0, len(requests), batch_size):
                batch = requests[start : start + batch_size]
                own, weaker = self._conditions(batch, own, weaker)
                with memory_faults(f"{len(batch)} pictures of {self.size_px} px at once", "make the batch smaller"):
                    images = self._decoded(batch, self._denoised(batch, own, weaker, num_steps))
                yield from (Sample(request, image) for request, image in zip(batch, images, strict=True))

    def _conditions(
        self, batch: Sequence[Request], own: Mapping[Mix, Tensor], weaker: Mapping[Mix, Tensor]
    ) -> tuple[dict[Mix, Tensor], dict[Mix, Tensor]]:
        """Every condition (T, D) that the batch needs, of both models; those of the batch before are used again."""
        mixes = dict.fromkeys(mix for request in batch for mix, _ in (*terms(request), (target(request), 1.0)))
        own = conditions_of(self.denoiser.conditioner, list(mixes), own)
        guided = dict.fromkeys(target(request) for request in batch if request.guidance.weaker_coefficient)
        if self.weaker is None or not guided:
            return own, {}
        return own, conditions_of(self.weaker.denoiser.conditioner, list(guided), weaker, self.weaker.rank)

    @torch.no_grad()
    def _denoised(
        self, batch: Sequence[Request], own: Mapping[Mix, Tensor], weaker: Mapping[Mix, Tensor], num_steps: int
    ) -> Tensor:
        """Latents (B, C, H, W): the reverse process from each request's own noise."""
        schedule = self.denoiser.backbone.schedule
        device = self.denoiser.backbone.device
        scheduler = schedule.scheduler(self.scheduler_name)
        scheduler.set_timesteps(num_steps, device=device)
        generators = [seeded(request.seed) for request in batch]
        noise = torch.stack([torch.randn(self.latent_shape, generator=generator) for generator in generators])
        latents = moved(noise, device) * getattr(scheduler, "init_noise_sigma", 1.0)
        extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
        acting: tuple[bool, ...] | None = None
        for timestep, level in zip(scheduler.timesteps, scheduler.timesteps.tolist(), strict=True):  # read once
            fraction = schedule.noise_fraction(level)
            now = tuple(request.guidance.acts(fraction) for request in batch)
            if now != acting:
                acting = now
                predictions = gathered(batch, now, own, device), gathered_weaker(batch, now, weaker, device)
            latents = self._step(scheduler, timestep, latents, predictions, extra)
            self._on_step()
        return latents

    def _step(
        self,
        scheduler: Any,
        timestep: Tensor,
        latents: Tensor,
        predictions: tuple[Predictions, Predictions | None],
        extra: dict[str, Any],
    ) -> Tensor:
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        guided = _predicted(self.denoiser, scaled, timestep, predictions[0])
        if self.weaker is not None and predictions[1] is not None:
            guided = guided + _predicted(self.weaker.denoiser, scaled, timestep, predictions[1])
        stepped: Tensor = scheduler.step(guided, timestep, latents, **extra).prev_sample
        return stepped

    def _decoded(self, batch: Sequence[Request], latents: Tensor) -> NDArray[np.uint8]:
        """uint8 (B, 3, h, w). Raises `NonFiniteError` naming the pictures that are blank or no numbers."""
        finite = torch.isfinite(latents).flatten(1).all(1).tolist()
        _refuse([request for request, good in zip(batch, finite, strict=True) if not good], "not finite")
        images = self.denoiser.backbone.decode(latents)
        spans = np.ptp(images.reshape(len(images), 3, -1), axis=2).max(axis=1)  # (B,)
        _refuse([request for request, span in zip(batch, spans, strict=True) if span <= BLANK_LEVELS], "blank")
        return images


def _predicted(denoiser: Denoiser, scaled: Tensor, timestep: Tensor, wanted: Predictions) -> Tensor:
    """Of a step, (B, C, H, W): this model's predictions, added up."""
    noisy = scaled.index_select(0, wanted.pictures)  # (M, C, H, W)
    predicted = denoiser.backbone(noisy, timestep.expand(len(noisy)), wanted.conditions)
    return combined(predicted, wanted.coefficients, wanted.pictures, len(scaled))


def _refuse(requests: Sequence[Request], fault: str) -> None:
    if requests:
        named = "; ".join(f"{request.lineage} (seed {request.seed})" for request in requests)
        raise NonFiniteError(f"pictures came out {fault}: {named}; lower the guidance scale, or train further")


@contextmanager
def _evaluating(denoiser: Denoiser) -> Iterator[None]:
    """Evaluation mode with the LoRA merged; afterwards every module is as it was, bit for bit."""
    training = [module for module in denoiser.modules() if module.training]
    merged = denoiser.backbone.lora_is_merged
    denoiser.eval()
    denoiser.backbone.merge_lora()
    try:
        yield
    finally:
        if not merged:
            denoiser.backbone.unmerge_lora()
        for module in training:
            module.training = True


@contextmanager
def _in_bfloat16(denoiser: Denoiser) -> Iterator[None]:
    """Products in bfloat16, weights as they are. Raises `SettingsError` where that would be slower."""
    backbone = denoiser.backbone
    if not multiplies_in_bfloat16(backbone.device):
        raise SettingsError(
            f"engine bfloat16: {described(backbone.device)} does not multiply in it by itself and takes many times "
            "as long; leave --engine out, or choose onnxruntime"
        )
    before, backbone.autocast = backbone.autocast, torch.bfloat16
    try:
        yield
    finally:
        backbone.autocast = before
