"""Where the fish swims: procedural backgrounds, and what water, light and camera do to a picture."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from taxadiffusion.simulate.pose import Pose

Field = NDArray[np.floating[Any]]

_TILE = 256  # side of a noise tile; tiles repeat without a seam
_NUM_TILES = 8
_WATER = np.array([[0.05, 0.22, 0.40], [0.08, 0.42, 0.62], [0.06, 0.40, 0.45], [0.20, 0.55, 0.75]], dtype=np.float32)
_CORAL = np.array(
    [[0.45, 0.33, 0.28], [0.62, 0.50, 0.42], [0.40, 0.42, 0.30], [0.55, 0.35, 0.45], [0.66, 0.60, 0.48],
     [0.35, 0.30, 0.38], [0.62, 0.44, 0.20], [0.30, 0.38, 0.42], [0.64, 0.34, 0.30], [0.45, 0.32, 0.52]],
    dtype=np.float32,
)  # fmt: skip
_SAND = np.array([[0.80, 0.74, 0.62], [0.72, 0.70, 0.64], [0.66, 0.58, 0.46]], dtype=np.float32)
_ROCK = np.array([[0.16, 0.16, 0.17], [0.22, 0.19, 0.16], [0.12, 0.16, 0.18]], dtype=np.float32)
_WEED = np.array([[0.20, 0.36, 0.14], [0.32, 0.38, 0.14], [0.14, 0.30, 0.20]], dtype=np.float32)


@cache  # of every exponent in this file; each is made slowly
def _tiles(exponent: float) -> Field:
    """Noise tiles (8, 256, 256) of zero mean and unit variance whose power falls with frequency to -2·`exponent`."""
    rng = np.random.default_rng([int(100 * exponent), _TILE])
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]) * _TILE
    spectrum = np.maximum(frequency, 1.0) ** -exponent * (frequency > 0)
    phases = np.exp(2j * np.pi * rng.random((_NUM_TILES, *frequency.shape)))
    fields = np.fft.irfft2(spectrum * phases, s=(_TILE, _TILE))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    return fields.astype(np.float32)


@cache
def _cells() -> Field:
    """Rounded bumps, as coral heads or rubble: (4, 2, 256, 256), height 0 … 1 and a value 0 … 1 of each bump."""
    rng = np.random.default_rng([3, _TILE])
    axis = np.arange(_TILE, dtype=np.float32)
    tiles = np.empty((4, 2, _TILE, _TILE), dtype=np.float32)
    for tile, number in zip(tiles, (150, 220, 320, 450), strict=True):
        nearest = np.full((_TILE, _TILE), np.inf, dtype=np.float32)
        for row, column, value in rng.random((number, 3)):
            dy = np.abs(axis - _TILE * row)[:, None]
            dx = np.abs(axis - _TILE * column)[None]
            distance = np.minimum(dy, _TILE - dy) ** 2 + np.minimum(dx, _TILE - dx) ** 2
            closer = distance < nearest
            nearest[closer], tile[1][closer] = distance[closer], value
        tile[0] = np.sqrt(np.maximum(1.0 - nearest * (1.6 * number / _TILE**2), 0.0))
    return tiles


def cells(rng: np.random.Generator, size: int, warp: Field) -> tuple[Field, Field]:
    """A random cut of bumps, outlines bent by `warp` (size, size): heights and values, each (size, size)."""
    tile = _cells()[int(rng.integers(4))]
    top, left = rng.integers(_TILE, size=2)
    steps = np.arange(size) * (200.0 / size)
    rows = (top + steps[:, None] + 5.0 * warp).astype(np.int64) % _TILE
    columns = (left + steps[None] + 5.0 * np.roll(warp, size // 3, axis=0)).astype(np.int64) % _TILE
    return tile[0][rows, columns], tile[1][rows, columns]


def noise(rng: np.random.Generator, size: int, exponent: float, zoom: float = 1.0, stretch: float = 1.0) -> Field:
    """A random cut (size, size) of noise; `zoom` enlarges its features, `stretch` draws them out upwards."""
    tile = _tiles(exponent)[int(rng.integers(_NUM_TILES))]
    top, left = rng.integers(_TILE, size=2)
    steps = np.arange(size) * (160.0 / (size * zoom))
    rows = (top + steps / stretch).astype(np.int64) % _TILE
    columns = (left + steps).astype(np.int64) % _TILE
    cut: Field = tile[rows[:, None], columns[None]]
    return cut


def _mix(a: Field, b: Field, share: Field) -> Field:
    """a where share is 0, b where it is 1: colours (3, 1, 1) or (3, H, W), share (H, W)."""
    return a + (b - a) * np.clip(share, 0.0, 1.0)


def _pick(palette: Field, rng: np.random.Generator) -> Field:
    colour = palette[int(rng.integers(len(palette)))] + rng.normal(0.0, 0.035, 3).astype(np.float32)
    tint: Field = np.clip(colour, 0.02, 0.98)[:, None, None].astype(np.float32)
    return tint


def _relief(height: Field) -> Field:
    """Light from the upper left on a height field."""
    return height - np.roll(height, (1, 1), axis=(0, 1))


def _water(rng: np.random.Generator, size: int, down: Field) -> Field:
    deep = _pick(_WATER, rng)
    light = np.clip(deep * 1.35 + 0.12, 0.0, 1.0)
    picture = _mix(light, deep * 0.75, down + 0.08 * noise(rng, size, 2.2, 1.6))
    rays = noise(rng, size, 1.8, 1.5, 9.0) * np.clip(1.0 - down, 0.0, 1.0)
    picture = picture * (1.0 + 0.07 * rays)
    sea: Field = picture + 0.30 * (noise(rng, size, 0.7) > 2.9) * rng.uniform(0.0, 1.0)  # drifting particles
    return sea


def _coral(rng: np.random.Generator, size: int) -> Field:
    height, value = cells(rng, size, noise(rng, size, 1.8, 1.2))
    fine = noise(rng, size, 1.2)
    first, second, third = _pick(_CORAL, rng), _pick(_CORAL, rng), _pick(_CORAL, rng)
    picture = _mix(first, second, value * 2.2 - 0.4)
    picture = _mix(picture, third, (value - 0.8) * 8.0) * (0.85 + 0.3 * ((value * 7.0) % 1.0))
    relief = (size / 128.0) * _relief(height)
    light = 0.30 + 0.72 * height + 1.1 * relief + 0.10 * fine
    reef: Field = picture * np.clip(light * (1.0 + 0.22 * noise(rng, size, 2.2, 1.4)), 0.06, 1.6)
    return reef


def _sand(rng: np.random.Generator, size: int, down: Field) -> Field:
    warp = noise(rng, size, 2.3, 1.5)
    ripples = np.sin(2.0 * np.pi * (down * rng.uniform(5.0, 10.0) + 0.35 * warp))
    light = 1.0 + 0.07 * ripples + 0.06 * noise(rng, size, 0.6) + 0.06 * warp
    sand: Field = _pick(_SAND, rng) * light
    return sand


def _rock(rng: np.random.Generator, size: int) -> Field:
    lumps = noise(rng, size, 1.75, 1.2)
    height, _ = cells(rng, size, lumps)
    light = 0.75 + 0.8 * (size / 128.0) * _relief(lumps) + 0.30 * lumps + 0.35 * height
    picture = _pick(_ROCK, rng) * np.clip(light, 0.2, 2.2)
    return _mix(picture, _pick(_CORAL, rng) * 0.6, (noise(rng, size, 1.8) - 1.1) * 1.5)


def _weed(rng: np.random.Generator, size: int) -> Field:
    blades = noise(rng, size, 1.5, 0.9, 6.0)
    picture = _mix(_pick(_WEED, rng) * 0.55, _pick(_WEED, rng) * 1.25, 0.5 + 0.45 * blades)
    return picture * (1.0 + 0.25 * np.clip(_relief(blades), -1.0, 1.0))


def background(pose: Pose, rng: np.random.Generator, size: int) -> Field:
    """The empty scene (3, size, size) in 0 … 1."""
    down = np.broadcast_to(np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None], (size, size))
    water = _water(rng, size, down)
    if pose.background == "water":
        return np.clip(water, 0.0, 1.0).astype(np.float32)
    if pose.background == "coral":
        ground = _coral(rng, size)
    elif pose.background == "sand":
        ground = _sand(rng, size, down)
    elif pose.background == "rock":
        ground = _rock(rng, size)
    else:
        ground = _weed(rng, size)
    horizon = rng.uniform(-0.9, 0.45)  # below 0: the ground fills the picture
    share = (down - horizon + 0.06 * noise(rng, size, 1.9, 1.4)) * rng.uniform(3.0, 9.0)
    return np.clip(_mix(water, ground, share), 0.0, 1.0).astype(np.float32)


def soften(picture: Field, radius: float) -> Field:
    """Gaussian blur by `radius` cells of a picture (3, H, W) in 0 … 1; below a fifth of a cell nothing is done."""
    if radius < 0.2:
        return picture
    image = Image.fromarray(np.clip(picture.transpose(1, 2, 0) * 255.0 + 0.5, 0, 255).astype(np.uint8))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    return soft.transpose(2, 0, 1) / np.float32(255.0)


def light(picture: Field, pose: Pose, rng: np.random.Generator) -> Field:
    """What water, light and sensor make of a picture (3, H, W): cast, fall-off, haze and noise; returns 0 … 1."""
    size = picture.shape[-1]
    across = np.linspace(-1.0, 1.0, size, dtype=np.float32)[None, None]
    cast = np.array([1.0 - 0.34 * pose.depth, 1.0 - 0.06 * pose.depth, 1.0 + 0.04 * pose.depth], dtype=np.float32)
    cast *= np.array([1.0 + 0.09 * pose.warmth, 1.0, 1.0 - 0.09 * pose.warmth], dtype=np.float32)
    haze = np.array([0.16, 0.42, 0.55], dtype=np.float32)[:, None, None]
    veil = np.float32(0.22 * pose.depth)
    lit = picture * (cast[:, None, None] * np.float32(pose.exposure) * (1.0 + np.float32(pose.slope) * across))
    lit = lit * (1.0 - veil) + haze * veil
    lit += rng.standard_normal(lit.shape, dtype=np.float32) * np.float32(pose.noise)
    return np.clip(lit, 0.0, 1.0).astype(np.float32)
