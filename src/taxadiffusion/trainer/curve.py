"""The loss of a run as a picture: every stage in its colour, smoothed, with the held-out loss as dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_WIDTH_PX, _HEIGHT_PX = 1000, 420
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 70, 20, 40, 40
_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#2a9d8f", "#6b705c")
_NUM_POINTS = 400  # a line has at most as many: each is the mean over its share of the steps


def draw_curve(lines: Sequence[dict[str, Any]]) -> Image.Image:
    """Lines of `metrics.jsonl` → a picture of training loss and validation loss over steps."""
    steps = [line for line in lines if line["event"] == "StepDone"]
    held_out = [line for line in lines if line["event"] == "Validated"]
    image = Image.new("RGB", (_WIDTH_PX, _HEIGHT_PX), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    if not steps:
        pen.text((_LEFT_PX, _TOP_PX), "no step yet", fill="black", font=font)
        return image
    stages = list(dict.fromkeys(line["stage"] for line in steps))
    curves = {stage: _smoothed([line for line in steps if line["stage"] == stage]) for stage in stages}
    dots = np.array([[line["step"], line["loss"]] for line in held_out]).reshape(-1, 2)
    every = np.concatenate([*curves.values(), dots])
    low, high = float(every[:, 1].min()), float(every[:, 1].max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high, last = low - margin, high + margin, float(every[:, 0].max())

    def place(points: NDArray[np.float64]) -> list[tuple[float, float]]:
        x = _LEFT_PX + points[:, 0] / last * (_WIDTH_PX - _LEFT_PX - _RIGHT_PX)
        y = _TOP_PX + (high - points[:, 1]) / (high - low) * (_HEIGHT_PX - _TOP_PX - _BOTTOM_PX)
        return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]

    _draw_axes(pen, font, low, high, last, place)
    for number, (stage, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        pen.line(place(curve), fill=colour, width=2, joint="curve")
        pen.text((_LEFT_PX + 130 * number, 12), stage, fill=colour, font=font)
    for x, y in place(dots):
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline="black")
    if len(dots):
        pen.text((_WIDTH_PX - 160, 12), "o  held-out images", fill="black", font=font)
    return image


def _smoothed(lines: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    points = np.array([[line["step"], line["loss"]] for line in lines], dtype=np.float64)
    return np.array([part.mean(0) for part in np.array_split(points, min(_NUM_POINTS, len(points)))])


def _draw_axes(pen: ImageDraw.ImageDraw, font: Any, low: float, high: float, last: float, place: Any) -> None:
    for share in np.linspace(0, 1, 5):
        value, step = low + share * (high - low), share * last
        ((x0, y), (x1, _)) = place(np.array([[0, value], [last, value]]))
        pen.line((x0, y, x1, y), fill="#dddddd")
        pen.text((8, y - 8), f"{value:.4f}", fill="black", font=font)
        ((x, y0),) = place(np.array([[step, low]]))
        pen.text((x - 12, y0 + 8), f"{step:.0f}", fill="black", font=font)
    pen.text((_WIDTH_PX - 60, _HEIGHT_PX - 18), "step", fill="black", font=font)
