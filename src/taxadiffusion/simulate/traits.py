"""The traits of a simulated fish and how they evolve along a tree: Brownian motion plus jumps, squashed into ranges."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TraitSpec:
    """One trait: its range, how a latent value on the real line becomes it, and what it means.

    `steepness` is the slope of the logistic squash: high values make the trait nearly two-valued; a negative `offset`
    of the latent makes it rare. A circular trait (a hue in degrees) is not squashed: its latent turns the colour wheel
    by `spread` degrees per unit and starts from the hue that it `follows`.
    """

    name: str
    low: float
    high: float
    meaning: str
    steepness: float = 1.5
    offset: float = 0.0
    circular: bool = False
    spread: float = 0.0
    follows: str | None = None


TRAITS: tuple[TraitSpec, ...] = (
    TraitSpec("body_depth", 0.18, 0.70, "greatest depth / length without the tail"),
    TraitSpec("depth_position", 0.30, 0.50, "where the body is deepest, 0 = snout, 1 = tail base"),
    TraitSpec("body_length", 0.80, 1.15, "relative size of the adult"),
    TraitSpec("head_bluntness", 0.0, 1.0, "0 = pointed head, 1 = round head"),
    TraitSpec("snout_length", 0.0, 1.0, "0 = none, 1 = drawn out into a beak", 2.0, -0.5),
    TraitSpec("belly", 0.40, 0.58, "share of the depth below the midline"),
    TraitSpec("peduncle_depth", 0.06, 0.15, "depth of the tail base / length"),
    TraitSpec("dorsal_height", 0.05, 0.36, "height of the fin on the back / length"),
    TraitSpec("dorsal_start", 0.20, 0.42, "where the fin on the back begins"),
    TraitSpec("dorsal_peak", 0.12, 0.88, "where the fin on the back is highest, 0 = its front, 1 = its end"),
    TraitSpec("anal_height", 0.05, 0.30, "height of the anal fin / length"),
    TraitSpec("anal_peak", 0.12, 0.88, "where the anal fin is highest"),
    TraitSpec("pelvic_length", 0.07, 0.28, "length of the pelvic fin / length"),
    TraitSpec("pectoral_length", 0.11, 0.24, "length of the pectoral fin / length"),
    TraitSpec("tail_length", 0.17, 0.36, "length of the tail fin / length"),
    TraitSpec("tail_height", 0.22, 0.60, "spread of the tail fin / length"),
    TraitSpec("tail_fork", -0.45, 0.75, "below 0 = rounded, 0 = straight, above 0 = forked", 2.0),
    TraitSpec("eye_size", 0.024, 0.055, "radius of the eye / length"),
    TraitSpec("eye_stripe", 0.0, 1.0, "strength of a dark stripe through the eye", 3.0, -0.3),
    TraitSpec("bar_strength", 0.0, 1.0, "opacity of bars or stripes", 5.0, 0.2),
    TraitSpec("bar_count", 1.0, 7.0, "number of bars or stripes along the body"),
    TraitSpec("bar_width", 0.18, 0.55, "share of the distance between bars that a bar covers"),
    TraitSpec("bar_angle", 0.0, 90.0, "0 = upright bars, 90 = lengthwise stripes, degrees", 6.0),
    TraitSpec("spot_strength", 0.0, 1.0, "opacity of spots", 5.0, -0.6),
    TraitSpec("spot_size", 0.25, 0.75, "diameter of a spot / distance between spots"),
    TraitSpec("spot_count", 6.0, 16.0, "spots along the body"),
    TraitSpec("eyespot", 0.0, 1.0, "strength of one large ringed spot near the tail", 6.0, -0.8),
    TraitSpec("body_hue", 0.0, 360.0, "hue of the flank, degrees", circular=True, spread=110.0),
    TraitSpec("body_saturation", 0.08, 0.92, "saturation of the flank", 2.0),
    TraitSpec("body_brightness", 0.22, 0.98, "brightness of the flank", 2.0),
    TraitSpec("back_hue", 0.0, 360.0, "hue of the back", circular=True, spread=50.0, follows="body_hue"),
    TraitSpec("back_darkness", 0.0, 0.75, "how much darker the back is than the flank"),
    TraitSpec("countershading", 0.0, 0.75, "how pale the belly is"),
    TraitSpec("fin_hue", 0.0, 360.0, "hue of the fins", circular=True, spread=80.0, follows="body_hue"),
    TraitSpec("fin_saturation", 0.05, 0.88, "saturation of the fins", 2.0),
    TraitSpec("fin_brightness", 0.15, 0.98, "brightness of the fins", 2.0),
    TraitSpec("mark_hue", 0.0, 360.0, "hue of bars and spots", circular=True, spread=110.0),
    TraitSpec("mark_saturation", 0.0, 0.9, "saturation of bars and spots", 3.0),
    TraitSpec("mark_brightness", 0.06, 0.97, "brightness of bars and spots", 5.0),
)
"""Every trait, in the order of `Traits` and of the latent vector."""

TRAIT_NAMES: tuple[str, ...] = tuple(spec.name for spec in TRAITS)


def _favoured_hue(angle: float) -> float:
    """Turn an angle into a hue in 0 … 360 that dwells on what reef fish wear: yellow to orange, and blue."""
    return (angle - math.degrees(0.34 * math.sin(2.0 * math.radians(angle - 42.0)))) % 360.0


@dataclass(frozen=True, slots=True)
class Traits:
    """The true traits of one species; meaning, unit and range of each stand in `TRAITS`."""

    body_depth: float
    depth_position: float
    body_length: float
    head_bluntness: float
    snout_length: float
    belly: float
    peduncle_depth: float
    dorsal_height: float
    dorsal_start: float
    dorsal_peak: float
    anal_height: float
    anal_peak: float
    pelvic_length: float
    pectoral_length: float
    tail_length: float
    tail_height: float
    tail_fork: float
    eye_size: float
    eye_stripe: float
    bar_strength: float
    bar_count: float
    bar_width: float
    bar_angle: float
    spot_strength: float
    spot_size: float
    spot_count: float
    eyespot: float
    body_hue: float
    body_saturation: float
    body_brightness: float
    back_hue: float
    back_darkness: float
    countershading: float
    fin_hue: float
    fin_saturation: float
    fin_brightness: float
    mark_hue: float
    mark_saturation: float
    mark_brightness: float

    @classmethod
    def from_latent(cls, latent: NDArray[np.float64]) -> Traits:
        """Squash a latent vector (len(TRAITS),) on the real line into the ranges of `TRAITS`."""
        values: dict[str, float] = {}
        angles: dict[str, float] = {}
        for spec, z in zip(TRAITS, latent.tolist(), strict=True):
            if spec.circular:
                angles[spec.name] = (angles[spec.follows] if spec.follows else 0.0) + spec.spread * z
                values[spec.name] = _favoured_hue(angles[spec.name])
            else:
                share = 1.0 / (1.0 + float(np.exp(-spec.steepness * (z + spec.offset))))
                values[spec.name] = spec.low + (spec.high - spec.low) * share
        return cls(**values)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Traits:
        """A fish of no clade: every trait on its own, over the whole range a clade may reach."""
        latent = rng.normal(0.0, 1.1, len(TRAITS))
        hues = [index for index, spec in enumerate(TRAITS) if spec.circular and spec.follows is None]
        latent[hues] = rng.uniform(0.0, 360.0, len(hues)) / np.array([TRAITS[index].spread for index in hues])
        return cls.from_latent(latent)

    def values(self) -> dict[str, float]:
        """Trait name → value, in the order of `TRAITS`."""
        return {name: getattr(self, name) for name in TRAIT_NAMES}

    def rgb(self, part: str) -> NDArray[np.float32]:
        """The colour of "body", "back", "belly", "fin" or "mark": (3,) in 0 … 1, before light falls on it."""
        hue, saturation, brightness = {
            "body": (self.body_hue, self.body_saturation, self.body_brightness),
            "back": (self.back_hue, self.body_saturation, self.body_brightness * (1.0 - self.back_darkness)),
            "belly": (
                self.body_hue,
                self.body_saturation * (1.0 - self.countershading),
                self.body_brightness + (0.97 - self.body_brightness) * self.countershading,
            ),
            "fin": (self.fin_hue, self.fin_saturation, self.fin_brightness),
            "mark": (self.mark_hue, self.mark_saturation, self.mark_brightness),
        }[part]
        return np.array(colorsys.hsv_to_rgb(hue / 360.0, saturation, brightness), dtype=np.float32)


EARLY_BURST = 2.0  # the rate of change falls as exp(-2 t/age): families part early and far, species late and little
JUMP_RATE = 0.6  # expected jumps per trait along one lineage from root to tip
JUMP_SD = 0.8
SPECIATION_SD = 0.09  # what parts even the youngest sister species


def evolve(parents: NDArray[np.int64], times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Latent traits (N, len(TRAITS)) of the N nodes of a tree, by Brownian motion plus jumps down each branch.

    `parents[i]` is the node above node i and smaller than i (-1 for the root); `times[i]` in 0 … 1 is when node i
    splits (1 = today). Rates decline from root to tip (early burst; Harmon et al. 2010, Evolution 64:2385), which keeps
    a genus alike; the variance gathered by Brownian motion from root to tip is 1.
    """
    latents = np.zeros((len(parents), len(TRAITS)))
    latents[0] = rng.normal(0.0, 0.3, len(TRAITS))
    for index, spec in enumerate(TRAITS):
        if spec.circular and spec.follows is None:
            latents[0, index] = rng.uniform(0.0, 360.0) / spec.spread

    def gathered(time: float) -> float:
        return float((1.0 - np.exp(-EARLY_BURST * time)) / (1.0 - np.exp(-EARLY_BURST)))

    for node in range(1, len(parents)):
        parent = int(parents[node])
        share = gathered(float(times[node])) - gathered(float(times[parent]))
        jumps = rng.poisson(JUMP_RATE * share, len(TRAITS))
        variance = share + SPECIATION_SD**2 + JUMP_SD**2 * jumps
        latents[node] = latents[parent] + rng.normal(0.0, 1.0, len(TRAITS)) * np.sqrt(variance)
    return latents
