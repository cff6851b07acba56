"""What can be measured on a picture of a simulated fish: traits, hues as colours, marks by how well they show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.simulate.traits import Traits

Values = NDArray[np.float64]

SHAPES: tuple[str, ...] = (
    "body_depth", "depth_position", "head_bluntness", "snout_length", "peduncle_depth", "dorsal_height", "dorsal_peak",
    "anal_height", "anal_peak", "pelvic_length", "tail_length", "tail_height", "tail_fork", "eye_size", "eye_stripe",
    "eyespot", "countershading",
)  # fmt: skip
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1.0, -0.5, -0.5], [0.0, 1.0, -1.0]])  # rgb → light, red, green-blue
_PARTS = ("body", "back", "belly", "fin")
MEASURANDS: tuple[str, ...] = (
    *SHAPES,
    *(f"{part}_{axis}" for part in _PARTS for axis in ("light", "red", "green_blue")),
    "bars", "stripes", "spots", "bar_crowding",
)  # fmt: skip


def measurands(traits: Traits) -> Values:
    """The true value of every measurand of a species, (M,)."""
    mark, body = traits.rgb("mark"), traits.rgb("body")
    contrast = float(np.abs(mark - body).max())
    shown = traits.bar_strength * contrast
    lengthwise = float(np.sin(np.deg2rad(traits.bar_angle)) ** 2)
    colours = np.concatenate([_OPPONENT @ traits.rgb(part) for part in _PARTS])
    marks = [
        shown * (1.0 - lengthwise),
        shown * lengthwise,
        traits.spot_strength * contrast,
        shown * round(traits.bar_count) / 7.0,
    ]
    return np.concatenate([[getattr(traits, name) for name in SHAPES], colours, marks])
