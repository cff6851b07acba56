"""A linear probe: multinomial logistic regression on features, fitted by L-BFGS."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# N images, D feature width, K classes
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe. `predict` answers with positions in `classes`."""

    classes: tuple[str, ...]
    weight: Floats  # (D, K), for standardised features
    bias: Floats  # (K,)
    mean: Floats  # (D,)
    scale: Floats  # (D,)

    def log_probabilities(self, features: Floats) -> Floats:
        """(N, D) features → (N, K) log-probabilities of the classes."""
        logits = (features - self.mean) / self.scale @ self.weight + self.bias
        return _log_softmax(logits)

    def predict(self, features: Floats) -> Ints:
        """(N, D) features → (N,) most likely class, as a position in `classes`."""
        found = np.empty(len(features), dtype=np.intp)
        for block in row_blocks(len(features), len(self.classes)):
            found[block] = self.log_probabilities(features[block]).argmax(1)
        return found


def fit_probe(
    features: Floats,
    labels: Ints,
    classes: tuple[str, ...],
    *,
    inverse_penalty: float = 1.0,
    balanced: bool = False,
    tolerance: float = 1e-4,
    max_steps: int = 500,
) -> Probe:
    """Fit on (N, D) features and (N,) labels, positions in `classes`.

    Minimises Σ_n v_n·CE_n + ‖W‖²/(2·`inverse_penalty`) on standardised features, the bias unpenalised: scikit-learn's
    `LogisticRegression(C=inverse_penalty)` after `StandardScaler`. `balanced` weights every class alike
    (v_n = N/(K·N_class)). Stops when the gradient of the mean loss is nowhere larger than `tolerance`.
    Raises `DataError` where fewer than two classes, or a class without an image, is given.
    """
    counts = np.bincount(labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(classes) < 2 or empty:
        raise DataError(
            f"a probe needs two or more classes with images, got {len(classes)} classes"
            + (f", without images: {', '.join(empty)}" if empty else "")
        )
    features = features.astype(np.float64)
    mean, scale = features.mean(0), features.std(0)
    scale[scale == 0] = 1.0  # a constant feature says nothing; leave it at zero
    design = np.hstack([(features - mean) / scale, np.ones((len(features), 1))])  # (N, D+1)
    weights = len(labels) / (len(classes) * counts)[labels] if balanced else np.ones(len(labels))
    solution = _minimise(design, labels, weights, len(classes), inverse_penalty, tolerance, max_steps)
    return Probe(classes, solution[:-1], solution[-1], mean, scale)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _loss(
    solution: Floats, design: Floats, labels: Ints, weights: Floats, inverse_penalty: float
) -> tuple[float, Floats]:
    """The mean objective and its gradient at `solution` (D+1, K)."""
    log_probs = _log_softmax(design @ solution)  # (N, K)
    rows = np.arange(len(labels))
    penalised = solution.copy()
    penalised[-1] = 0  # the bias
    value = -(weights * log_probs[rows, labels]).sum() + (penalised**2).sum() / (2 * inverse_penalty)
    residual = np.exp(log_probs)  # (N, K)
    residual[rows, labels] -= 1
    gradient = design.T @ (residual * weights[:, None]) + penalised / inverse_penalty
    return float(value / len(labels)), gradient / len(labels)


def _minimise(
    design: Floats,
    labels: Ints,
    weights: Floats,
    num_classes: int,
    inverse_penalty: float,
    tolerance: float,
    max_steps: int,
    memory: int = 10,
) -> Floats:
    """L-BFGS (Nocedal & Wright, algorithm 7.5) with Armijo backtracking; the objective is smooth and convex."""
    solution = np.zeros((design.shape[1], num_classes))
    value, gradient = _loss(solution, design, labels, weights, inverse_penalty)
    pairs: deque[tuple[Floats, Floats]] = deque(maxlen=memory)
    for _ in range(max_steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -_two_loop(gradient, pairs)
        slope = float((direction * gradient).sum())
        step = 1.0 if pairs else 1.0 / max(1.0, float(np.abs(gradient).sum()))
        while True:
            trial = solution + step * direction
            trial_value, trial_gradient = _loss(trial, design, labels, weights, inverse_penalty)
            if trial_value <= value + 1e-4 * step * slope or step < 1e-10:
                break
            step /= 2
        moved, turned = trial - solution, trial_gradient - gradient
        if (moved * turned).sum() > 1e-12:
            pairs.append((moved, turned))
        solution, value, gradient = trial, trial_value, trial_gradient
    return solution


def _two_loop(gradient: Floats, pairs: deque[tuple[Floats, Floats]]) -> Floats:
    """The inverse Hessian's estimate from `pairs` (moves, turns) applied to `gradient`."""
    result = gradient.copy()
    factors = []
    for moved, turned in reversed(pairs):
        factor = (moved * result).sum() / (moved * turned).sum()
        factors.append(factor)
        result -= factor * turned
    if pairs:
        moved, turned = pairs[-1]
        result *= (moved * turned).sum() / (turned * turned).sum()
    for (moved, turned), factor in zip(pairs, reversed(factors), strict=True):
        result += moved * (factor - (turned * result).sum() / (moved * turned).sum())
    return result
