"""Captions for photographs without taxon names: words for what can be computed from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.simulate.captions import colour_word

# H = W = 64 px side; all pictures uint8 (3, H, W)

PALETTE: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12), "charcoal": (50, 52, 54), "grey": (110, 112, 112), "silver": (170, 172, 172),
    "white": (240, 240, 240), "navy": (22, 44, 78), "slate": (78, 100, 120), "blue": (48, 96, 196),
    "sky": (112, 178, 226), "pine": (18, 70, 64), "jade": (38, 122, 106), "teal": (64, 150, 148),
    "turquoise": (70, 196, 186), "aqua": (128, 222, 214), "mint": (176, 222, 204), "forest": (38, 74, 42),
    "green": (74, 150, 84), "sage": (134, 158, 132), "moss": (84, 92, 54), "olive": (136, 132, 62),
    "straw": (196, 188, 120), "yellow": (230, 206, 62), "amber": (226, 156, 46), "orange": (222, 112, 46),
    "rust": (158, 72, 40), "umber": (82, 58, 42), "brown": (120, 88, 64), "tan": (176, 146, 116),
    "cream": (226, 208, 180), "maroon": (96, 30, 34), "red": (192, 52, 48), "coral": (224, 124, 112),
    "pink": (226, 174, 178), "mauve": (146, 112, 132), "violet": (120, 84, 160),
}  # fmt: skip
"""One-word colours of the layout phrase, sRGB."""

LEVELS: dict[str, tuple[str, ...]] = {
    "light": ("black", "murky", "dim", "low", "medium", "good", "bright", "glaring"),
    "contrast": ("no", "faint", "slight", "moderate", "clear", "strong", "high", "extreme"),
    "detail": ("blurred", "hazy", "soft", "smooth", "plain", "crisp", "sharp", "busy"),
    "bars": ("no", "hardly", "few", "some", "several", "many", "dense", "packed"),
    "size": ("tiny", "little", "small", "middling", "sizeable", "large", "big", "huge"),
    "shape": ("round", "disc", "deep", "oval", "oblong", "long", "slender", "thin"),
}
"""Words of each measured quantity from low to high, one per eighth of the photographs."""

GRID = 4


@dataclass(frozen=True)
class Measured:
    """What the pixels say: quantities (see `LEVELS`), colour words, facing, orientation of the marks, colour layout."""

    levels: dict[str, float]
    colours: tuple[str, ...]
    surround: str
    facing: str | None
    marks: str
    layout: tuple[str, ...]


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of sRGB in 0 … 1, last axis 3."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(np.maximum(xyz / np.array([0.9505, 1.0, 1.089]), 1e-4))
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


_PALETTE_LAB = _lab(np.array(list(PALETTE.values())) / 255.0)
_PALETTE_NAMES = tuple(PALETTE)


def _subject(lab: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of pixels unlike the border nearest to them, weighted to the centre: the animal, roughly. (H, W)"""
    side = lab.shape[0]
    strip = max(2, side // 12)
    edges = [lab[:strip], lab[-strip:], lab[:, :strip], lab[:, -strip:]]
    means = [edge.reshape(-1, 3).mean(0) for edge in edges]
    distance = np.min([np.linalg.norm(lab - mean, axis=-1) for mean in means], axis=0)
    ramp = np.linspace(-1, 1, side)
    radius = np.sqrt(ramp[:, None] ** 2 + ramp[None, :] ** 2)
    weighted = distance * np.exp(-((radius / 0.75) ** 2))
    return weighted > 0.45 * np.percentile(weighted, 97)


def measure(image: NDArray[np.uint8]) -> Measured:
    """The words' raw quantities of one picture."""
    rgb = image.transpose(1, 2, 0).astype(np.float64) / 255.0  # (H, W, 3)
    lab = _lab(rgb)
    mask = _subject(lab)
    if mask.sum() < 20:
        mask = np.zeros_like(mask)
        mask[16:48, 16:48] = True
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], axis=1) - np.array([columns.mean(), rows.mean()])
    values, vectors = np.linalg.eigh(np.cov(points.T) + 1e-6 * np.eye(2))
    along = points @ vectors[:, 1] * np.sign(vectors[0, 1] or 1.0)  # rightwards along the long axis
    skew = float((along**3).mean() / (along.std() ** 3 + 1e-6))
    luminance = lab[..., 0]
    dx, dy = np.diff(luminance, axis=1)[:-1], np.diff(luminance, axis=0)[:, :-1]
    inside = mask[:-1, :-1]
    across, down = float(np.abs(dx[inside]).mean()), float(np.abs(dy[inside]).mean())
    marks = "bars" if across > 1.25 * down else "stripes" if down > 1.25 * across else "marks"
    centre = rgb[8:56, 8:56]  # the animal is here; the surround has a phrase of its own
    cells = centre.reshape(GRID, 48 // GRID, GRID, 48 // GRID, 3).mean(axis=(1, 3)).reshape(-1, 3)
    nearest = np.linalg.norm(_lab(cells)[:, None] - _PALETTE_LAB[None], axis=-1).argmin(axis=1)
    return Measured(
        levels={
            "light": float(luminance.mean()),
            "contrast": float(np.linalg.norm(lab[mask].mean(0) - lab[~mask].mean(0))),
            "detail": float(np.abs(dx).mean() + np.abs(dy).mean()),
            "bars": across + down,
            "size": float(mask.mean()),
            "shape": float(np.sqrt(values[1] / values[0])),
        },
        colours=_two_colours(rgb[mask]),
        surround=colour_word(rgb[~mask].mean(0)),
        facing=None if abs(skew) < 0.12 else ("left" if skew > 0 else "right"),
        marks=marks,
        layout=tuple(_PALETTE_NAMES[k] for k in nearest),
    )


def _two_colours(pixels: NDArray[np.float64]) -> tuple[str, ...]:
    """Colour words of the darker and of the lighter part of the animal, or one where they agree."""
    brightness = pixels.mean(axis=1)
    split = np.median(brightness)
    dark = colour_word(pixels[brightness <= split].mean(0))
    light_pixels = pixels[brightness > split]
    light = colour_word(light_pixels.mean(0)) if len(light_pixels) else dark
    return (dark,) if dark == light else (dark, light)


def thresholds(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Seven cut points a quantity, so that each of its eight words is used equally often on these pictures."""
    return {
        name: [float(np.quantile([m.levels[name] for m in measured], k / 8)) for k in range(1, 8)] for name in LEVELS
    }


def phrases(measured: Measured, cuts: dict[str, list[float]]) -> dict[str, str]:
    """The picture's phrases by kind."""
    word = {name: LEVELS[name][int(np.searchsorted(cuts[name], value))] for name, value in measured.levels.items()}
    return {
        "subject": f"a {word['size']} {word['shape']} {' and '.join(measured.colours)} fish",
        "facing": f"facing {measured.facing}" if measured.facing else "",
        "marks": f"{word['bars']} {measured.marks}",
        "surround": f"over {measured.surround}",
        "light": f"{word['light']} light",
        "contrast": f"{word['contrast']} contrast",
        "detail": word["detail"],
        "layout": " ".join(measured.layout),
    }
