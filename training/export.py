"""Write the trained parts as one base in diffusers' layout (float16 safetensors): the folder the package ships."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from taxadiffusion.base import RECORD_FILE
from taxadiffusion.training_record import read_record, write_record
from training.base import Base, scheduler
from training.vae import autoencoder


def export(vae: Path, base: Path, tokenizer: Path, corpus: Path, out: Path) -> int:
    """Averaged (EMA) weights of U-Net and text encoder, autoencoder with its measured scaling, tokenizer, scheduler;
    and the record of what the corpus showed.

    Returns the number of parameters. Stock diffusers loads the folder as a `StableDiffusionPipeline`.
    """
    words = CLIPTokenizer.from_pretrained(tokenizer)
    model = Base(words)
    state = load_file(base / "state.safetensors")
    model.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("ema.")}, strict=False)
    decoder = autoencoder()
    decoder.load_state_dict(load_file(vae))
    decoder.register_to_config(scaling_factor=json.loads((base / "scaling.json").read_text()))
    pipeline = StableDiffusionPipeline(
        vae=decoder.half(),
        text_encoder=model.text.half(),
        tokenizer=words,
        unet=model.unet.half(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    record = read_record(corpus)
    if record is None:
        raise SystemExit(f"{corpus} holds no {RECORD_FILE}; run training.corpus again")
    write_record(record, out)
    return sum(p.numel() for part in (decoder, model) for p in part.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("vae", "base", "tokenizer", "corpus", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    with torch.inference_mode():
        print(
            f"{export(args.vae, args.base, args.tokenizer, args.corpus, args.out) / 1e6:.2f} M parameters in {args.out}"
        )


if __name__ == "__main__":
    main()
