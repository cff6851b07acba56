"""The model card that is written beside an adapter's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxadiffusion.adapter import Learned, base_name
from taxadiffusion.config import Settings
from taxadiffusion.run.kept import Kept
from taxadiffusion.run.ready import Ready
from taxadiffusion.trainer.gradients import TrainingData


def model_card(settings: Settings, parts: Ready, data: TrainingData, past: Sequence[Learned], kept: Kept | None) -> str:
    """Markdown with the front matter that the hub reads. It names no path of this machine.

    past: every training of these weights, this one last. kept: what old taxa lost, where there are any.
    """
    stages, ranks, name = parts.plan, parts.ranks, base_name(parts.backbone.name)
    front = ["library_name: diffusers", "tags: [taxadiffusion, text-to-image, species, biodiversity]"]
    if "/" in name:
        front.append(f"base_model: {name}")
    counts = np.unique(data.taxon_ids[data.train_rows], return_counts=True)[1]
    rows = [f"| {stage.name} | {stage.rank} | {stage.num_steps:,} | {', '.join(stage.trains)} |" for stage in stages]
    return "\n".join(
        [
            "---",
            *front,
            "---",
            f"# Species of `{settings.data.path.name}`",
            "",
            f"A TaxaDiffusion adapter for the base `{name}`: it draws taxa by their lineage ({', '.join(ranks)}).",
            f"Trained on {len(data.train_rows):,} images of {len(counts):,} taxa ({counts.min()} to {counts.max():,} "
            "images each).",
            "Its pictures are synthetic: they show what a taxon looks like in the training images, wrong labels "
            "included, "
            "and are no evidence that an organism was ever seen. The licences of the training images apply to it.",
            "",
            "    taxadiffusion generate PATH/TO/THIS/FOLDER TAXON",
            "",
            f"Recipe `{settings.recipe}`, strategy `{settings.stages.strategy}`, batches of "
            f"{settings.training.batch_size}, seed {settings.seed}; every setting stands in `adapter.json`.",
            "",
            "| stage | condition down to | steps | trained |",
            "|---|---|---|---|",
            *rows,
            "",
            *_past(past),
            *(["## What old taxa lost", "", *kept.lines()] if kept else []),
        ]
    )


def _past(past: Sequence[Learned]) -> list[str]:
    """What each training saw, the first one first; nothing where there was one alone, for it is told above."""
    if len(past) == 1:
        return []
    lines = ["## What it learned from", ""]
    for number, learned in enumerate(past, 1):
        start = (
            f"went on from `{learned.from_adapter}` (card sha256 `{learned.from_hash}`)"
            if learned.from_hash
            else "began"
        )
        sets = [
            f"{one.num_photographs:,} photographs of {one.num_taxa:,} taxa of `{one.name}` "
            f"(content `{one.content_hash}`{', replayed' if one.replayed else ''})"
            for one in learned.sets or ()
        ]
        lines.append(
            f"{number}. {start}: {'; '.join(sets) or 'photographs not recorded; see the card of that adapter'}"
        )
    return [*lines, ""]
