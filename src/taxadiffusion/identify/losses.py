"""The denoising loss of a photograph under many conditions, each with the same noises and noise levels."""

# Letters: N conditions, K draws, B predictions at once, C latent channels, H W latent size, T tokens, D width.
from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.transfer import memory_faults, moved
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import seeded

Floats = NDArray[np.float64]

KEPT_BYTES = 1 << 30
"""Of conditions with their keys and values; of more, those not used for longest are computed anew."""

_GOLDEN = (math.sqrt(5) - 1) / 2  # whose multiples, modulo 1, lie evenly however many there are


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """Which noises a photograph is seen through.

    seed: of noises and levels, the same for every condition and photograph. noise_levels: the part of the schedule
    that they are spread over, 0 = clean, 1 = pure noise: near the ends all conditions predict alike.
    """

    seed: int = 0
    noise_levels: tuple[float, float] = (0.1, 0.9)

    def __post_init__(self) -> None:
        low, high = self.noise_levels
        if not 0.0 <= low < high <= 1.0:
            raise SettingsError(f"noise levels must satisfy 0 <= low < high <= 1, got {low:g} and {high:g}")


EVENLY = DrawSettings()


class ConditionLosses:
    """`‖target − prediction‖²`, mean over the latent, of one photograph under N conditions and K draws.

    A condition, and its keys and values in every cross-attention, are computed once and kept by name: the weights must
    not change. The number of predictions made is counted in `num_predictions`.
    """

    def __init__(self, denoiser: Denoiser, size_px: int, settings: DrawSettings = EVENLY, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
        self._denoiser = denoiser.eval()
        self._settings = settings
        self._batch_size = batch_size
        self._shape = denoiser.backbone.latent_shape_at(size_px)
        self._draws: dict[int, tuple[Tensor, Tensor]] = {}
        self._names = _KeptNames(denoiser)
        self.num_predictions = 0

    @torch.no_grad()
    def __call__(self, latents: Tensor, lineages: Sequence[Lineage], draws: range) -> Floats:
        """(N, K) losses of a photograph's latents (C, H, W). Raises `NonFiniteError` where one is no number."""
        groups = [lineages[i : i + self._batch_size] for i in range(0, len(lineages), self._batch_size)]
        losses = np.concatenate([self._of_group(latents, group, draws) for group in groups])
        self.num_predictions += losses.size
        if not np.isfinite(losses).all():
            worst = lineages[int(np.flatnonzero(~np.isfinite(losses).all(1))[0])]
            raise NonFiniteError(f"the loss of the photograph under {worst} is no number")
        return losses

    def _of_group(self, latents: Tensor, lineages: Sequence[Lineage], draws: range) -> Floats:
        """Of at most a batch of conditions: keys and values of all of them are held at once."""
        conditions = self._names.joined(lineages)
        noises, timesteps = self._drawn(draws)  # (K, C, H, W), (K,)
        pairs = torch.cartesian_prod(torch.arange(len(lineages)), torch.arange(len(draws))).reshape(-1, 2)
        parts = []
        for block in torch.split(pairs, self._batch_size):
            with memory_faults(f"{len(block)} predictions at once", "make the batch smaller"):
                parts.append(self._losses(latents, conditions, noises, timesteps, block))
        self._names.keep(lineages, conditions)
        return torch.cat(parts).cpu().double().numpy().reshape(len(lineages), len(draws))

    def _losses(
        self, latents: Tensor, conditions: Conditions, noises: Tensor, timesteps: Tensor, pairs: Tensor
    ) -> Tensor:
        """(B,) of (condition, draw) pairs (B, 2)."""
        backbone = self._denoiser.backbone
        rows, draws = moved(pairs[:, 0].contiguous(), backbone.device), moved(pairs[:, 1].contiguous(), backbone.device)
        noise, levels = noises[draws], timesteps[draws]
        clean = latents.to(backbone.device)[None].expand_as(noise)
        noisy = backbone.schedule.add_noise(clean, noise, levels)
        of_pairs = Conditions(conditions.states, rows, conditions.kept)
        prediction = backbone(noisy, levels, of_pairs)
        target = backbone.schedule.target(clean, noise, levels)
        squared: Tensor = (prediction - target).square().flatten(1).mean(1)
        return squared

    def _drawn(self, draws: range) -> tuple[Tensor, Tensor]:
        """Noises (K, C, H, W) and timesteps (K,) of numbered draws; a draw does not depend on which others are made."""
        for number in draws:
            if number not in self._draws:
                self._draws[number] = self._draw(number)
        noises, timesteps = zip(*(self._draws[number] for number in draws), strict=True)
        return torch.stack(noises), torch.cat(timesteps)

    def _draw(self, number: int) -> tuple[Tensor, Tensor]:
        backbone = self._denoiser.backbone
        noise = torch.randn(self._shape, generator=seeded(self._settings.seed + number))
        low, high = self._settings.noise_levels
        level = low + (high - low) * ((number + 0.5) * _GOLDEN % 1.0)
        flow = backbone.schedule.prediction == "flow_prediction"
        uniform = torch.tensor([1.0 - level if flow else level])  # `timesteps_of` counts a flow's levels down
        return moved(noise, backbone.device), moved(backbone.schedule.timesteps_of(uniform), backbone.device)


class _KeptNames:
    """Conditions by name, with keys and values where the U-Net shares them."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._kept: OrderedDict[Lineage, tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]] = OrderedDict()
        self._num_bytes = 0

    def joined(self, lineages: Sequence[Lineage]) -> Conditions:
        """(N, T, D) and, where all are known, their keys and values; else those are computed in the first use."""
        if missing := [lineage for lineage in dict.fromkeys(lineages) if lineage not in self._kept]:
            for lineage, states in zip(missing, self._denoiser.conditioner(missing), strict=True):
                self._store(lineage, states, {})
        found = []
        for lineage in lineages:
            self._kept.move_to_end(lineage)
            found.append(self._kept[lineage])
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        if all(parts for _, parts in found):
            for place in found[0][1]:
                keys, values = zip(*(parts[place] for _, parts in found), strict=True)
                kept[place] = torch.stack(keys), torch.stack(values)
        states = torch.stack([states for states, _ in found])
        return Conditions(states, torch.arange(len(lineages), device=states.device), kept)

    def keep(self, lineages: Sequence[Lineage], conditions: Conditions) -> None:
        """Remember by name what a use has computed; of too much, the names not used for longest are forgotten."""
        for row, lineage in enumerate(lineages):
            if conditions.kept and not self._kept[lineage][1]:
                parts = {place: (k[row].clone(), v[row].clone()) for place, (k, v) in conditions.kept.items()}
                self._store(lineage, self._kept[lineage][0], parts)
        while self._num_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, (states, parts) = self._kept.popitem(last=False)
            self._num_bytes -= _bytes_of(states, parts)

    def _store(self, lineage: Lineage, states: Tensor, parts: dict[int, tuple[Tensor, Tensor]]) -> None:
        if lineage in self._kept:
            self._num_bytes -= _bytes_of(*self._kept[lineage])
        else:
            states = states.clone()  # a row of a larger tensor would hold all of it
        self._kept[lineage] = states, parts
        self._num_bytes += _bytes_of(states, parts)


def _bytes_of(states: Tensor, parts: dict[int, tuple[Tensor, Tensor]]) -> int:
    return states.nbytes + sum(key.nbytes + value.nbytes for key, value in parts.values())
