"""Going on from an adapter: what a user sets of it, and what is taken over from the adapter's own training."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from taxadiffusion.adapter.card import LOCAL
from taxadiffusion.adapter.model import find_adapter, read_card
from taxadiffusion.files import user_text
from taxadiffusion.sections import RETIRED, OptionalPath, SettingsSection, UserText, free

STEPS = 100
"""Optimizer steps of each stage of a run that goes on, if the user sets none: 3,200 samples of a batch of 32."""

_SECTIONS = ("conditioner", "lora", "optimiser", "training")
_KEYS = (
    "stages.strategy", "stages.lora_in_every_stage", "stages.encoders_in_every_stage", "data.fit", "data.mirror",
    "base.dtype",
)  # fmt: skip


class StartSettings(SettingsSection):
    """Where a run begins."""

    adapter: UserText | None = free(
        None, "go on from this adapter: a directory, a run, a shipped name, a hub id; none: begin anew"
    )
    replay: OptionalPath = free(None, "a prepared set of taxa that the adapter knows: trained again, so that they stay")
    replay_root: OptionalPath = free(None, "where those photographs are now; none: where they were")
    replay_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of the samples that are of start.replay",
        json_schema_extra={"trajectory": "where changed"},
    )


def settings_of(model: str) -> dict[str, Any]:
    """Sections of settings as the adapter's own training had them, with `STEPS`; the user's lie over them.

    Raises `CheckpointError`.
    """
    path, beside = find_adapter(user_text(model))
    card = read_card(path)
    found: dict[str, Any] = {"stages": {"steps": STEPS}, "data": {}, "base": {}, "lora": {}}
    for key, value in card.recipe.items():
        section, _, name = key.partition(".")
        if key not in RETIRED and (key in _KEYS or section in _SECTIONS):
            found.setdefault(section, {})[name] = value
        elif key == "recipe":
            found[key] = value
    found["data"]["ranks"] = list(card.ranks)
    found["base"] |= {"num_tokens": card.num_text_tokens, "image_size_px": card.image_size_px}
    if beside or card.base != LOCAL:
        found["base"]["path"] = beside or card.base
    if card.lora is not None:
        found["lora"] = card.lora.model_dump(mode="json")
    return found
