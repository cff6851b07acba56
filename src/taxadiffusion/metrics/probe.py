"""A linear probe: scikit-learn's multinomial logistic regression on standardised features, fitted to convergence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# N images, D feature width, K classes
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Among which the regularisation is chosen: scikit-learn's C."""

DEFAULT_INVERSE_PENALTY = 1e-2
"""Where there are too few groups of photographs to choose by."""

NUM_FOLDS = 3
MAX_SEARCHED = 2000
"""Photographs by which the regularisation is chosen, of at most `MAX_SEARCHED_CLASSES` classes; of more, so many are
drawn. What it costs then no longer grows with the photographs."""
MAX_SEARCHED_CLASSES = 100

_TOLERANCE = 1e-6  # of the gradient of the mean loss; at 1e-4 a probe names otherwise than at its optimum
_MAX_STEPS = 20_000
_SEARCH_TOLERANCE = 1e-4  # held-out losses of candidates a factor of ten apart differ by far more


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe. `predict` answers with positions in `classes`."""

    classes: tuple[str, ...]
    weight: Floats  # (D, K), for standardised features
    bias: Floats  # (K,)
    mean: Floats  # (D,)
    scale: Floats  # (D,)
    inverse_penalty: float

    def log_probabilities(self, features: Floats) -> Floats:
        """(N, D) features → (N, K) log-probabilities of the classes."""
        logits = (features - self.mean) / self.scale @ self.weight + self.bias
        return _log_softmax(logits)

    def predict(self, features: Floats, counts: Ints | None = None) -> Ints:
        """(N, D) features → (N,) most likely class, as a position in `classes`; with `counts` (K,), the images of each
        class that the probe was fitted on, at even odds."""
        found = np.empty(len(features), dtype=np.intp)
        for block in row_blocks(len(features), len(self.classes)):
            logits = self.log_probabilities(features[block])
            found[block] = (logits if counts is None else at_even_odds(logits, counts)).argmax(1)
        return found


def at_even_odds(logits: Floats, counts: Ints) -> Floats:
    """(N, K) logits as if all classes were equally frequent, though (K,) `counts` images of each were learnt.

    Logit adjustment: Menon et al. 2021, arXiv 2007.07314, equation 9 with τ = 1. A class without an image stays out.
    """
    learnt = counts > 0
    return logits - np.where(learnt, np.log(np.where(learnt, counts, 1)), np.inf)


@dataclass(frozen=True, slots=True)
class PenaltyChoice:
    """The regularisation that names held-out photographs best, and by what it was chosen."""

    inverse_penalty: float
    losses: tuple[float, ...]
    """The mean cross-entropy of held-out photographs at each of `INVERSE_PENALTIES`; () where nothing was compared."""
    num_images: int
    """Photographs that were held out in turn."""


def fit_probe(
    features: Floats,
    labels: Ints,
    classes: tuple[str, ...],
    *,
    inverse_penalty: float = 1.0,
    balanced: bool = False,
) -> Probe:
    """Fit on (N, D) features and (N,) labels, positions in `classes`.

    Minimises Σ_n v_n·CE_n + ‖W‖²/(2·`inverse_penalty`) on standardised features, the bias unpenalised: scikit-learn's
    `LogisticRegression(C=inverse_penalty)` after `StandardScaler`; of two classes W is one vector. `balanced` weights
    every class alike (v_n = N/(K·N_class)). Raises `DataError` where fewer than two classes, or a class without an
    image, is given, and where the fit does not converge.
    """
    counts = np.bincount(labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(classes) < 2 or empty:
        raise DataError(
            f"a probe needs two or more classes with images, got {len(classes)} classes"
            + (f", without images: {', '.join(empty)}" if empty else "")
        )
    scaler = StandardScaler()
    model = LogisticRegression(
        C=inverse_penalty, class_weight="balanced" if balanced else None, tol=_TOLERANCE, max_iter=_MAX_STEPS
    )
    _fit(model, scaler.fit_transform(features.astype(np.float64)), labels)
    weight, bias = model.coef_.T, model.intercept_
    if len(classes) == 2:  # one vector, of the second class against the first
        weight, bias = np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    return Probe(classes, weight, bias, scaler.mean_, scaler.scale_, inverse_penalty)


def choose_penalty(
    features: Floats, labels: Ints, groups: Sequence[str] | None = None, *, balanced: bool = False, seed: int = 0
) -> PenaltyChoice:
    """The regularisation by cross-validation within (N, D) features: the smallest loss of photographs held out.

    groups: (N,) what stays on one side of a split with each photograph, e.g. its trajectory; none: each is alone. By
    classes with three groups or more; where there are not two of these, `DEFAULT_INVERSE_PENALTY`.
    """
    names = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    rows = _searched(labels, names, np.random.default_rng(seed))
    if len(np.unique(labels[rows])) < 2:
        return PenaltyChoice(DEFAULT_INVERSE_PENALTY, (), 0)
    x, y, names = features[rows].astype(np.float64), labels[rows], names[rows]
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    losses = np.zeros(len(INVERSE_PENALTIES))
    num_images = 0
    for learnt, held_out in folds.split(x, y, names):
        held_out = held_out[np.isin(y[held_out], y[learnt])]
        if len(np.unique(y[learnt])) < 2 or not len(held_out):
            continue
        num_images += len(held_out)
        losses += _losses(x, y, learnt, held_out, balanced)
    if not num_images:
        return PenaltyChoice(DEFAULT_INVERSE_PENALTY, (), 0)
    means = losses / num_images
    return PenaltyChoice(INVERSE_PENALTIES[int(means.argmin())], tuple(means.tolist()), num_images)


def _losses(x: Floats, y: Ints, learnt: Ints, held_out: Ints, balanced: bool) -> Floats:
    """The summed cross-entropy of the photographs held out, at each of `INVERSE_PENALTIES`."""
    scaler = StandardScaler().fit(x[learnt])
    inside, outside = scaler.transform(x[learnt]), scaler.transform(x[held_out])
    model = LogisticRegression(
        class_weight="balanced" if balanced else None, tol=_SEARCH_TOLERANCE, max_iter=_MAX_STEPS, warm_start=True
    )
    found = []
    for inverse_penalty in INVERSE_PENALTIES:  # from the strongest on, each from the last one's solution
        _fit(model.set_params(C=inverse_penalty), inside, y[learnt])
        column = np.searchsorted(model.classes_, y[held_out])
        found.append(-model.predict_log_proba(outside)[np.arange(len(held_out)), column].sum())
    return np.array(found)


def _searched(labels: Ints, groups: Ints, rng: np.random.Generator) -> Ints:
    """Rows to choose the regularisation by: of classes with as many groups as folds, evenly over these."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    num_groups = np.bincount(pairs[0], minlength=int(labels.max()) + 1)
    classes = np.flatnonzero(num_groups >= NUM_FOLDS)
    if len(classes) > MAX_SEARCHED_CLASSES:
        classes = np.sort(rng.choice(classes, MAX_SEARCHED_CLASSES, replace=False))
    rows = np.flatnonzero(np.isin(labels, classes))
    if len(rows) <= MAX_SEARCHED:
        return rows
    order = rng.permutation(rows)
    place = np.empty(len(order), dtype=np.intp)  # how many of its own class come before a row
    for label in classes:
        mine = np.flatnonzero(labels[order] == label)
        place[mine] = np.arange(len(mine))
    return np.sort(order[np.argsort(place, kind="stable")[:MAX_SEARCHED]])


def _fit(model: LogisticRegression, features: Floats, labels: Ints) -> None:
    """Raises `DataError` where the solver stops before it has converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(features, labels)
        except ConvergenceWarning as warning:
            raise DataError(
                f"a probe of {len(features)} images did not converge in {model.max_iter} steps: what it would name is "
                "not settled. Features may hold values that are not finite or differ by many orders of magnitude"
            ) from warning


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
