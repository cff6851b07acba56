"""Confidence intervals by the bootstrap, over taxa, training runs and the images of a taxon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# K taxa, R runs
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its confidence interval."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share a value."""
        return self.low <= other.high and other.low <= self.high


def mean_over_taxa(
    values: Sequence[Sequence[NDArray[Any]]],
    rng: np.random.Generator,
    *,
    num_draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean over K taxa and R runs of the mean of each taxon's values in each run, with a percentile interval.

    `values[k][r]` holds the values of taxon k's images in run r (a model trained with its own seed). Taxa and runs are
    drawn with replacement, each independently of the other (the pigeonhole bootstrap, Owen 2007), then the images of
    each drawn pair. So the interval speaks of other taxa, training seeds and sampling seeds, not of these alone.
    Raises `DataError` where a taxon has no value in a run.
    """
    _check(values)
    taxa = rng.integers(len(values), size=(num_draws, len(values), 1))
    return _percentiles(_estimate(values), _redrawn(values, taxa, rng), confidence)


def difference_over_taxa(
    values: Sequence[Sequence[NDArray[Any]]],
    others: Sequence[Sequence[NDArray[Any]]],
    rng: np.random.Generator,
    *,
    num_draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean of `values` minus that of `others`, both as in `mean_over_taxa`, over the same taxa in the same order.

    Taxa are drawn for both sides together, since some are hard for every method; runs and images of each side apart.
    With few images a taxon the interval is wider than it need be: their scatter moves the taxa's means too.
    Raises `DataError` where a taxon has no value in a run, or the numbers of taxa differ.
    """
    if len(values) != len(others):
        raise DataError(f"a difference needs the same taxa on both sides; there are {len(values)} and {len(others)}")
    _check(values)
    _check(others)
    taxa = rng.integers(len(values), size=(num_draws, len(values), 1))
    means = _redrawn(values, taxa, rng) - _redrawn(others, taxa, rng)
    return _percentiles(_estimate(values) - _estimate(others), means, confidence)


def _check(values: Sequence[Sequence[NDArray[Any]]]) -> None:
    num_runs = len(values[0]) if values else 0
    if not num_runs or any(len(runs) != num_runs or not all(len(run) for run in runs) for runs in values):
        raise DataError("a mean over taxa needs one or more values for every taxon in every run")


def _estimate(values: Sequence[Sequence[NDArray[Any]]]) -> float:
    return float(np.mean([[np.mean(run) for run in runs] for runs in values]))


def _redrawn(
    values: Sequence[Sequence[NDArray[Any]]], taxa: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.floating]:
    """(draws,) means of redrawn images of redrawn runs of the drawn `taxa` (draws, K, 1)."""
    num_draws, num_runs = len(taxa), len(values[0])
    resampled = _redrawn_within(values, num_draws, rng)
    drawn = rng.integers(num_runs, size=(num_draws, 1, num_runs))
    means = np.empty(num_draws)
    for block in row_blocks(num_draws, len(values) * num_runs):
        rows = np.arange(block.start, block.stop)[:, None, None]
        means[block] = resampled[rows, taxa[block], drawn[block]].mean((1, 2))
    return means


def _redrawn_within(
    values: Sequence[Sequence[NDArray[Any]]], num_draws: int, rng: np.random.Generator
) -> NDArray[np.floating]:
    """(draws, K, R) means of redrawn images of each taxon in each run; neighbours of equal number are drawn at once."""
    num_runs = len(values[0])
    cells = [np.asarray(run, dtype=np.float64) for runs in values for run in runs]  # k · R + r
    resampled = np.empty((num_draws, len(cells)))
    start = 0
    for number, same in groupby(cells, key=len):
        together = np.stack(list(same))  # (cells, images)
        for block in row_blocks(len(together), num_draws * number, block_bytes=1 << 23):
            size = block.stop - block.start
            draws = rng.integers(number, size=(size, num_draws, number))
            draws += number * np.arange(size)[:, None, None]  # positions in the flat block
            resampled[:, start + block.start : start + block.stop] = together[block].ravel()[draws].mean(2).T
        start += len(together)
    return resampled.reshape(num_draws, len(values), num_runs)


def _percentiles(estimate: float, means: NDArray[np.floating], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def statistic_within_taxa(
    statistic: Callable[[int, Sequence[NDArray[np.intp]]], Sequence[float] | NDArray[np.floating]],
    groups: Sequence[Sequence[NDArray[np.intp]]],
    rng: np.random.Generator,
    *,
    num_draws: int = 40,
    normal_quantile: float = 1.96,
) -> Interval:
    """The mean over runs of a statistic of a run's images (a Fréchet or kernel distance) ± 1.96 bootstrap errors.

    `groups[r][k]` holds the positions of taxon k's images in run r; `statistic(r, sets)` the statistic of each of some
    sets of them, asked for once a run, since what many sets share need be computed once only. A set may hold a position
    several times. Runs are redrawn, and within each drawn run each taxon's images, so every draw keeps the mixture of
    taxa. The interval is centred on the statistic of all images because redrawn sets repeat images, which biases such
    distances upwards: their percentiles would miss the estimate itself.
    """
    sets = [[np.concatenate(taxa)] for taxa in groups]  # of each run, all its images first
    draws = []  # of each draw, (run, position in `sets[run]`) of each drawn run
    for _ in range(num_draws):
        runs = rng.integers(len(groups), size=len(groups))
        drawn = []
        for r in map(int, runs):
            drawn.append((r, len(sets[r])))
            sets[r].append(_redraw(groups[r], rng))
        draws.append(drawn)
    found = [statistic(r, mine) for r, mine in enumerate(sets)]
    estimate = float(np.mean([values[0] for values in found]))
    margin = normal_quantile * float(np.std([np.mean([found[r][i] for r, i in drawn]) for drawn in draws], ddof=1))
    return Interval(estimate, estimate - margin, estimate + margin)


def _redraw(taxa: Sequence[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    return np.concatenate([taxon[rng.integers(len(taxon), size=len(taxon))] for taxon in taxa])
