"""An instrument that reads traits off pictures: it finds the fish's pose, straightens it, and regresses its traits.

Letters: N pictures, F features, M measurands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.simulate.draw import body_length, draw
from taxadiffusion.simulate.features import Array, features, reduced, straightened
from taxadiffusion.simulate.measurands import MEASURANDS, Values, measurands
from taxadiffusion.simulate.pose import Pose
from taxadiffusion.simulate.traits import Traits

MIN_R2 = 0.5
"""A measurand is used where the instrument explains at least this share of its variance on pictures not fitted."""

PENALTY = 0.3  # of the ridge regressions, on standardised features and targets
NUM_LOOKS = 2  # times the pose is estimated, each time on the picture straightened so far
HELD_OUT = 0.25
NUM_COPIES = 2  # of each fitted picture, each straightened with an error of its own


@dataclass(frozen=True, slots=True)
class Ridge:
    """A ridge regression: features (N, F) → targets (N, K)."""

    mean: Array  # (F,)
    weights: Values  # (F, K)
    offset: Values  # (K,)

    @classmethod
    def fit(cls, inputs: Array, targets: Values, penalty: float = PENALTY) -> Ridge:
        """Least squares with `penalty` per picture on the weights of standardised features; the offset is free."""
        mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
        standard = ((inputs - mean) / scale).astype(np.float64)
        gram = standard.T @ standard
        gram[np.diag_indices(len(gram))] += penalty * len(standard)
        offset = targets.mean(axis=0)
        weights = np.linalg.solve(gram, standard.T @ (targets - offset)) / scale[:, None]
        return cls(mean, weights, offset)

    def __call__(self, inputs: Array) -> Values:
        predicted: Values = (inputs - self.mean) @ self.weights + self.offset
        return predicted


@dataclass(frozen=True)
class TraitMeter:
    """Reads the M measurands off pictures; fit it with `fit` or `calibrated`."""

    facing: Ridge
    start: Values  # (4,) the mean pose
    looks: tuple[Ridge, ...]
    trait: Ridge
    slope: Values  # (M,) of a raw reading against the truth on held-out pictures; below 1, for ridge regression shrinks
    intercept: Values  # (M,)
    r2: Values  # (M,) share of variance explained on held-out pictures
    spread: Values  # (M,) standard deviation of the truth in the pictures it was fitted to

    @property
    def usable(self) -> tuple[str, ...]:
        """The measurands with an R² of at least `MIN_R2`."""
        return tuple(name for name, r2 in zip(MEASURANDS, self.r2, strict=True) if r2 >= MIN_R2)

    @classmethod
    def calibrated(cls, num_images: int = 3000, seed: int = 0) -> TraitMeter:
        """Fitted to fish of no clade, whose traits are all independent: no trait can be guessed from another one."""
        traits, poses, images = [], [], []
        for index in range(num_images):
            rng = np.random.default_rng([seed, 5, index])
            traits.append(Traits.sample(rng))
            poses.append(Pose.sample(rng))
            images.append(draw(traits[-1], poses[-1], rng))
        return cls.fit(np.stack(images), traits, poses)

    @classmethod
    def fit(cls, images: NDArray[np.uint8], traits: Sequence[Traits], poses: Sequence[Pose]) -> TraitMeter:
        """Fit to pictures (N, 3, H, H) of known traits and pose; the last quarter is held out and gives `r2`.

        Raises `DataError` for fewer than 40 pictures.
        """
        num_fit = len(images) - round(HELD_OUT * len(images))
        if len(images) < 40:
            raise DataError(f"{len(images)} pictures are too few to calibrate on; give 40 or more")
        pixels = reduced(images)
        truth = np.stack([measurands(one) for one in traits])  # (N, M)
        left = np.array([pose.facing == "left" for pose in poses])
        facing = Ridge.fit(_oddness(pixels[:num_fit]), np.where(left[:num_fit, None], 1.0, -1.0))
        turned = np.concatenate(
            [
                _turned(pixels[:num_fit], left[:num_fit]),
                _turned(pixels[num_fit:], _faces_left(facing, pixels[num_fit:])),
            ]
        )
        target = np.stack([_seen_pose(one, pose) for one, pose in zip(traits, poses, strict=True)])  # (N, 4)
        looks: list[Ridge] = []
        start = target[:num_fit].mean(axis=0)
        known = np.tile(start, (len(target), 1))
        rng = np.random.default_rng(0)
        for _ in range(NUM_LOOKS):
            inputs = features(straightened(turned, known))
            looks.append(Ridge.fit(inputs[:num_fit], target[:num_fit] - known[:num_fit]))
            error = known[num_fit:] + looks[-1](inputs[num_fit:]) - target[num_fit:]
            # fitted pictures are straightened with errors as large as those of pictures never seen
            known = np.concatenate([_jittered(target[:num_fit], error.std(axis=0), rng), target[num_fit:] + error])
        noisy = [_jittered(target[:num_fit], error.std(axis=0), rng) for _ in range(NUM_COPIES)]
        inputs = np.concatenate([features(straightened(turned[:num_fit], one)) for one in noisy])
        trait = Ridge.fit(inputs, np.tile(truth[:num_fit], (NUM_COPIES, 1)))
        raw, held_out = trait(features(straightened(turned[num_fit:], known[num_fit:]))), truth[num_fit:]
        centred = held_out - held_out.mean(axis=0)
        slope = (centred * raw).sum(axis=0) / (centred**2).sum(axis=0)
        intercept = raw.mean(axis=0) - slope * held_out.mean(axis=0)
        r2 = 1.0 - ((raw - held_out) ** 2).sum(axis=0) / (centred**2).sum(axis=0)
        return cls(facing, start, tuple(looks), trait, slope, intercept, r2, truth.std(axis=0))

    def read(self, images: NDArray[np.uint8]) -> Values:
        """Readings (N, M) of pictures (N, 3, H, H), H a multiple of 64, without the shrinkage of ridge regression.

        They are right on average and noisy one by one, so average over pictures of a taxon. The mirror image of a
        picture reads the same. Columns not in `usable` are too noisy to mean anything.
        Raises `DataError` for another shape.
        """
        pixels = reduced(images)
        turned = _turned(pixels, _faces_left(self.facing, pixels))
        pose = np.tile(self.start, (len(pixels), 1))
        for look in self.looks:
            pose = pose + look(features(straightened(turned, pose)))
        raw = self.trait(features(straightened(turned, pose)))
        readings: Values = (raw - self.intercept) / np.where(self.slope > 0.05, self.slope, np.inf)
        return readings


def _seen_pose(traits: Traits, pose: Pose) -> list[float]:
    """Centre, rotation and log length of the fish as seen, once it is turned to face left."""
    mirror = 1.0 if pose.facing == "left" else -1.0
    length = body_length(traits, pose) * (1.0 + traits.tail_length) * np.cos(np.deg2rad(pose.yaw))
    return [mirror * pose.centre_x, pose.centre_y, mirror * pose.rotation, float(np.log(length))]


def _jittered(target: Values, error: Values, rng: np.random.Generator) -> Values:
    return target + rng.normal(0.0, 1.0, target.shape) * error


def _oddness(pixels: Array) -> Array:
    """What changes sign when a picture is mirrored (N, F)."""
    return features(pixels) - features(np.ascontiguousarray(pixels[..., ::-1]))


def _faces_left(facing: Ridge, pixels: Array) -> NDArray[np.bool_]:
    side: NDArray[np.bool_] = (_oddness(pixels) @ facing.weights)[:, 0] > 0.0  # no offset: a mirror image must turn
    return side


def _turned(pixels: Array, left: NDArray[np.bool_]) -> Array:
    """Pictures mirrored where they do not face left."""
    return np.where(left[:, None, None, None], pixels, pixels[..., ::-1])
