"""Pretrain the base by the clock: U-Net and text encoder together, on packs of captioned pictures. Resumes.

    python -m training.pretrain --packs PACKS --out DIR --minutes 170 [--start BASE] [--components 24]

On a GPU: `--batch 512 --batch-64 128 --rate 8e-4 --minutes 6`. Pictures are 128 px large, with a share at
64 px beside them in every step, so that the same base also serves at 64 px. The state is written every two minutes and
when the run ends or is stopped (SIGTERM, SIGINT); `training.export` makes a base of it at any time, `training.curve` a
report of the held-out losses. Each call lets the rate fall over its minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from taxadiffusion.base.device import chosen_device
from training.caption_tokens import CaptionTokens
from training.clock import Clock, log
from training.codec import Codec, fitted
from training.command import run
from training.corpus import Examples, Part, batch, held_of, part, scaling
from training.decoder import read_codec
from training.gradients import gradients_on, prediction, v_loss
from training.networks import NUM_TIMESTEPS, Tokens, for_device, scheduler, start_from, text_encoder, unet
from training.packs import Pack, packs
from training.preview import write_previews
from training.state import STATE, Learner

# B batch, C latent channels, h × w latents

WEIGHT_64 = 0.35
"""Of the loss at 64 px beside that at 128 px."""
WARM_UP_STEPS, FLAT = 300, 0.4
LOG = "log.jsonl"


def rate_at(share: float, step: int, rate: float) -> float:
    """Warm-up, flat to `FLAT` of the minutes, then a cosine down to a hundredth."""
    fallen = 0.0 if share < FLAT else (share - FLAT) / (1 - FLAT)
    return rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.495 * (1 + math.cos(math.pi * fallen)))


def stratified(number: int, device: torch.device) -> Tensor:
    """Timesteps (B,), one of each equal stretch of the schedule."""
    uniform = (torch.randperm(number, device=device) + torch.rand(number, device=device)) / max(1, number)
    return (uniform * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)


def chosen_codec(args: argparse.Namespace, sets: list[Pack]) -> Codec:
    """That of the state to go on from, else the one given, else the leading components of the start's, else fitted."""
    if (args.out / STATE).exists():
        return read_codec(args.out / STATE)
    if args.codec:
        return read_codec(args.codec)
    if args.start:
        return read_codec(args.start / "codec.safetensors").first(args.components)
    return fitted(sets, args.components)


def learn(args: argparse.Namespace, clock: Clock, learner: Learner, parts: list[Part], codec: Codec) -> float:
    """The loop. → the scaling of the latents."""
    device, scale = parts[0].train.device, scaling(parts)
    captions = CaptionTokens(Tokens.read(args.packs), device)
    alphas = scheduler().alphas_cumprod.to(device)
    sizes = {128: (args.batch, 1.0), 64: (args.batch_64, WEIGHT_64)}
    drawn = {size_px: count for size_px, (count, _) in sizes.items() if count}
    gradients = gradients_on(device)(learner, alphas, [sizes[size_px][1] for size_px in drawn])

    def examples(size_px: int, count: int) -> Examples:
        latents, ids = batch(parts, captions, size_px, count, (learner.step, 3))
        noise = torch.randn_like(latents)
        return Examples(latents * scale, ids, stratified(count, device), noise)

    held = {p.name: held_of(p, captions, scale, NUM_TIMESTEPS) for p in parts if len(p.held)}
    running: list[Tensor] = []
    log(args.out / LOG, packs={p.name: len(p.train) for p in parts}, scaling=scale, samples=learner.samples)
    while clock.running:
        torch.manual_seed(learner.step)  # what a step draws is a function of its number: a run resumes exactly
        rate = rate_at(clock.share, learner.step, args.rate)
        loss = gradients([examples(size_px, count) for size_px, count in drawn.items()])
        learner.advance(rate, args.batch)
        running.append(loss)
        if clock.due("log", args.log_s or max(10.0, args.minutes * 3)):
            learner.swap()
            with torch.no_grad():
                predict = prediction(learner.model)
                losses = {f"held_{name}": v_loss(predict, alphas, photos) for name, photos in held.items()}
            learner.swap()
            figures = {name: round(float(value), 4) for name, value in losses.items()}
            mean = round(float(torch.stack(running).mean()), 4)
            log(args.out / LOG, t=round(clock.elapsed_s, 1), step=learner.step, samples=learner.samples, loss=mean,
                lr=rate, **figures)  # fmt: skip
            running.clear()
        if clock.due("save", args.save_s):
            learner.save(args.out / STATE, codec, scale)
    return scale


def pretrain(args: argparse.Namespace, clock: Clock) -> None:
    """Go on from the state in `args.out`, or begin; until the clock or a signal says so."""
    device = chosen_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    sets = packs(args.packs)
    codec = chosen_codec(args, sets).to(device)
    torch.manual_seed(0)
    model = nn.ModuleDict({"unet": unet(codec.num_components), "text": text_encoder(Tokens.read(args.packs))})
    if args.start:
        start_from(model, args.start)
    for_device(model, device)
    learner = Learner(model, args.rate)
    if (args.out / STATE).exists():
        learner.load(args.out / STATE)
    before = learner.step
    scale = learn(args, clock, learner, [part(pack, codec, device) for pack in sets], codec)
    if learner.step > before:
        learner.save(args.out / STATE, codec, scale)
    clock.stop.raise_if_set(f"pretraining; {learner.samples} samples are saved: run the same command to go on")
    write_previews(args.out / STATE, args.packs, args.out, device)
    log(args.out / LOG, done=learner.samples)


def command() -> None:
    args = arguments(sys.argv[1:])
    clock = Clock(args.minutes)
    clock.stop.install()
    pretrain(args, clock)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a base whose weights are taken where they fit, e.g. base-128")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--components", type=int, default=24, help="latent channels, 16 to 32")
    parser.add_argument("--codec", type=Path, help="of training.codec: for a decoder that is learnt meanwhile")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-64", type=int, default=8)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--save-s", type=float, default=120)
    parser.add_argument("--log-s", type=float, help="between held-out losses; a twentieth of the minutes by default")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(command)
