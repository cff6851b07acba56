"""The adapter that a run goes on from: opened, held against the run's settings and names, and put into the denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from taxadiffusion.adapter import AdapterCard, Learned, find_adapter, read_adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.config import Settings
from taxadiffusion.dataset.findings import Tree, all_conflicts
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.run.photographs import Photographs, ordered_extra
from taxadiffusion.taxonomy import Taxonomy

_MAX_LISTED = 10


@dataclass(frozen=True)
class Known:
    """An adapter that a run goes on from. name: as others may read it, without a path of this machine."""

    name: str
    card: AdapterCard
    taxonomy: Taxonomy
    state: Mapping[str, Mapping[str, Tensor]]

    def learned(self) -> tuple[Learned, ...]:
        """Its past, for the new adapter's card."""
        return self.card.learned or (Learned(),)


def open_known(settings: Settings) -> Known | None:
    """The adapter of `start.adapter`; None: the run begins anew. Raises `CheckpointError`, `SettingsError`."""
    model, start = settings.start.adapter, settings.start
    if model is None:
        if start.replay is not None:
            raise SettingsError("start.replay keeps what an adapter knows: say which one (start.adapter, --from)")
        return None
    path, _ = find_adapter(model)
    card, taxonomy, state = read_adapter(path)
    ranks = settings.data.ranks or card.ranks
    if tuple(ranks) != card.ranks:
        raise SettingsError(
            f"data.ranks: {', '.join(ranks)}, but the adapter {model} was trained on {', '.join(card.ranks)}: "
            "leave data.ranks out"
        )
    name = path.parent.name if path.name == "adapter" else path.name
    return Known(model if not Path(model).exists() else name, card, taxonomy, state)


def require_same_names(known: Known, photographs: Photographs) -> None:
    """Raises `DataError` where a name stands below one parent in the adapter and another one in the data."""

    def found(taxonomy: Taxonomy) -> dict[tuple[str, str, str], list[str]]:
        tree = Tree(taxonomy, np.ones(len(taxonomy), np.int64), [""] * len(taxonomy))
        return {(c.rank, c.name, c.parent_rank): [name for name, _, _ in c.parents] for c in all_conflicts(tree)}

    before, now = found(known.taxonomy), found(photographs.taxonomy)
    lines = []
    for (rank, name, parent_rank), parents in now.items():
        if (rank, name, parent_rank) not in before:
            theirs = known.taxonomy.ranks.index(parent_rank)
            mine = {known.taxonomy.name(taxon) for taxon in known.taxonomy.at_rank(known.taxonomy.ranks[theirs])}
            there, here = [p for p in parents if p in mine], [p for p in parents if p not in mine]
            lines.append(
                f"{rank} {name} lies in {parent_rank} {', '.join(there or parents)} there, "
                f"in {', '.join(here or parents)} here"
            )
    if lines:
        more = f"\n  … and {len(lines) - _MAX_LISTED} more" if len(lines) > _MAX_LISTED else ""
        raise DataError(
            f"{photographs.sets[0].path} and the adapter {known.name} contradict each other:\n  "
            + "\n  ".join(lines[:_MAX_LISTED])
            + more
            + "\nGive the photographs the adapter's names (prepare --fix)"
        )


def require_same_model(known: Known, settings: Settings, backbone: Backbone, denoiser: Denoiser) -> None:
    """Raises `SettingsError` where the run's base or method is not the adapter's."""
    card, own = known.card, denoiser.conditioner.settings
    if backbone.content_hash != card.base_hash:
        raise SettingsError(
            f"base.path: the adapter {known.name} belongs to base {card.base!r} with content {card.base_hash[:12]}…, "
            f"but {backbone.name!r} has {backbone.content_hash[:12]}…: say where its base is (--set base.path=PATH)"
        )
    theirs, mine = card.conditioner.model_dump(mode="json"), own.model_dump(mode="json")
    wrong = [
        f"{key}: {theirs.get(key)} → {mine.get(key)}"
        for key in sorted({*theirs, *mine})
        if theirs.get(key) != mine.get(key)
    ]
    if card.lora != backbone.lora_settings:
        wrong.append(f"lora: {card.lora} → {backbone.lora_settings}")
    if card.full_unet != denoiser.full_unet:
        wrong.append(f"the whole U-Net is trained: {card.full_unet} → {denoiser.full_unet}")
    if card.num_text_tokens != backbone.num_text_tokens:
        wrong.append(f"base.num_tokens: {card.num_text_tokens} → {backbone.num_text_tokens}")
    if wrong:
        raise SettingsError(
            f"the adapter {known.name} was made by another method than stages.strategy = {settings.stages.strategy} "
            "with these settings:\n  " + "\n  ".join(wrong) + "\nLeave them out: they come from the adapter"
        )


def carry_over(known: Known, denoiser: Denoiser) -> None:
    """Give the denoiser the adapter's weights; what new taxa need beside them stays as it was begun."""
    state = {section: dict(tensors) for section, tensors in known.state.items()}
    if "conditioner" in state:
        ranks = denoiser.conditioner.ranks
        taxa = (known.taxonomy.lineage(taxon).only(ranks) for taxon in range(len(known.taxonomy)))
        state["conditioner"] = denoiser.conditioner.carried(state["conditioner"], taxa)
    denoiser.load_state(state, f"the adapter {known.name}")


def words(known: Known, photographs: Photographs, ranks: Sequence[Rank]) -> tuple[str, ...]:
    """What a person should know, a line each."""
    taxonomy, num_known = photographs.taxonomy, photographs.num_known
    new = [taxon for taxon in range(num_known, len(taxonomy)) if taxonomy.rank(taxon) in ranks]
    counts = {rank: sum(taxonomy.rank(taxon) == rank for taxon in new) for rank in ranks}
    listed = ", ".join(f"{number} {rank}" for rank, number in counts.items() if number) or "no taxa"
    lines = [f"going on from {known.name} ({known.card.content_hash[:12]}…): {num_known:,} taxa known, new: {listed}"]
    if extra := ordered_extra(photographs.sets[0], known.taxonomy):
        lines.append(f"the adapter has no rank {', '.join(extra)}: these names are left out")
    if len(photographs.replay_rows):
        lines.append(f"replayed, so that old taxa stay: {len(photographs.replay_rows):,} photographs")
    else:
        lines.append("no photographs of old taxa are replayed (--replay): the model will forget some of them")
    return tuple(lines)
