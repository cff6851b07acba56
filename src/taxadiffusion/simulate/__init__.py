"""A simulated clade: traits evolved along a birth-death tree, drawn as pictures, with the true traits beside them."""

from taxadiffusion.simulate.captions import VOCABULARY, caption, colour_word
from taxadiffusion.simulate.clade import DEFAULT_RANKS, Clade
from taxadiffusion.simulate.draw import draw, image_rng, photograph
from taxadiffusion.simulate.measurands import MEASURANDS
from taxadiffusion.simulate.meter import TraitMeter
from taxadiffusion.simulate.pose import BACKGROUNDS, Pose
from taxadiffusion.simulate.trait_error import (
    TraitError,
    ancestor_truth,
    legible,
    species_spread,
    taxon_truth,
    trait_error,
)
from taxadiffusion.simulate.traits import TRAIT_NAMES, TRAITS, Traits, TraitSpec
from taxadiffusion.simulate.write import Simulated, read_clade, simulate

__all__ = [
    "BACKGROUNDS",
    "DEFAULT_RANKS",
    "MEASURANDS",
    "TRAITS",
    "TRAIT_NAMES",
    "VOCABULARY",
    "Clade",
    "Pose",
    "Simulated",
    "TraitError",
    "TraitMeter",
    "TraitSpec",
    "Traits",
    "ancestor_truth",
    "caption",
    "colour_word",
    "draw",
    "image_rng",
    "legible",
    "photograph",
    "read_clade",
    "simulate",
    "species_spread",
    "taxon_truth",
    "trait_error",
]
