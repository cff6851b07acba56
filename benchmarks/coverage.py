"""How often the 95 % intervals hold the truth, simulated: `python -m benchmarks.coverage [--json FILE]`.

The truth is known, and taxa, trainings and images vary by as much as is said.
"""

# K taxa, R trainings, n images of a taxon in a training, D feature width
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.distribution import FrechetReference
from taxadiffusion.metrics.intervals import (
    Interval,
    Replicates,
    difference_of_means,
    groups_of_taxa,
    mean_of_means,
    of_replicates,
)

Floats = NDArray[np.float64]

NUM_TAXA = (6, 22, 92)
NUM_RUNS = (2, 3, 5)
NUM_IMAGES = 6

SPLITS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
"""How the variance of a mean is shared among trainings, taxa and images."""

SHARES = tuple(
    product((-3.0, -1.0, 0.0, 2.0), ((1.0, 0.0), (0.0, 2.0), (0.0, 0.0), (1.0, 2.0), (0.5, 1.0), (0.3, 4.0)))
)
"""Of shares named right, on the logit scale: the middle, and the standard deviations of trainings and of taxa."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting: how often its intervals held the truth, how wide they were, and how wide they had to be."""

    what: str
    num_taxa: int
    num_runs: int
    split: str
    coverage: float
    mean_width: float
    needed_width: float
    """Between the 2.5 % and 97.5 % quantiles of the estimates: the width of a perfect interval."""


def distances(num_taxa: int, num_runs: int, split: tuple[int, int, int], trials: int) -> Cell:
    """A statistic of sets that is a mean of their images, by the jackknife over taxa."""
    runs, taxa, images = (share / sum(split) for share in split)
    group = groups_of_taxa(num_taxa, 0)
    kept = group[None] != np.arange(group.max() + 1)[:, None]  # (G, K)
    shares = np.bincount(group) / num_taxa

    def trial(rng: np.random.Generator) -> Interval:
        means = rng.normal(0, np.sqrt(runs * num_runs), (1, num_runs)) + rng.normal(
            0, np.sqrt(taxa * num_taxa), (num_taxa, 1)
        )
        means = means + rng.normal(0, np.sqrt(images * num_taxa * num_runs), (num_taxa, num_runs))  # (K, R)
        without = kept @ means / kept.sum(1, keepdims=True)  # (G, R)
        return of_replicates(Replicates(means.mean(0), without.T, shares))

    return _cell("distance (mean of images)", num_taxa, num_runs, split, trial, trials, truth=0.0)


def frechet(num_taxa: int, num_runs: int, split: tuple[int, int, int], trials: int, width: int = 4) -> Cell:
    """A Fréchet distance itself; its truth is its mean over all trials, at that number of images."""
    runs, taxa, images = split
    group = groups_of_taxa(num_taxa, 0)
    shares = np.bincount(group) / num_taxa

    def trial(rng: np.random.Generator) -> Interval:
        centres = rng.normal(0, 1, (num_taxa, 1, width))
        real = centres + rng.normal(0, 1, (num_taxa, NUM_IMAGES, width))
        moved = centres + 1.0 + taxa * rng.normal(0, 1, centres.shape)
        runs_moved = [moved + runs * rng.normal(0, 0.3, width) for _ in range(num_runs)]
        made = [m + rng.normal(0, 1 if images else 0.3, (num_taxa, NUM_IMAGES, width)) for m in runs_moved]

        def distance(side: Floats, keep: NDArray[np.bool_]) -> float:
            return FrechetReference(real[keep].reshape(-1, width))(side[keep].reshape(-1, width))

        whole = np.array([distance(side, group >= 0) for side in made])
        without = np.array([[distance(side, group != g) for g in range(len(shares))] for side in made])
        return of_replicates(Replicates(whole, without, shares))

    return _cell("Fréchet distance", num_taxa, num_runs, split, trial, trials, truth=None)


