"""Preview sheets: the same taxa from the same seeds, as the run's weights draw them now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import NonFiniteError
from taxadiffusion.guidance import Guidance
from taxadiffusion.images import image_grid
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sampler import Request, Sampler

_COLUMNS = 8
_BATCH = 8


def preview_taxa(taxa: Sequence[Lineage], number: int) -> list[Lineage]:
    """`number` of the taxa known to the finest rank, spread evenly over them."""
    finest = max((len(lineage.names) for lineage in taxa), default=0)
    deep = [lineage for lineage in taxa if lineage and len(lineage.names) == finest]
    count = min(number, len(deep))
    return [deep[index * len(deep) // count] for index in range(count)]


def preview_sheet(
    denoiser: Denoiser,
    taxa: Sequence[Lineage],
    rank: Rank,
    *,
    num_steps: int,
    guidance_scale: float,
    size_px: int | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Image.Image | None:
    """One picture a taxon at `rank`, captioned. None when `give_up` said so between two batches, or when a picture is
    blank, as it may be early in training."""
    lineages = list(dict.fromkeys(lineage.truncated(rank) for lineage in taxa))
    guidance = Guidance(guidance_scale)
    requests = [Request(lineage, seed, guidance) for seed, lineage in enumerate(lineages)]
    sampler = Sampler(denoiser, size_px=size_px)
    images = []
    for start in range(0, len(requests), _BATCH):
        if give_up():
            return None
        try:
            batch = sampler(requests[start : start + _BATCH], num_steps=num_steps, batch_size=_BATCH)
            images += [sample.image for sample in batch]
        except NonFiniteError:
            return None
    captions = [lineage.label for lineage in lineages]
    return image_grid(images, _COLUMNS, captions, cell_px=max(96, images[0].shape[1])) if images else None
