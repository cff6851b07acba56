"""Confidence intervals for few trainings and few taxa: Student's t over trainings joined with a jackknife over taxa."""

# K taxa, R runs (models trained with their own seeds), G groups of taxa
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from taxadiffusion.errors import DataError

Floats = NDArray[np.floating]

MAX_GROUPS = 10
"""Groups of taxa that a distance's jackknife leaves out in turn: each costs a distance more, and with ten of them
Student's t is 15 % above the normal's 1.96."""

RUN_CONFIDENCE_OF_SHARES = 0.98
"""Two-sided confidence at which trainings enter the interval of a share. Shares near 0 or 1 are skewed over trainings,
and Student's t at 0.95 then covers too rarely; see docs/evaluation.md for what this mends and what it costs."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its confidence interval. Infinite limits: a single image, or a single group, shows no spread."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there were enough images to give an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def to_json(self) -> dict[str, float | None]:
        """Mean, low and high; limits that are not known are null."""
        return {"mean": self.mean, "low": self.low if self.known else None, "high": self.high if self.known else None}


@dataclass(frozen=True, slots=True)
class Replicates:
    """A statistic of R runs, whole and without each of G groups of taxa in turn."""

    by_run: Floats
    """(R,) of all images of a run."""
    without: Floats
    """(R, G) without the taxa of each group, on both sides of a distance."""
    shares: Floats
    """(G,) the share of all taxa that each group holds."""


def mean_over_taxa(
    values: Sequence[Sequence[NDArray[Any]]], *, share: bool = False, confidence: float = 0.95
) -> Interval:
    """`mean_of_means` of values by taxon and run: `values[k][r]` holds those of taxon k's images in run r.

    Of a single taxon the interval is over its images. Raises `DataError` where a taxon has no value in a run.
    """
    means, num_images = _means(values)
    if len(values) > 1:
        return mean_of_means(means, num_images, share=share, confidence=confidence)
    runs = [np.asarray(run, dtype=np.float64) for run in values[0]]
    within = sum(run.var(ddof=1) / len(run) if len(run) > 1 else math.inf for run in runs) / len(runs) ** 2
    margin = _quantile(max(1, num_images - len(runs)), confidence) * math.sqrt(within)
    if len(runs) > 1:
        margin = math.hypot(margin, _over(means[0], RUN_CONFIDENCE_OF_SHARES if share else confidence))
    mean = float(means.mean())
    return _of_share(mean, margin, num_images, num_images, confidence) if share else _about(mean, margin)


def mean_of_means(means: Floats, num_images: int, *, share: bool = False, confidence: float = 0.95) -> Interval:
    """The mean of (K, R) means over K taxa and R runs, of `num_images` in all, with its interval.

    With several runs the interval speaks of other taxa and other trainings, with one run of other taxa for this model.
    Its half width is √(t²_{K−1} s²_taxa / K + t²_{R−1} s²_runs / R), which has at least the stated confidence for any
    split of the variance (Banerjee 1960). The spread of taxa and that of runs each hold the spread of images.

    share: the values are 0 or 1, or lie between. The interval is then Clopper and Pearson's for the number of images
    that would have that half width (Korn & Graubard 1998): it stays within 0 and 1, and does not vanish where all or
    none is right.
    """
    parts = [_squared(_over(means.mean(1), confidence))]
    if means.shape[1] > 1:
        parts.append(_squared(_over(means.mean(0), RUN_CONFIDENCE_OF_SHARES if share else confidence)))
    mean, margin = float(means.mean()), math.sqrt(sum(parts))
    return _of_share(mean, margin, num_images, len(means), confidence) if share else _about(mean, margin)


def difference_over_taxa(
    values: Sequence[Sequence[NDArray[Any]]],
    others: Sequence[Sequence[NDArray[Any]]],
    *,
    share: bool = False,
    confidence: float = 0.95,
) -> Interval:
    """`difference_of_means` of values by taxon and run, over the same taxa in the same order.

    Raises `DataError` where a taxon has no value in a run, or the numbers of taxa differ.
    """
    if len(values) != len(others):
        raise DataError(f"a difference needs the same taxa on both sides; there are {len(values)} and {len(others)}")
    (means, num_images), (other_means, other_images) = _means(values), _means(others)
    return difference_of_means(means, other_means, num_images, other_images, share=share, confidence=confidence)


def difference_of_means(
    means: Floats, others: Floats, num_images: int, other_images: int, *, share: bool = False, confidence: float = 0.95
) -> Interval:
    """The mean of (K, R) `means` minus that of (K, R') `others`, taxon by taxon, as in `mean_of_means`.

    Taxa are paired, since some are hard for every method; the runs of the two sides are not. Where both are shares and
    no taxon differs, nothing shows the spread: the limits are then made of those of the two shares (Newcombe 1998).
    """
    parts = [_squared(_over(means.mean(1) - others.mean(1), confidence))]
    parts += [_squared(_over(side.mean(0), confidence)) for side in (means, others) if side.shape[1] > 1]
    mean, margin = float(means.mean() - others.mean()), math.sqrt(sum(parts))
    if not share:
        return _about(mean, margin)
    if margin == 0:
        a = _of_share(float(means.mean()), 0.0, num_images, len(means), confidence)
        b = _of_share(float(others.mean()), 0.0, other_images, len(others), confidence)
        below, above = math.hypot(a.mean - a.low, b.high - b.mean), math.hypot(a.high - a.mean, b.mean - b.low)
        return Interval(mean, mean - below, mean + above)
    return Interval(mean, max(-1.0, mean - margin), min(1.0, mean + margin))


def groups_of_taxa(num_taxa: int, seed: int) -> NDArray[np.intp]:
    """(K,) the group of each taxon, 0 … G−1 with G at most `MAX_GROUPS`: every taxon its own, or drawn by `seed`."""
    order = np.arange(num_taxa) % MAX_GROUPS
    return order if num_taxa <= MAX_GROUPS else np.asarray(np.random.default_rng(seed).permutation(order))


def of_replicates(replicates: Replicates, *, least: float = -math.inf, confidence: float = 0.95) -> Interval:
    """The mean over runs of a statistic of sets (a Fréchet or kernel distance; never below `least`), with its interval.

    As `mean_of_means`, the spread over taxa taken from a jackknife that leaves groups of taxa out (Busing et al. 1999
    for groups that differ in size). Leaving out repeats no image, so it does not bias a distance as a bootstrap does.
    """
    mean, without = replicates.by_run.mean(), replicates.without.mean(0)
    found = _of_replicates(mean, [replicates], without, replicates.shares, confidence)
    return replace(found, low=max(least, found.low))


def difference_of_replicates(ours: Replicates, theirs: Replicates, *, confidence: float = 0.95) -> Interval:
    """The statistic of one method minus that of another over the same taxa, left out in the same groups."""
    if not np.array_equal(ours.shares, theirs.shares):
        raise DataError("a difference of distances needs the same taxa on both sides, left out in the same groups")
    mean = ours.by_run.mean() - theirs.by_run.mean()
    return _of_replicates(mean, [ours, theirs], ours.without.mean(0) - theirs.without.mean(0), ours.shares, confidence)


def _of_replicates(
    mean: float, sides: Sequence[Replicates], without: Floats, shares: Floats, confidence: float
) -> Interval:
    parts = [_squared(_over(side.by_run, confidence)) for side in sides if len(side.by_run) > 1]
    parts.append(_squared(_jackknifed(float(mean), without, shares, confidence)))
    return _about(float(mean), math.sqrt(sum(parts)))


def _jackknifed(whole: float, without: Floats, shares: Floats, confidence: float) -> float:
    """Half width from leaving groups out, (G,); groups may differ in size."""
    num_groups = len(without)
    if num_groups < 2:
        return math.inf
    h = 1 / shares
    pseudo = h * whole - (h - 1) * without
    centre = num_groups * whole - ((1 - shares) * without).sum()
    variance = ((pseudo - centre) ** 2 / (h - 1)).mean()
    return _quantile(num_groups - 1, confidence) * math.sqrt(variance)


def _means(values: Sequence[Sequence[NDArray[Any]]]) -> tuple[Floats, int]:
    """(K, R) means of the images, and their number."""
    num_runs = len(values[0]) if values else 0
    if not num_runs or any(len(runs) != num_runs or not all(len(run) for run in runs) for runs in values):
        raise DataError("a mean over taxa needs one or more values for every taxon in every run")
    means = np.array([[np.asarray(run, dtype=np.float64).mean() for run in runs] for runs in values])
    return means, sum(len(run) for runs in values for run in runs)


def _over(means: Floats, confidence: float) -> float:
    """Student's half width of the mean of independent values."""
    if len(means) < 2:
        return math.inf
    return _quantile(len(means) - 1, confidence) * float(means.std(ddof=1)) / math.sqrt(len(means))


def _about(mean: float, margin: float) -> Interval:
    return Interval(mean, mean - margin, mean + margin)


def _quantile(degrees: int, confidence: float) -> float:
    return float(stdtrit(degrees, (1 + confidence) / 2))


def _squared(margin: float) -> float:
    return margin * margin


def _of_share(mean: float, margin: float, num_images: int, num_units: int, confidence: float) -> Interval:
    """Clopper and Pearson's limits of a share for as many independent images as its half width is worth.

    Where all or none is right, a unit (a taxon) counts as one image: nothing shows that its images vary by themselves.
    """
    if mean in (0.0, 1.0):
        worth = float(num_units)
    elif margin == 0:
        worth = float(num_images)
    else:
        worth = min(float(num_images), mean * (1 - mean) * (float(ndtri((1 + confidence) / 2)) / margin) ** 2)
    tail, right = (1 - confidence) / 2, worth * mean
    low = float(betaincinv(right, worth - right + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, worth - right, 1 - tail)) if worth > right else 1.0
    return Interval(mean, min(low, mean), max(high, mean))
