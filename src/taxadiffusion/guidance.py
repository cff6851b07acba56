"""Guidance: which conditions a picture is predicted under, and how the predictions are combined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank, rank_index

if TYPE_CHECKING:
    from torch import Tensor  # the commands' help reads the default below, without torch

DEFAULT_SCALE = 6.0
"""Of every command and of the pipeline. More is named right more often and varies less; the paper samples with 9."""

CONTEXT_SCALE = 2.0
"""Of a caption beside a taxon: surroundings change their colour, and the species that were looked at kept theirs."""

Base = Literal["ancestor", "sister", "weaker model"]

Term = tuple[Lineage, float]
"""A condition and the coefficient of its prediction."""


def combined(predictions: Tensor, coefficients: Tensor, pictures: Tensor, num_pictures: int) -> Tensor:
    """`Σ_k coefficient_k · prediction_k` of every picture: each kind of guidance (M6, M7) is such a sum.

    predictions: (M, C, H, W) under M conditions; coefficients: (M,); pictures: (M,) which of the `num_pictures` each
    belongs to, its coefficients adding up to 1. Returns (num_pictures, C, H, W).
    """
    weighted = predictions * coefficients[:, None, None, None]
    total = predictions.new_zeros(num_pictures, *predictions.shape[1:])
    return total.index_add(0, pictures, weighted)


@dataclass(frozen=True, slots=True)
class Context:
    """A caption of the base beside the taxon, such as "over pink" (M9). scale: 0 = none; below 0: away from it."""

    caption: str
    scale: float = CONTEXT_SCALE

    def __post_init__(self) -> None:
        """Raises `SettingsError` for no words, or a scale that is no number."""
        if not self.caption.strip():
            raise SettingsError("a context is a caption in words, such as “over pink”; for none leave it out")
        if not math.isfinite(self.scale):
            raise SettingsError(f"the scale of a context must be a number, got {self.scale:g}")


@dataclass(frozen=True, slots=True)
class Guidance:
    """How a picture is steered.

    scale: 1 = no guidance. rank: the base is the lineage truncated here; None = the empty lineage (vanilla
    classifier-free guidance). interval: the part of the noise schedule, as fractions of it (0 = clean, 1 = pure noise),
    within which guidance acts; outside only the target is predicted. rank_scales: one scale for each rank finer than
    the base, used instead of `scale`; ranks that are not named keep `scale`.

    base: "ancestor" is all that; "sister" guides away from the condition of a taxon that is easily taken for this one,
    which the request names; "weaker model" away from what an earlier or smaller model predicts of the same condition
    (autoguidance; Karras et al. 2024, arXiv 2406.02507). These two have one scale and no rank.
    """

    scale: float = 1.0
    rank: Rank | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    rank_scales: tuple[tuple[Rank, float], ...] = ()
    base: Base = "ancestor"

    def __post_init__(self) -> None:
        if self.base != "ancestor" and (self.rank is not None or self.rank_scales):
            raise SettingsError(f"guidance from a {self.base} has one scale and no rank; leave the ranks out")
        low, high = self.interval
        if not 0.0 <= low < high <= 1.0:
            raise SettingsError(f"guidance interval must satisfy 0 <= low < high <= 1, got {self.interval}")
        scales = (self.scale, *(scale for _, scale in self.rank_scales))
        if not all(map(math.isfinite, scales)):
            raise SettingsError(f"guidance scales must be numbers, got {', '.join(f'{scale:g}' for scale in scales)}")
        for rank in (*(() if self.rank is None else (self.rank,)), *(rank for rank, _ in self.rank_scales)):
            rank_index(rank)

    def acts(self, noise_fraction: float) -> bool:
        """Whether guidance acts at this place of the noise schedule (0 = clean, 1 = pure noise)."""
        return self.interval[0] <= noise_fraction <= self.interval[1]

    @property
    def weaker_coefficient(self) -> float:
        """What the weaker model's prediction enters with; 0 where there is none."""
        return 1.0 - self.scale if self.base == "weaker model" else 0.0

    def terms(self, lineage: Lineage, sister: Lineage | None = None) -> tuple[Term, ...]:
        """The conditions to predict under and their coefficients, target last; terms that vanish are left out.

        sister: where guidance is away from one; None: the taxon has none, and the null takes its place.

        M6: `base + scale·(target − base) = (1 − scale)·base + scale·target`. M7, coarse to fine from the base:
        `ε(c⁰) + Σ_i s_i·(ε(c^i) − ε(c^{i−1})) = Σ_i (s_i − s_{i+1})·ε(c^i)` with `s_0 = 1` and none after the last.
        Scale 1, or a base that equals the target, leaves the target alone: one prediction instead of two. From a weaker
        model the base is no condition of this one: the target's coefficient is the scale.
        """
        if self.base == "weaker model":
            return ((lineage, self.scale),)
        scales = dict(self.rank_scales)
        chain = [sister or Lineage() if self.rank is None else lineage.truncated(self.rank)]
        if self.rank_scales:
            finer = [rank for rank in lineage.ranks if rank not in chain[0].ranks]
            chain += [lineage.truncated(rank) for rank in finer]
            steps = [scales.get(rank, self.scale) for rank in finer]
        else:
            chain, steps = [*chain, lineage], [self.scale]
        coefficients = [left - right for left, right in zip([1.0, *steps], [*steps, 0.0], strict=True)]
        merged: dict[Lineage, float] = {}
        for member, coefficient in zip(chain, coefficients, strict=True):
            merged[member] = merged.get(member, 0.0) + coefficient
        return tuple((member, coefficient) for member, coefficient in merged.items() if coefficient != 0.0)

    def require_mixable(self, lineage: Lineage, towards: Lineage) -> None:
        """Raises `SettingsError` where this guidance has other terms for the one than for the other."""
        mine, other = ([coefficient for _, coefficient in self.terms(taxon)] for taxon in (lineage, towards))
        if mine != other:
            raise SettingsError(
                f"{lineage} and {towards} differ in depth, so this guidance cannot act on a mix of them"
            )
