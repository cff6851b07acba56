"""Plain English for a simulated picture, without any taxon's name, from a small fixed vocabulary."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.simulate.pose import Pose
from taxadiffusion.simulate.traits import Traits

COLOURS: tuple[str, ...] = (
    "black", "white", "grey", "silver", "red", "orange", "brown", "yellow", "olive", "green", "teal", "blue", "violet",
    "pink",
)  # fmt: skip
_NUMBERS = ("", "one", "two", "three", "four", "five", "six", "seven")
_PLACES = {
    "water": "in open water", "coral": "over coral", "sand": "over sand", "rock": "over dark rock", "weed": "over weed",
}  # fmt: skip

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            *COLOURS, *_NUMBERS[1:], *(word for place in _PLACES.values() for word in place.split()),
            "a", "very", "small", "large", "dark", "pale", "slender", "deep", "bodied", "fish", "with", "and", "facing",
            "left", "right", "head", "up", "down", "bar", "bars", "stripe", "stripes", "slanting", "spots", "eyespot",
            "eye", "forked", "rounded", "straight", "tail", "fins", "tall", "pointed", "snout", "light", "bright",
            "dim",
        }
    )
)  # fmt: skip
"""Every word a caption can contain (commas aside)."""


def colour_word(rgb: Sequence[float] | NDArray[np.floating]) -> str:
    """The name of a colour, one of `COLOURS`, with "dark " or "pale " before it where that helps.

    `rgb` is three numbers in 0 … 1 (sRGB). Black, white, grey and silver go bare. Raises `ValueError` outside 0 … 1.
    """
    red, green, blue = (float(value) for value in rgb)
    if not all(0.0 <= value <= 1.0 for value in (red, green, blue)):
        raise ValueError(f"colours are three numbers in 0 … 1, got {(red, green, blue)}")
    hue, saturation, brightness = colorsys.rgb_to_hsv(red, green, blue)
    hue *= 360.0
    if brightness < 0.16:
        return "black"
    if saturation < 0.13 or (saturation < 0.24 and brightness < 0.35):
        return "white" if brightness > 0.86 else "silver" if brightness > 0.62 else "grey"
    name = _chromatic(hue, saturation, brightness)
    if brightness < 0.42 and name not in ("brown", "olive"):
        return f"dark {name}"
    if name == "brown" and brightness < 0.28:
        return "dark brown"
    if saturation < 0.36 and brightness > 0.58 and name != "pink":
        return f"pale {name}"
    return name


def _chromatic(hue: float, saturation: float, brightness: float) -> str:
    if (hue < 18 or hue >= 335) and brightness > 0.62 and saturation < 0.60:
        return "pink"
    if hue < 14 or hue >= 348:
        return "red" if brightness > 0.30 or saturation > 0.6 else "brown"
    if hue < 45:
        return "orange" if brightness > 0.66 and saturation > 0.42 else "brown"
    if hue < 70:
        return "yellow" if brightness > 0.60 else "olive"
    if hue < 90:
        return "olive" if brightness < 0.55 else "green"
    for limit, name in ((160, "green"), (192, "teal"), (255, "blue"), (300, "violet")):
        if hue < limit:
            return name
    return "pink" if brightness > 0.45 else "violet"


def _seen(rgb: NDArray[np.float32]) -> NDArray[np.float64]:
    """A flat colour as shading leaves it on a round body."""
    return np.clip(rgb.astype(np.float64) * 0.95 + 0.03, 0.0, 1.0)


def caption(traits: Traits, pose: Pose) -> str:
    """One phrase that tells what a picture shows: shape, colours, marks, facing, place, light; no taxon's name.

    "a deep bodied orange fish with three white bars, dark blue fins and a forked tail, facing left, over coral".
    """
    body = body_colour(traits)
    parts = [*_marks(traits), *_fins(traits, body), f"a {_tail(traits)} tail"]
    listed = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    shape = " ".join(word for word in (_size(traits, pose), _shape(traits), body, "fish") if word)
    tilt = pose.rotation if pose.facing == "right" else -pose.rotation
    head = " head up" if tilt > 12 else " head down" if tilt < -12 else ""
    light = " in bright light" if pose.exposure > 1.2 else " in dim light" if pose.exposure < 0.86 else ""
    return f"a {shape} with {listed}, facing {pose.facing}{head}, {_PLACES[pose.background]}{light}"


def body_colour(traits: Traits) -> str:
    """The colour word of a whole flank, back and belly included."""
    return colour_word(_seen(0.7 * traits.rgb("body") + 0.15 * traits.rgb("back") + 0.15 * traits.rgb("belly")))


def _size(traits: Traits, pose: Pose) -> str:
    length = pose.scale * traits.body_length
    return "large" if length > 0.86 else "small" if length < 0.68 else ""


def _shape(traits: Traits) -> str:
    for limit, words in ((0.27, "slender"), (0.46, ""), (0.58, "deep bodied")):
        if traits.body_depth < limit:
            return words
    return "very deep bodied"


def _marks(traits: Traits) -> list[str]:
    """Bars, spots and eye marks that can be seen: strong enough and of another colour than the body."""
    mark = colour_word(_seen(traits.rgb("mark")))
    stands_out = float(np.abs(traits.rgb("mark") - traits.rgb("body")).max()) > 0.18
    words = []
    if traits.bar_strength > 0.4 and stands_out:
        count = round(traits.bar_count)
        kind = "bar" if traits.bar_angle < 25 else "stripe" if traits.bar_angle > 65 else "slanting stripe"
        words.append(f"{_NUMBERS[count]} {mark} {kind}{'s' if count > 1 else ''}")
    if traits.spot_strength > 0.4 and stands_out:
        words.append(f"{mark} spots")
    if traits.eyespot > 0.5:
        words.append("a black eyespot")
    if traits.eye_stripe > 0.5:
        words.append("a black eye stripe")
    if traits.snout_length > 0.7:
        words.append("a pointed snout")
    return words


def _fins(traits: Traits, body: str) -> list[str]:
    colour = colour_word(_seen(0.9 * traits.rgb("fin")))
    tall = "tall " if traits.dorsal_height > 0.24 else ""
    return [f"{tall}{colour} fins"] if tall or colour != body else []


def _tail(traits: Traits) -> str:
    return "forked" if traits.tail_fork > 0.22 else "rounded" if traits.tail_fork < -0.12 else "straight"
