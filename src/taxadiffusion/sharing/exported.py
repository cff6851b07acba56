"""A model in the files that other programs read: the choice of taxa, and the new folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from taxadiffusion.adapter import Adapter
from taxadiffusion.base.lora import merge_lora, unmerge_lora
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.asked import requested_lineage, species_of

MOST_UNASKED = 500
"""Species whose conditions are written where nobody chose: some 100 MB at Stable Diffusion's width."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the folder, and how many conditions are in it."""

    path: Path
    num_conditions: int


def chosen_taxa(adapter: Adapter, names: Sequence[str], *, every: bool) -> list[Lineage]:
    """The taxa that were named, or every species; where nobody chose, every species up to `MOST_UNASKED`.

    Raises `SettingsError` for both or for a model of more, `DataError` for a name that the model does not know.
    """
    if names and every:
        raise SettingsError("name taxa with --taxon, or give --all-species (not both)")
    if names:
        return list(dict.fromkeys(_known(adapter, name) for name in names))
    species = species_of(adapter)
    if len(species) > MOST_UNASKED and not every:
        raise SettingsError(
            f"the model knows {len(species):,} taxa, each with a condition of its own; choose some with --taxon NAME "
            f"(repeatable), or give --all-species"
        )
    return list(species)


def _known(adapter: Adapter, name: str) -> Lineage:
    lineage, note = requested_lineage(adapter, name)
    if note:
        raise DataError(f"--taxon {name!r}: {note}; name a taxon that the model knows")
    return lineage


def file_stem(model: str) -> str:
    """A name for files of a model, from how it was named: its folder's, or the second part of a hub id."""
    path = Path(model)
    last = path.parent.name if path.name == "adapter" and path.parent.name else path.resolve().name
    return _NOT_IN_NAMES.sub("-", last).strip("-.") or "model"


def merged_unet(adapter: Adapter) -> dict[str, Tensor]:
    """The U-Net's weights with the LoRA added, under diffusers' names, float32 on the CPU; the model stays as it was.

    Raises `SettingsError` where the condition has a cross-attention of its own, which is no U-Net's weight.
    """
    refuse_own_attention(adapter)
    unet = adapter.denoiser.backbone.unet
    before = merge_lora(unet)
    try:
        return {
            name.replace(".base_layer.", "."): tensor.detach().to("cpu", copy=True).float().contiguous()
            for name, tensor in unet.state_dict().items()
            if ".lora_A." not in name and ".lora_B." not in name
        }
    finally:
        unmerge_lora(unet, before)


def refuse_own_attention(adapter: Adapter) -> None:
    """Raises `SettingsError` for a model that no other program can hold as a LoRA or a U-Net."""
    if adapter.card.conditioner.extra_tokens:
        raise SettingsError(
            f"the model's conditions ({adapter.card.conditioner.kind}) have a cross-attention of their own, which "
            "neither a LoRA nor a merged U-Net holds; export it with --to diffusers, without --merged"
        )
