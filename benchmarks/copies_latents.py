"""Would latents find more copies than pictures do? Both at 1 % false alarms, of the same planted copies.

`python -m benchmarks.copies_latents --data PREPARED --onnx FILE --base base-128 [--adapter MODEL]`. Latents of its
autoencoder are compared in three ways: as they lie, laid into 28 windows of a frame by resampling, and encoded anew
from the picture laid into each window. Always over the mirror, against the same candidates, judged by the same
standing above them. `--large PX ...` times the encoder of Stable Diffusion's configuration, with random weights.
"""

# Letters: N images, C latent channels, H W size, S latent cells along a side, V windows, K candidates.
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.copies import EXPECTED, denoising, features_of, opened
from taxadiffusion.adapter import open_model
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.evaluate import copies
from taxadiffusion.evaluate.planted import JUDGED, Images, Planter
from taxadiffusion.metrics.copies import candidates, contrast_maps, likeness, standing, threshold_at
from taxadiffusion.report.tables import markdown_table

Floats = NDArray[np.floating]
Window = tuple[float, float, float]
"""Scale, top and left of what is laid into a frame, in sides of the frame."""

WHOLE: Window = (1.0, 0.0, 0.0)
WINDOWS: tuple[Window, ...] = (
    WHOLE,
    *((s, top * (1 - s), left * (1 - s)) for s, top, left in product((0.95, 0.9, 0.85), (0, 0.5, 1), (0, 0.5, 1))),
)

