"""The model card that is written beside an adapter's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxadiffusion.adapter import base_name
from taxadiffusion.config import Settings
from taxadiffusion.names import Rank
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.gradients import TrainingData


def model_card(
    settings: Settings, stages: Sequence[Stage], ranks: Sequence[Rank], data: TrainingData, base: str
) -> str:
    """Markdown with the front matter that the hub reads. It names no path of this machine."""
    name = base_name(base)
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
        ]
    )
