"""The demo's plan, read from `demo.yaml`: what it runs, and the commands that run the same."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from taxadiffusion.adapter import Adapter
from taxadiffusion.config import Settings, parse
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.asked import requested_lineage, species_of
from taxadiffusion.pictures.generate import Sampling
from taxadiffusion.sampler import Request

PLAN_FILE = Path(__file__).with_name("demo.yaml")
TRAIN_FILE = "train.yaml"
"""Where the demo writes the settings of its training, below its folder."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Simulation(_Part):
    """A `simulate`."""

    out: str
    seed: int
    num_species: int
    num_images: int

    @property
    def command(self) -> list[str]:
        """Its words after `taxadiffusion`."""
        numbers = {"--seed": self.seed, "--num-species": self.num_species, "--num-images": self.num_images}
        return ["simulate", self.out, *(word for option, number in numbers.items() for word in (option, str(number)))]


class Drawing(_Part):
    """A `generate`: of which model, which taxa (none: all species), how, and where to."""

    model: str
    taxa: tuple[str, ...] = ()
    lineage_strip: bool = False
    num_images: int
    guidance_scale: float
    num_steps: int
    batch_size: int
    out: str

    @property
    def command(self) -> list[str]:
        """Its words after `taxadiffusion`."""
        numbers = {
            "--num-images": self.num_images,
            "--guidance-scale": self.guidance_scale,
            "--steps": self.num_steps,
            "--batch-size": self.batch_size,
        }
        return [
            *("generate", self.model, *(self.taxa or ("--all-species",))),
            *(["--lineage-strip"] if self.lineage_strip else []),
            *(word for option, number in numbers.items() for word in (option, f"{number:g}")),
            *("--out", self.out),
        ]

    @property
    def sampling(self) -> Sampling:
        """How its pictures are made."""
        return Sampling(num_steps=self.num_steps, batch_size=self.batch_size)

    def lineages(self, adapter: Adapter) -> list[Lineage]:
        """Of its taxa. Raises `DataError` for one that the model does not know."""
        return [requested_lineage(adapter, taxon)[0] for taxon in self.taxa] or list(species_of(adapter))

    def requests(self, adapter: Adapter) -> list[Request]:
        """Its pictures, in the order in which the command makes them."""
        lineages = self.lineages(adapter)
        if self.lineage_strip:
            lineages = [lineage.truncated(rank) for lineage in lineages for rank in lineage.ranks]
        guidance, seeds = Guidance(self.guidance_scale), range(self.num_images)
        return [Request(lineage, seed, guidance) for lineage in dict.fromkeys(lineages) for seed in seeds]


class Shown(_Part):
    """A shipped model: pictures of all its species, and of some the same seed from coarse to fine."""

    title: str
    photographs: str
    """Of what it learned from, in a sentence."""
    gallery: Drawing
    strips: Drawing


class Plan(_Part):
    """All that the demo runs, in this order; `prepare`, between drawing and training, has no options. Paths are below
    the demo's folder."""

    shipped: tuple[Shown, ...]
    simulate: Simulation
    train: dict[str, Any]
    pictures: Drawing

    @property
    def settings(self) -> Settings:
        """Of the training. Raises `SettingsError`."""
        return parse(self.train, source=str(PLAN_FILE))

    @property
    def train_file(self) -> str:
        """The text of `train.yaml`."""
        return yaml.safe_dump(self.train, sort_keys=False)

    @property
    def commands(self) -> list[str]:
        """What a person types in a folder that holds `train.yaml` alone, for the same pictures."""
        prepared = str(self.settings.data.path)
        words = [
            *(drawing.command for model in self.shipped for drawing in (model.gallery, model.strips)),
            *(self.simulate.command, ["prepare", self.simulate.out, prepared]),
            *(["train", TRAIN_FILE], self.pictures.command),
        ]
        return [shlex.join(["taxadiffusion", *command]) for command in words]


def read_plan(seed: int | None = None) -> Plan:
    """The shipped plan; with another seed of the simulated clade."""
    plan = Plan.model_validate(yaml.safe_load(PLAN_FILE.read_text(encoding="utf-8")))
    if seed is None:
        return plan
    return plan.model_copy(update={"simulate": plan.simulate.model_copy(update={"seed": seed})})