def accuracies(num_taxa: int, num_runs: int, share: tuple[float, tuple[float, float]], trials: int) -> Cell:
    """Shares named right: a logit for each taxon and training, images right or wrong by it."""
    middle, (sd_run, sd_taxon) = share

    def trial(rng: np.random.Generator) -> Interval:
        hardness = rng.normal(0, sd_taxon, num_taxa)
        means = _right(rng, middle, hardness, num_runs, sd_run)
        return mean_of_means(means, means.size * NUM_IMAGES, share=True)

    rng = np.random.default_rng(12)
    truth = float(_chance(middle + rng.normal(0, np.hypot(sd_run, sd_taxon), 1_000_000)).mean())
    return _cell("named right", num_taxa, num_runs, share, trial, trials, truth)


def differences(num_taxa: int, num_runs: int, share: tuple[float, tuple[float, float]], trials: int) -> Cell:
    """Two methods alike on average, over taxa that are hard or easy for both, each with its own trainings."""
    middle, (sd_run, sd_taxon) = share

    def trial(rng: np.random.Generator) -> Interval:
        common = rng.normal(0, sd_taxon, num_taxa)
        a, b = (_right(rng, middle, common + rng.normal(0, sd_taxon / 2, num_taxa), num_runs, sd_run) for _ in range(2))
        return difference_of_means(a, b, a.size * NUM_IMAGES, b.size * NUM_IMAGES, share=True)

    return _cell("difference of named right", num_taxa, num_runs, share, trial, trials, truth=0.0)


def _right(rng: np.random.Generator, middle: float, hardness: Floats, num_runs: int, sd_run: float) -> Floats:
    """(K, R) shares of each taxon's images that are named right in each training."""
    logits = middle + hardness[:, None] + rng.normal(0, sd_run, num_runs)  # (K, R)
    return rng.binomial(NUM_IMAGES, _chance(logits)) / NUM_IMAGES


def _chance(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))


def _cell(
    what: str,
    num_taxa: int,
    num_runs: int,
    split: object,
    trial: Callable[[np.random.Generator], Interval],
    trials: int,
    truth: float | None,
) -> Cell:
    found = [trial(np.random.default_rng([number, num_taxa, num_runs])) for number in range(trials)]
    means = np.array([interval.mean for interval in found])
    target = float(means.mean()) if truth is None else truth
    held = [interval.low <= target <= interval.high for interval in found]
    low, high = np.quantile(means, [0.025, 0.975])
    widths = [interval.high - interval.low for interval in found]
    return Cell(what, num_taxa, num_runs, str(split), float(np.mean(held)), float(np.mean(widths)), float(high - low))


def cells(trials: int, num_taxa: tuple[int, ...] = NUM_TAXA, num_runs: tuple[int, ...] = NUM_RUNS) -> Iterator[Cell]:
    """Every setting but those of the Fréchet distance, which cost a thousand times more."""
    for taxa, runs in product(num_taxa, num_runs):
        for split in SPLITS:
            yield distances(taxa, runs, split, trials)
        for share in SHARES:
            yield accuracies(taxa, runs, share, trials)
            yield differences(taxa, runs, share, trials)


def main() -> None:
    """Print the lowest, the middle and the highest coverage by figure, taxa and trainings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = list(cells(arguments.trials))
    for taxa, runs, split in product((6, 22), (3,), SPLITS[:5]):
        found.append(frechet(taxa, runs, split, min(arguments.trials, 400)))
    print(
        f"{'figure':28} {'taxa':>4} {'trainings':>9} {'lowest':>7} {'median':>7} {'highest':>7} {'width / needed':>14}"
    )
    for what, taxa, runs in dict.fromkeys((c.what, c.num_taxa, c.num_runs) for c in found):
        part = [c for c in found if (c.what, c.num_taxa, c.num_runs) == (what, taxa, runs)]
        covered = [c.coverage for c in part]
        ratio = np.median([c.mean_width / c.needed_width for c in part if c.needed_width])
        print(
            f"{what:28} {taxa:4} {runs:9} {min(covered):7.3f} {np.median(covered):7.3f} {max(covered):7.3f} "
            f"{ratio:14.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
