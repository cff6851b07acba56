"""Randomness as a function: every draw of training is keyed by (seed, purpose, step, position), so no state is kept.

A counter-based generator (Philox 4×64; Salmon et al., 2011) gets the key (seed, purpose) and starts at the counter
(·, ·, position, step): the same numbers come out whatever was drawn before, on whichever process, in whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["sample", "validation", "depth", "timesteps"]
_PURPOSE: dict[Purpose, int] = {"sample": 1, "validation": 2, "depth": 3, "timesteps": 4}
_WHOLE_BATCH = 2**63  # the position of draws that all samples of a step share
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64 (Steele et al., 2014), as the constants in `mixed`


def generator(seed: int, purpose: Purpose, step: int, position: int = _WHOLE_BATCH) -> np.random.Generator:
    """The generator of one sample at one step (F12); without `position`, of the step as a whole."""
    key = np.array([seed & _MASK, _PURPOSE[purpose]], dtype=np.uint64)
    counter = np.array([0, 0, position, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance decides for b samples. The uniforms lie in [0, 1)."""

    noise: NDArray[np.float32]  # (b, C, H, W), standard normal
    timestep: NDArray[np.float64]  # (b,)
    null: NDArray[np.float64]  # (b,) condition dropout
    hole: NDArray[np.float64]  # (b,) whether a rank is dropped
    hole_rank: NDArray[np.float64]  # (b,) which one
    variant: NDArray[np.float64]  # (b,) which cached variant of the image


def draw(
    seed: int, step: int, positions: NDArray[np.int64], latent_shape: tuple[int, ...], purpose: Purpose = "sample"
) -> Draws:
    """The draws of the samples at `positions` of the global batch at `step`."""
    noise = np.empty((len(positions), *latent_shape), dtype=np.float32)
    uniform = np.empty((len(positions), 5), dtype=np.float64)
    for index, position in enumerate(positions.tolist()):
        rng = generator(seed, purpose, step, position)
        rng.random(out=uniform[index])
        rng.standard_normal(out=noise[index], dtype=np.float32)
    return Draws(noise, *(uniform[:, column] for column in range(5)))


def stratified(seed: int, step: int, positions: NDArray[np.int64], batch_size: int) -> NDArray[np.float64]:
    """One uniform per sample, evenly spread over the global batch (Kingma et al., 2021, "Variational Diffusion Models",
    appendix I.1): each is uniform on [0, 1), but together they cover it, so that the mean loss varies less."""
    return np.asarray((generator(seed, "timesteps", step).random() + positions / batch_size) % 1.0)


def torch_seed(seed: int, step: int, first_position: int) -> int:
    """The seed of torch's own generator (the dropout of a trained encoder) for the micro-batch that starts there."""
    key = np.array([seed & _MASK, step, first_position], dtype=np.uint64)
    return int(mixed(mixed(mixed(key[0:1]) ^ key[1:2]) ^ key[2:3])[0] >> np.uint64(1))


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64, element by element: a bijection of 64-bit words that scatters them."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
