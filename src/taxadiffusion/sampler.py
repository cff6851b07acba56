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

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.noise import SamplerName
from taxadiffusion.base.onnx import EngineName
from taxadiffusion.base.transfer import memory_faults, moved
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.guidance import Guidance, combined
from taxadiffusion.names import Lineage

NO_GUIDANCE = Guidance()

_TWISTER = slice(24, 24 + 8 * 624)
"""Where the state of a generator on the CPU holds the Mersenne Twister's 624 words of 32 bits, in 64 each."""

BLANK_LEVELS = 2
"""A picture whose channels each span at most this many of 256 levels is blank."""


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to make. `towards` mixes conditions (M8): `(1−fraction)·c(lineage) + fraction·c(towards)`."""

    lineage: Lineage
    seed: int
    guidance: Guidance = NO_GUIDANCE
    towards: Lineage | None = None
    fraction: float = 0.0

    def __post_init__(self) -> None:
        """Raises `SettingsError` for a mix that its guidance cannot act on."""
        if self.towards is not None:
            self.guidance.require_mixable(self.lineage, self.towards)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what was asked for."""

    request: Request
    image: NDArray[np.uint8]  # (3, h, w)


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


@dataclass(frozen=True, slots=True)
class _Mix:
    """A condition: of one lineage, or between two."""

    lineage: Lineage
    towards: Lineage | None
    fraction: float


@dataclass(frozen=True, slots=True)
class _Predictions:
    """What one step predicts: M conditions, the picture each belongs to and the coefficient it enters with."""

    conditions: Conditions
    pictures: Tensor  # (M,)
    coefficients: Tensor  # (M,)


class Sampler:
    """Makes pictures (F11) with any diffusers scheduler over the base's noise schedule (default DPM-Solver++).

    A picture is a function of its request, not of its neighbours: the initial noise comes from a generator of the
    request's seed, so alone and in a batch differ by rounding only (at most 2 of 256 levels in float32 on a CPU).
    engine: what predicts. "onnxruntime" is faster on a CPU and differs by rounding; every call begins by building it,
    so it pays from some hundred pictures on. "compiled" is torch.compile: minutes the first time, after a restart less.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        scheduler: SamplerName | None = None,
        size_px: int | None = None,
        engine: EngineName = "torch",
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """on_step: called after each step of a batch; what it raises ends the sampling, and the model is as it was."""
        self.denoiser = denoiser
        self._on_step = on_step
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
        conditions: dict[_Mix, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(_evaluating(self.denoiser))
            if self.engine == "onnxruntime":
                stack.enter_context(self.denoiser.backbone.on_onnxruntime(self.latent_shape))
            elif self.engine == "compiled":
                stack.enter_context(self.denoiser.backbone.on_compiled_code())
            for start in range(0, len(requests), batch_size):
                batch = requests[start : start + batch_size]
                conditions = self._conditions(batch, conditions)
                with memory_faults(f"{len(batch)} pictures of {self.size_px} px at once", "make the batch smaller"):
                    images = self._decoded(batch, self._denoised(batch, conditions, num_steps))
                yield from (Sample(request, image) for request, image in zip(batch, images, strict=True))

    @torch.no_grad()
    def _conditions(self, batch: Sequence[Request], known: Mapping[_Mix, Tensor]) -> dict[_Mix, Tensor]:
        """Every condition (T, D) that the batch needs, once; those of the batch before are used again."""
        mixes = dict.fromkeys(mix for request in batch for mix, _ in (*_terms(request), (_target(request), 1.0)))
        parts = {
            lineage: None
            for mix in mixes
            if mix not in known
            for lineage in (mix.lineage, *(() if mix.towards is None else (mix.towards,)))
        }
        states = dict(zip(parts, self.denoiser.conditioner(list(parts)), strict=True)) if parts else {}
        return {mix: known[mix] if mix in known else _mixed(mix, states) for mix in mixes}

    @torch.no_grad()
    def _denoised(self, batch: Sequence[Request], conditions: Mapping[_Mix, Tensor], num_steps: int) -> Tensor:
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
                acting, predictions = now, _gathered(batch, now, conditions, device)
            latents = self._step(scheduler, timestep, latents, predictions, extra)
            self._on_step()
        return latents

    def _step(
        self, scheduler: Any, timestep: Tensor, latents: Tensor, predictions: _Predictions, extra: dict[str, Any]
    ) -> Tensor:
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        noisy = scaled.index_select(0, predictions.pictures)  # (M, C, H, W)
        predicted = self.denoiser.backbone(noisy, timestep.expand(len(noisy)), predictions.conditions)
        guided = combined(predicted, predictions.coefficients, predictions.pictures, len(latents))
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


def _refuse(requests: Sequence[Request], fault: str) -> None:
    if requests:
        named = "; ".join(f"{request.lineage} (seed {request.seed})" for request in requests)
        raise NonFiniteError(f"pictures came out {fault}: {named}; lower the guidance scale, or train further")


def _target(request: Request) -> _Mix:
    return _Mix(request.lineage, request.towards, request.fraction)


def _terms(request: Request) -> tuple[tuple[_Mix, float], ...]:
    """The guidance's terms; both ends of a mix are cut alike."""
    mine = request.guidance.terms(request.lineage)
    if request.towards is None:
        return tuple((_Mix(lineage, None, 0.0), coefficient) for lineage, coefficient in mine)
    other = request.guidance.terms(request.towards)
    return tuple(
        (_Mix(lineage, towards, request.fraction), coefficient)
        for (lineage, coefficient), (towards, _) in zip(mine, other, strict=True)
    )


def _mixed(mix: _Mix, states: Mapping[Lineage, Tensor]) -> Tensor:
    """(T, D), M8."""
    if mix.towards is None:
        return states[mix.lineage]
    return torch.lerp(states[mix.lineage], states[mix.towards], mix.fraction)


def _gathered(
    batch: Sequence[Request], acting: Sequence[bool], conditions: Mapping[_Mix, Tensor], device: torch.device
) -> _Predictions:
    """All predictions of a step, for all pictures: where guidance does not act, the target alone."""
    entries = [
        (mix, picture, coefficient)
        for picture, (request, acts) in enumerate(zip(batch, acting, strict=True))
        for mix, coefficient in (_terms(request) if acts else ((_target(request), 1.0),))
    ]
    mixes, pictures, coefficients = zip(*entries, strict=True)
    rows = {mix: row for row, mix in enumerate(dict.fromkeys(mixes))}
    return _Predictions(
        Conditions(
            moved(torch.stack([conditions[mix] for mix in rows]), device),
            moved(torch.tensor([rows[mix] for mix in mixes]), device),
            kept={},
        ),
        moved(torch.tensor(pictures), device),
        moved(torch.tensor(coefficients), device),
    )


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