Laid = Callable[[Images], Iterator[Tensor]]
"""(N, 3, h, w) → for each picture its latents (V, C, S, S) in each window, then those of its mirror image."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    _, extractor, _, train, unseen = opened(options)
    backbone = Backbone.load(options.base)
    originals = copies.drawn(train, options.planted, options.seed)
    denoise = None
    if options.adapter:
        denoise = denoising(open_model(options.adapter), [train.lineages[i] for i in originals])
    planter = Planter(backbone, denoise)
    chosen = copies.drawn(unseen, options.unseen, options.seed)
    if threshold_at(np.zeros(len(chosen)), EXPECTED) is None:  # drawn evenly over the taxa, so fewer than asked for
        sys.exit(f"{len(chosen)} unseen photographs set no threshold at {EXPECTED:.0%}; ask for more with --unseen")
    passed = planter.through_autoencoder(np.stack([unseen.load(int(i), options.size_px) for i in chosen]))
    planted = planter(np.stack([train.load(int(i), options.size_px) for i in originals]), options.seed)
    sets = {"unseen": passed, **planted}
    everything = np.stack([train.load(i, options.size_px) for i in range(len(train.files))])
    likely = {
        name: candidates(features_of(extractor, x), train.features, copies.NUM_CANDIDATES) for name, x in sets.items()
    }
    found: dict[str, dict[str, Floats]] = {}
    spent: dict[str, float] = {}

    before = time.process_time()
    maps = contrast_maps(everything)
    found["pictures"] = {n: standing(likeness(contrast_maps(x), maps, likely[n])["picture"]) for n, x in sets.items()}
    spent["pictures"] = time.process_time() - before
    del maps
    latents = _encoded(backbone, everything)
    side = latents.shape[-1]
    ways: dict[str, tuple[Laid, tuple[Window, ...]]] = {
        "latents as they lie": (lambda x: _resampled(backbone, x, (WHOLE,)), (WHOLE,)),
        "latents resampled": (lambda x: _resampled(backbone, x, WINDOWS), WINDOWS),
        "latents encoded anew": (lambda x: _anew(backbone, x), WINDOWS),
    }
    for name, (laid, windows) in ways.items():
        before = time.process_time()
        weights = torch.stack([_inside(window, side, options.size_px) for window in windows])
        found[name] = {
            n: standing(
                np.stack([_likeness(q, weights, latents[rows]) for q, rows in zip(laid(x), likely[n], strict=True)])
            )
            for n, x in sets.items()
        }
        spent[name] = time.process_time() - before
        print(f"{name}: {spent[name]:.0f} s", flush=True)
    _print(found, spent, sum(map(len, sets.values())), len(passed))
    for size_px in options.large:
        print(f"a large encoder (Stable Diffusion's) at {size_px} px: {_large_s(size_px):.2f} s of one core a picture")


def _likeness(laid: Tensor, weights: Tensor, theirs: Tensor) -> NDArray[np.float32]:
    """(2·V, C, S, S) of a picture, (V, S, S), (K, C, S, S) → (K,): the largest weighted cosine over the windows.

    Each channel counts less its mean within the window.
    """
    best = torch.full((len(theirs),), -1.0)
    for number, weight in enumerate(weights):
        own = _unit(laid[number :: len(weights)], weight)  # (2, C·S·S): the picture and its mirror image
        best = torch.maximum(best, (_unit(theirs, weight) @ own.T).amax(1))
    return best.numpy()


def _unit(latents: Tensor, weight: Tensor) -> Tensor:
    mean = (latents * weight).sum((2, 3), keepdim=True) / weight.sum()
    return functional.normalize(((latents - mean) * weight.sqrt()).flatten(1), dim=1)


def _placed(pictures: Tensor, window: Window, outside: str) -> Tensor:
    """(N, C, h, w) laid into the window of a frame of the same size; `outside`: "zeros" or "reflection"."""
    scale, top, left = window
    shift_x, shift_y = ((1 - scale - 2 * start) / scale for start in (left, top))
    matrix = torch.tensor([[1 / scale, 0.0, shift_x], [0.0, 1 / scale, shift_y]])
    grid = functional.affine_grid(matrix.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode=outside, align_corners=False)


def _inside(window: Window, side: int, size_px: int) -> Tensor:
    """(S, S): how much of each cell lies within the window."""
    pixels = _placed(torch.ones(1, 1, size_px, size_px), window, "zeros")
    return functional.adaptive_avg_pool2d(pixels, side)[0, 0]


def _resampled(backbone: Backbone, images: Images, windows: tuple[Window, ...]) -> Iterator[Tensor]:
    pairs = zip(_encoded(backbone, images), _encoded(backbone, np.ascontiguousarray(images[..., ::-1])), strict=True)
    for both in pairs:
        yield torch.cat([torch.stack([_placed(one[None], w, "reflection")[0] for w in windows]) for one in both])


def _anew(backbone: Backbone, images: Images) -> Iterator[Tensor]:
    for image in images:
        one = torch.as_tensor(np.stack([image, image[..., ::-1]])).float()
        laid = torch.stack([_placed(one, w, "reflection") for w in WINDOWS], 1).flatten(0, 1)  # (2·V, 3, h, w)
        yield backbone.encode(laid.round().to(torch.uint8))


def _encoded(backbone: Backbone, images: Images) -> Tensor:
    return torch.cat([backbone.encode(np.ascontiguousarray(images[i : i + 64])) for i in range(0, len(images), 64)])


def _large_s(size_px: int) -> float:
    """Seconds of one core that one picture takes, the middle of three."""
    down = ("DownEncoderBlock2D",) * 4
    vae = AutoencoderKL(
        down_block_types=down,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    ).eval()
    taken = []
    with torch.no_grad():
        for _ in range(3):
            before = time.process_time()
            vae.encode(torch.randn(1, 3, size_px, size_px))
            taken.append(time.process_time() - before)
    return sorted(taken)[1]


def _print(found: dict[str, dict[str, Floats]], spent: dict[str, float], number: int, num_unseen: int) -> None:
    flags = {}
    for way, scores in found.items():
        threshold = threshold_at(scores["unseen"], EXPECTED)
        assert threshold is not None, "enough unseen photographs, which was looked at first"
        flags[way] = {kind: values > threshold for kind, values in scores.items() if kind != "unseen"}
    kinds = list(next(iter(flags.values())))
    rows = [[kind, *(f"{flags[way][kind].mean():.2f}" for way in found)] for kind in kinds]
    pooled = [f"{np.mean([flags[way][kind].mean() for kind in JUDGED['picture']]):.2f}" for way in found]
    rows.append(["all that must be found", *pooled])
    rows.append(["ms of one core a picture", *(f"{spent[way] / number * 1e3:.0f}" for way in found)])
    print(markdown_table(["planted", *found], rows))
    copied = len(next(iter(flags.values()))[kinds[0]])
    print(f"{copied} copies of each kind; thresholds by {num_unseen} unseen photographs")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies_latents", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--onnx", type=Path, required=True, help="feature network")
    parser.add_argument("--base", default=SHIPPED_BASE, help="whose autoencoder the copies pass through")
    parser.add_argument("--adapter", help="what denoises in image-to-image; none: the base, told no name")
    parser.add_argument("--planted", type=int, default=44, help="photographs to copy")
    parser.add_argument("--unseen", type=int, default=300, help="photographs that set the thresholds")
    parser.add_argument("--large", type=int, nargs="*", default=[], help="sizes at which the large encoder is timed")
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="where features are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
