"""How one photograph of a simulated fish was taken: pose, place and light."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

BACKGROUNDS: tuple[str, ...] = ("water", "coral", "sand", "rock", "weed")


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose and light of one picture. Lengths are shares of the picture's width."""

    facing: str  # "left" | "right"
    rotation: float  # degrees, counter-clockwise
    bend: float  # curvature of the body's axis
    scale: float  # length of an average adult with its tail
    centre_x: float  # offset of the fish from the picture's centre
    centre_y: float
    yaw: float  # degrees turned away from the camera; shortens the body by its cosine
    background: str  # one of BACKGROUNDS
    depth: float  # 0 = shallow clear water, 1 = deep: everything bluer and duller
    exposure: float  # gain of the light
    warmth: float  # -1 = cold, 1 = warm cast
    slope: float  # light falls off from left to right (+) or right to left (-)
    blur: float  # standard deviation / width
    noise: float  # standard deviation of the sensor noise in 0 … 1

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Pose:
        """A pose and light at random."""
        return cls(
            facing=("left", "right")[int(rng.integers(2))],
            rotation=float(np.clip(rng.normal(0.0, 10.0), -25.0, 25.0)),
            bend=float(rng.normal(0.0, 0.10)),
            scale=float(rng.uniform(0.70, 1.0)),
            centre_x=float(np.clip(rng.normal(0.0, 0.035), -0.08, 0.08)),
            centre_y=float(np.clip(rng.normal(0.0, 0.04), -0.09, 0.09)),
            yaw=float(np.clip(rng.normal(0.0, 18.0), -38.0, 38.0)),
            background=BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))],
            depth=float(rng.beta(1.6, 3.0)),
            exposure=float(np.exp(rng.normal(0.02, 0.13))),
            warmth=float(np.clip(rng.normal(0.0, 0.4), -1.0, 1.0)),
            slope=float(rng.normal(0.0, 0.12)),
            blur=float(0.006 * rng.beta(1.0, 3.0)),
            noise=float(0.035 * rng.beta(1.2, 3.0)),
        )

    def values(self) -> dict[str, float | str]:
        """Field name → value."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
