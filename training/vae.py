"""Train the nano base's decoder on arrays of pictures; the encoder is fixed (`training.transform`). Resumes."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from training.teacher import Teacher
from training.transform import autoencoder, project, write_encoder

# B batch, C channels, H = W side in pixels

MAX_LATENT_NOISE = 0.3
"""Training latents carry noise of a standard deviation between 0 and this: the decoder learns to mend what a diffusion
model leaves over, above all edges between patches."""


def reconstruction_loss(output: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of pixels and, for edges, of neighbours' differences, at full and at half resolution."""
    loss = (output - images).abs().mean()
    for _ in range(2):
        for dim in (2, 3):
            loss = loss + 0.5 * (output.diff(dim=dim) - images.diff(dim=dim)).abs().mean()
        output, images = functional.avg_pool2d(output, 2), functional.avg_pool2d(images, 2)  # (B, 3, H/2, H/2)
    return loss


def batch_of(arrays: list[np.ndarray], weights: list[float], size: int, generator: np.random.Generator) -> Tensor:
    """A float batch in [-1, 1] drawn from the arrays in proportion to the weights, half of it mirrored. (B, 3, H, W)"""
    which = generator.choice(len(arrays), size=size, p=np.asarray(weights) / sum(weights))
    rows = [arrays[k][generator.integers(len(arrays[k]))] for k in which]
    images = np.stack([row[:, :, ::-1] if generator.random() < 0.5 else row for row in rows])
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1)


def psnr(model: AutoencoderKL, filters: Tensor, bias: Tensor, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions of uint8 (N, 3, H, W)."""
    errors = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            x = torch.from_numpy(images[start : start + 64].astype(np.float32) / 127.5 - 1)
            y = model.decode(project(x, filters, bias)).sample.clamp(-1, 1)
            errors.append((y - x).square().mean(dim=(1, 2, 3)) / 4)  # on a [0, 1] scale
    return float(-10 * torch.cat(errors).mean().log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="uint8 (N, 3, 64, 64) .npy files")
    parser.add_argument("--transform", type=Path, required=True, help="transform.safetensors of training.corpus")
    parser.add_argument("--weights", type=float, nargs="+", help="share of each file (default: equal)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--teacher", type=Path, help="taef2_encoder.pth: compare its features as well, for sharpness")
    args = parser.parse_args()

    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in args.images]
    held_out = [array[-128:] for array in arrays]
    arrays = [array[:-128] for array in arrays]
    shares = args.weights or [1.0] * len(arrays)
    torch.manual_seed(0)
    transform = load_file(args.transform)
    filters, bias = transform["filters"], transform["bias"]
    model = autoencoder().to(memory_format=torch.channels_last)
    write_encoder(model, filters, bias)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    args.out.mkdir(parents=True, exist_ok=True)
    state_path, log_path = args.out / "vae.safetensors", args.out / "vae.jsonl"
    teacher = Teacher(args.teacher) if args.teacher else None
    samples = 0
    if state_path.exists():
        model.load_state_dict(load_file(state_path))
        samples = json.loads(log_path.read_text().splitlines()[-1])["samples"]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99))
    ema = {key: value.clone() for key, value in model.state_dict().items()}
    start = last = time.monotonic()
    generator = np.random.default_rng(samples)
    step = 0
    while (elapsed := time.monotonic() - start) < args.minutes * 60:
        share = elapsed / (args.minutes * 60)
        for group in optimizer.param_groups:  # linear warm-up, then cosine to zero over the minutes given
            group["lr"] = args.learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * share))
        x = batch_of(arrays, shares, args.batch_size, generator).contiguous(memory_format=torch.channels_last)
        latents = project(x, filters, bias)
        latents = latents + MAX_LATENT_NOISE * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        output = model.decode(latents).sample
        loss = reconstruction_loss(output, x)
        if teacher:
            top, left = generator.integers(0, 33, size=2)  # a quarter of the picture: the teacher is the slow part
            window = (..., slice(top, top + 32), slice(left, left + 32))
            loss = loss + teacher.distance(output[window], x[window])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, samples = step + 1, samples + args.batch_size
        for key, value in model.state_dict().items():
            ema[key].lerp_(value, max(0.002, 10 / (step + 10)))
        if time.monotonic() - last > 60:
            last = time.monotonic()
            live = {key: value.clone() for key, value in model.state_dict().items()}
            model.load_state_dict(ema)
            record = {"samples": samples, "loss": loss.item(), "minutes": elapsed / 60}
            record |= {
                path.stem: round(psnr(model, filters, bias, h), 2)
                for path, h in zip(args.images, held_out, strict=True)
            }
            save_file({key: value.contiguous() for key, value in ema.items()}, state_path)
            model.load_state_dict(live)
            with log_path.open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
    save_file({key: value.contiguous() for key, value in ema.items()}, state_path)


if __name__ == "__main__":
    main()
