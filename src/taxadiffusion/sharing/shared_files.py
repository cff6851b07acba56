"""What is sent of a model: its own verified files, a card, pictures that it drew. Never a photograph."""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

from taxadiffusion.adapter import CARD, READ_ME, TAXONOMY, Adapter, open_model
from taxadiffusion.base.device import chosen_device
from taxadiffusion.base.weights import base_files
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance
from taxadiffusion.pictures.asked import species_of
from taxadiffusion.pictures.generate import generate
from taxadiffusion.pictures.recipe import TABLE
from taxadiffusion.sampler import Request
from taxadiffusion.sharing.diffusers_folder import pipeline_files
from taxadiffusion.sharing.generated_set import recipe_in
from taxadiffusion.sharing.hub import Files
from taxadiffusion.sharing.measured import evaluation_beside, read_measured
from taxadiffusion.sharing.model_card import Shared, model_card
from taxadiffusion.sharing.photographs import photographs_learnt, taxa_known
from taxadiffusion.taxonomy import NAMES, names_beside

Tell = Callable[[str], object]

Gallery = dict[str, tuple[str, bytes]]
"""Taxon's label → name and content of a picture of it."""

GALLERY = "pictures"
_ITSELF = {"_class_name": ["pipeline", "HubPipeline"], "_diffusers_version": diffusers.__version__}
"""`model_index.json` where no base is sent along: diffusers then finds our pipeline by itself."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the one who shares chose; the options of `taxadiffusion push`."""

    repo: str
    licence: str
    data: Path | None = None
    root: Path | None = None
    evaluation: Path | None = None
    method: str | None = None
    pictures: Path | None = None
    num_pictures: int = 4
    datasets: Sequence[str] = ()
    with_base: bool = False


def model_files(
    model: str,
    chosen: Choices,
    *,
    base: str | None = None,
    device: str = "auto",
    draw: bool = True,
    tell: Tell = lambda _: None,
) -> Files:
    """Path in the repository → content. draw: the gallery's pictures are drawn where no folder of them is given.

    Raises `SettingsError` for a model that nobody could open (its base is a local directory and is not sent along),
    `DataError` for data, an evaluation or pictures of another model, `CheckpointError` as `open_model`.
    """
    adapter = open_model(model, base=base, device=chosen_device(device))
    if adapter.card.base == "local" and not chosen.with_base:
        raise SettingsError(
            f"{model}: its base is a directory of this machine, so nobody else could use the model: send it along with "
            "--with-base, if its licence allows that"
        )
    learnt = taxa_known(adapter)
    if chosen.data is not None:
        tell("counting photographs and licences")
        learnt = photographs_learnt(adapter, PreparedDataset.open(chosen.data, chosen.root))
    found = chosen.evaluation or evaluation_beside(adapter.path)
    measured = read_measured(found, chosen.method, adapter.card.content_hash) if found else None
    gallery = _gallery(adapter, chosen, draw=draw, tell=tell)
    shared = Shared(
        chosen.repo,
        chosen.licence,
        chosen.datasets,
        {taxon: f"{GALLERY}/{name}" for taxon, (name, _) in gallery.items()},
    )
    training = (adapter.path / READ_ME).read_text(encoding="utf-8") if (adapter.path / READ_ME).is_file() else ""
    card = model_card(adapter, shared, learnt, measured, training)
    return {
        **_weights(adapter, with_base=chosen.with_base),
        **{name: text.encode() for name, text in pipeline_files().items()},
        **{f"{GALLERY}/{name}": content for name, content in gallery.values()},
        "README.md": card.encode(),
    }


def _weights(adapter: Adapter, *, with_base: bool) -> dict[str, bytes | Path]:
    """The adapter's files, those of its card, its common names and no others.

    With the base they lie the way `save_pretrained` lays them out.
    """
    own = {name: adapter.path / name for name in (CARD, TAXONOMY, *adapter.card.files)}
    if (names := names_beside(adapter.path)) is not None:
        own[NAMES] = names
    if not with_base:
        index = {"model_index.json": (json.dumps(_ITSELF, indent=1) + "\n").encode()}
        return {**index, **own}
    base = adapter.denoiser.backbone.path
    return {
        **{path.relative_to(base).as_posix(): path for path in base_files(base)},
        **{f"adapter/{name}": path for name, path in own.items()},
    }


def _gallery(adapter: Adapter, chosen: Choices, *, draw: bool, tell: Tell) -> Gallery:
    """Pictures of some taxa by this model: chosen, or drawn."""
    if not chosen.num_pictures:
        return {}
    if chosen.pictures is not None:
        return _chosen_pictures(adapter, chosen.pictures, chosen.num_pictures)
    if not draw:
        return {}
    species = species_of(adapter)
    step = max(1, len(species) // chosen.num_pictures)
    taxa = species[::step][: chosen.num_pictures]
    requests = [Request(lineage, 0, Guidance(DEFAULT_SCALE)) for lineage in taxa]
    drawn: Gallery = {}
    tell(f"drawing {len(requests)} pictures for the gallery")
    with tempfile.TemporaryDirectory() as folder:
        for picture in generate(adapter, requests, Path(folder)):
            drawn[picture.request.lineage.label] = picture.path.name, picture.path.read_bytes()
            tell(f"drawing the gallery: {len(drawn)} of {len(requests)}")
    return drawn


def _chosen_pictures(adapter: Adapter, folder: Path, number: int) -> Gallery:
    """One of each taxon. Raises `DataError` for a picture that another model made, or that is no picture of ours."""
    table = folder / TABLE
    if not table.is_file():
        raise DataError(f"{folder}: no {TABLE}; give a folder that `taxadiffusion generate` made")
    mine = hashlib.sha256(adapter.card.model_dump_json().encode()).hexdigest()
    found: Gallery = {}
    with table.open(encoding="utf-8", newline="") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    for row in rows:
        path = folder / str(row.get("file_name"))
        recipe = recipe_in(path)
        if recipe.get("model_sha256") != mine:
            raise DataError(f"{path}: was made by another model; the gallery shows this one's pictures alone")
        if recipe["scientific_name"] not in found and len(found) < number:
            found[recipe["scientific_name"]] = path.name, path.read_bytes()
    return found
