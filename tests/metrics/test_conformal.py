"""Laws of trust: of taxa that the threshold never saw, pictures are wrong no more often than was promised."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.metrics.conformal import losses, threshold_at, trusted_depths


def drawn(rng: np.random.Generator, num_taxa: int, num_pictures: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Shares right of two halves of each taxon's pictures, at four ranks; taxa differ in how hard they are."""
    ease = rng.beta(2, 1, (num_taxa, 1))
    chances = np.cumprod(np.concatenate([ease ** (0.1 * rank) for rank in (0, 2, 5, 10)], axis=1), axis=1)
    halves = []
    for _ in range(2):
        reached = rng.random((num_taxa, num_pictures, 1)) < chances[:, None]  # one draw a picture: ranks are nested
        halves.append(reached.mean(1))
    return halves[0], halves[1]


@pytest.mark.parametrize("error", [0.1, 0.2, 0.3])
def test_unseen_taxa_are_wrong_no_more_often_than_promised(error: float) -> None:
    rng = np.random.default_rng(0)
    found, depth = [], []
    for _ in range(300):
        threshold = threshold_at(*drawn(rng, 60), error)
        scores, right = drawn(rng, 60)
        found.append(losses(scores, right, threshold).mean())
        depth.append(trusted_depths(scores, threshold).mean())
    noise = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) <= error + 3 * noise
    assert np.mean(found) > error / 3, "and not by trusting nothing"
    assert 0.5 < np.mean(depth) < 4


def test_a_smaller_error_never_trusts_deeper() -> None:
    scores, right = drawn(np.random.default_rng(1), 80)
    thresholds = [threshold_at(scores, right, error) for error in (0.02, 0.05, 0.1, 0.2, 0.5)]
    assert thresholds == sorted(thresholds, reverse=True)
    depths = [trusted_depths(scores, threshold) for threshold in thresholds]
    assert all((a <= b).all() for a, b in pairwise(depths))


def test_too_few_taxa_promise_nothing() -> None:
    ones = np.ones((8, 3))
    assert threshold_at(ones, ones, 0.1) == math.inf
    assert threshold_at(np.ones((9, 3)), np.ones((9, 3)), 0.1) == 1.0
    assert (trusted_depths(ones, math.inf) == 0).all()


def test_a_rank_is_trusted_only_with_all_above_it() -> None:
    assert trusted_depths(np.array([[0.9, 0.5, 0.95], [0.9, 0.9, 0.9], [0.1, 1.0, 1.0]]), 0.8).tolist() == [1, 3, 0]


def test_what_cannot_be_is_refused() -> None:
    scores = np.ones((9, 2))
    with pytest.raises(DataError, match="cannot grow"):
        threshold_at(scores, np.array([[0.5, 0.6]] * 9), 0.1)
    with pytest.raises(DataError, match="same taxa"):
        threshold_at(scores, np.ones((8, 2)), 0.1)
    for error in (0.0, 1.0, math.nan):
        with pytest.raises(SettingsError):
            threshold_at(scores, scores, error)
