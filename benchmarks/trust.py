"""Does trust hold for taxa that its threshold never saw? From the file that `taxadiffusion trust` writes.

`python -m benchmarks.trust trusted.json [--splits 2000]`. The taxa are halved at random, again and again: one half sets
the threshold, the other is judged by it. Printed for each error: the share of pictures that are wrong at the rank to
which their taxon is trusted, in the mean over the splits and in the worst twentieth of them; and how deep trust goes.
The promise is of the mean. All splits are of the same pictures, so they tell of this model and this judge alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from taxadiffusion.metrics.conformal import losses, threshold_at, trusted_depths
from taxadiffusion.pictures.trusted import Trusted

ERRORS = (0.05, 0.1, 0.2, 0.3)


def halved(
    scores: np.ndarray, right: np.ndarray, error: float, splits: int, seed: int
) -> tuple[np.ndarray, Counter[int]]:
    """→ (splits,) share wrong among the taxa that set no threshold, and how many of these are trusted how deep."""
    rng = np.random.default_rng(seed)
    wrong, depths = [], Counter[int]()
    for _ in range(splits):
        order = rng.permutation(len(scores))
        fitted, unseen = order[: len(order) // 2], order[len(order) // 2 :]
        threshold = threshold_at(scores[fitted], right[fitted], error)
        wrong.append(losses(scores[unseen], right[unseen], threshold).mean())
        depths.update(trusted_depths(scores[unseen], threshold).tolist())
    return np.array(wrong), depths


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("file", type=Path, help="trusted.json")
    parser.add_argument("--splits", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = Trusted.read(args.file)
    scores = np.array([[count / one.num_scored for count in one.scored] for one in found.taxa])
    right = np.array([[count / one.num_held_out for count in one.held_out] for one in found.taxa])
    print(f"{len(found.taxa)} taxa; {found.judge}")
    heads = ["none", *found.ranks]
    print(f"| error | wrong among unseen taxa | worst twentieth | {' | '.join(f'to {head}' for head in heads)} |")
    print("|---" * (3 + len(heads)) + "|")
    for error in ERRORS:
        wrong, depths = halved(scores, right, error, args.splits, args.seed)
        shares = " | ".join(f"{depths[depth] / depths.total():.2f}" for depth in range(len(heads)))
        print(f"| {error:g} | {wrong.mean():.3f} | {np.quantile(wrong, 0.95):.3f} | {shares} |")


if __name__ == "__main__":
    main()
