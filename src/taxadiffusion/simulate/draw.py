"""One picture of a simulated fish: place the animal by its pose, paint it over a background, light it, reduce it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.simulate.fish import Painter
from taxadiffusion.simulate.pose import Pose
from taxadiffusion.simulate.scene import background, light, soften
from taxadiffusion.simulate.traits import Traits

SUPERSAMPLING = 2  # on top of coverages that fall over one cell


def image_rng(seed: int, species: int, index: int) -> np.random.Generator:
    """The generator of image `index` of species number `species`: pose first, then the picture; nothing else enters."""
    return np.random.default_rng([seed, 2, species, index])


def photograph(
    traits: Traits, seed: int, species: int, index: int, size_px: int = 64
) -> tuple[Pose, NDArray[np.uint8]]:
    """Pose and picture (3, size_px, size_px) of image `index` of a species: a function of its arguments.

    Images 2k and 2k + 1 of a species come from one dive: they share place, water and light, and stay on one side of
    a split.
    """
    rng = image_rng(seed, species, index)
    dive = Pose.sample(np.random.default_rng([seed, 3, species, dive_of(index)]))
    pose = replace(
        Pose.sample(rng), background=dive.background, depth=dive.depth, exposure=dive.exposure, warmth=dive.warmth
    )
    return pose, draw(traits, pose, rng, size_px)


def dive_of(index: int) -> int:
    """The dive of a species' image `index`."""
    return index // 2


def draw(traits: Traits, pose: Pose, rng: np.random.Generator, size_px: int = 64) -> NDArray[np.uint8]:
    """A picture, uint8 (3, size_px, size_px). `rng` gives the textures; equal arguments give an equal picture."""
    size = size_px * SUPERSAMPLING
    scene = soften(background(pose, rng, size), size * rng.uniform(0.0, 0.02))
    u, v, edge = _fish_coordinates(traits, pose, size)
    fish = Painter(traits, u, v, edge, phase=0.25).paint()
    picture = fish.colour + scene * (1.0 - fish.coverage)
    picture = soften(picture, size * pose.blur)
    reduced = picture.reshape(3, size_px, SUPERSAMPLING, size_px, SUPERSAMPLING).mean(axis=(2, 4))
    return (light(reduced, pose, rng) * 255.0 + 0.5).astype(np.uint8)


def body_length(traits: Traits, pose: Pose) -> float:
    """Length of the body without the tail as a share of the picture's width, before it is turned away from the camera.

    Fish with high fins are drawn smaller where they would not fit.
    """
    height = traits.body_depth + 0.8 * (traits.dorsal_height + traits.anal_height)
    return min(pose.scale * traits.body_length / (1.0 + traits.tail_length), 0.92 / height)


def _fish_coordinates(traits: Traits, pose: Pose, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Fish coordinates u, v (size, size) of every cell and the size of a cell in them; see `fish`."""
    length = 1.0 + traits.tail_length
    unit = body_length(traits, pose)
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x = (centres[None, :] - pose.centre_x) / unit
    y = (-centres[:, None] - pose.centre_y) / unit
    radians = np.deg2rad(pose.rotation)
    cos, sin = np.float32(np.cos(radians)), np.float32(np.sin(radians))
    along, across = cos * x + sin * y, cos * y - sin * x
    if pose.facing == "right":
        along = -along
    u = along / np.float32(np.cos(np.deg2rad(pose.yaw))) + np.float32(length / 2.0)
    behind = np.maximum(u - 0.35, 0.0)
    v = across - np.float32(pose.bend) * behind**2
    return u.astype(np.float32), v.astype(np.float32), 1.0 / (size * unit)
