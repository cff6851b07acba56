"""Draw what captions do to the nano base: the grid in docs/, one row a caption, the same seeds in every row."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from taxadiffusion.images import image_grid

CAPTIONS = (
    "a large oval orange fish facing left over teal bright light",
    "a large oval yellow fish facing left over teal bright light",
    "a large oval black fish facing left over teal bright light",
    "a big deep white fish over dark brown murky light",
    "a large slender red and pink fish over grey medium light",
    "a huge disc black and white fish packed bars over teal",
    "a large deep bodied white fish with four black bars and a forked tail, facing left, over coral",
    "a large blue fish with yellow fins and a forked tail, facing right, in open water",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    args = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(
        args.base, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pictures, names = [], []
    for text in CAPTIONS:
        images = pipeline(
            [text] * 8,
            num_inference_steps=25,
            guidance_scale=args.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in range(8)],
            height=64,
            width=64,
            output_type="np",
        ).images  # (8, 64, 64, 3)
        pictures += list((images.transpose(0, 3, 1, 2) * 255).round().astype(np.uint8))
        names += [text, *[""] * 7]
    image_grid(pictures, 8, names, cell_px=128).save(args.out)


if __name__ == "__main__":
    main()
