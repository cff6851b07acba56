"""Learn the base's decoder by the clock, on noisy latents; the encoder is fixed (`training.codec`). Resumes.

    python -m training.decoder --packs PACKS --codec STATE_OR_CODEC --out DIR --minutes 40 [--teacher taef2_encoder.pth]

It sees 64 px crops of 128 px photographs and whole pictures at 64 px; being convolutional it decodes any size. Latents
carry noise of a level that is drawn: so it learns to mend edges between patches and the confetti that a diffusion model
leaves in the finer components. Each call lets the rate fall to zero over its minutes; SIGTERM and SIGINT save and stop.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from taxadiffusion.base.device import chosen_device
from taxadiffusion.errors import DataError
from training.clock import Clock, log
from training.codec import Codec, autoencoder, write_encoder
from training.command import run
from training.networks import arithmetic
from training.packs import SIMULATED, Pack, as_pixels, evenly, packs, resized
from training.teacher import Teacher
from training.widen import DISTURBANCE, start_from

# B batch, C latent channels, H = W side in pixels

CROP_PX, TEACHER_PX = 64, 32
MOST_NOISE = 0.5
"""Training latents carry noise of standard deviation MOST_NOISE·u², u uniform in 0 … 1; the latents' own is about 1."""
SHARE_SIMULATED, SHARE_WHOLE = 0.15, 0.25
WARM_UP_STEPS = 100
AVERAGE = 0.002
NUM_HELD, NUM_FITTED = 24, 64
STATE, LOG = "decoder.safetensors", "decoder.jsonl"


def read_codec(path: Path) -> Codec:
    """The codec in a state of `training.pretrain`, in a decoder's state, or in a `codec.safetensors`."""
    with safe_open(path, "pt") as file:
        prefix = "codec." if "codec.filters" in file.keys() else ""  # noqa: SIM118 (no mapping)
        if prefix + "filters" not in file.keys():  # noqa: SIM118
            raise DataError(f"{path}: holds no codec (filters, bias)")
        return Codec(*(file.get_tensor(prefix + name).float() for name in ("filters", "bias")))


def reconstruction_loss(output: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of pixels and, for edges, of neighbours' differences, at full and at half resolution."""
    loss = (output - images).abs().mean()
    for _ in range(2):
        for dim in (2, 3):
            loss = loss + 0.5 * (output.diff(dim=dim) - images.diff(dim=dim)).abs().mean()
        output, images = functional.avg_pool2d(output, 2), functional.avg_pool2d(images, 2)  # (B, 3, H/2, H/2)
    return loss


def crops(sets: list[Pack], size: int, generator: np.random.Generator) -> Tensor:
    """Pixels (B, 3, 64, 64): crops of photographs, or whole ones made small; simulated pictures; half of all mirrored.

    The sets of photographs are drawn alike, whatever their size.
    """
    photographs = [pack for pack in sets if pack.name != SIMULATED]
    simulated = [pack for pack in sets if pack.name == SIMULATED]
    out = []
    for _ in range(size):
        pool = simulated if simulated and generator.random() < SHARE_SIMULATED else photographs or simulated
        pack = pool[generator.integers(len(pool))]
        picture = torch.from_numpy(pack.picture(pack.train[generator.integers(len(pack.train))]).copy())
        if generator.random() < 0.5:
            picture = picture.flip(2)
        if generator.random() >= SHARE_WHOLE:
            top, left = generator.integers(0, picture.shape[-1] - CROP_PX + 1, 2)
            picture = picture[:, top : top + CROP_PX, left : left + CROP_PX]
        out.append(resized(as_pixels(picture[None]), CROP_PX))
    return torch.cat(out)


def noisy(latents: Tensor, generator: torch.Generator) -> Tensor:
    level = MOST_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator) ** 2
    noise = torch.randn(latents.shape, generator=generator)
    return latents + (level * noise).to(latents.device)


class Decoder:
    """The autoencoder whose decoder learns, its moving average and its optimiser; all of it in one file."""

    def __init__(self, codec: Codec, device: torch.device, rate: float) -> None:
        self.codec, self.device = codec.to(device), device
        self.model = autoencoder(codec.num_components)
        write_encoder(self.model, codec)
        self.model.requires_grad_(False).to(device, memory_format=torch.channels_last)
        parts = nn.ModuleDict({"decoder": self.model.decoder, "post_quant_conv": self.model.post_quant_conv})
        self.trained = {name: p.requires_grad_() for name, p in parts.named_parameters()}
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.optimiser = torch.optim.AdamW(self.trained.values(), lr=rate, weight_decay=1e-4, betas=(0.9, 0.99))
        self.step = self.samples = 0

    def load(self, path: Path) -> None:
        """Go on from a state. Raises `DataError` for one of another codec or shape."""
        state = load_file(path)
        filters = state["codec.filters"].to(self.device)
        if filters.shape != self.codec.filters.shape or not torch.equal(filters, self.codec.filters):
            raise DataError(f"{path}: was learnt for another codec; choose another --out")
        self.step, self.samples = int(state["step"]), int(state["samples"])
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(state[f"model.{name}"])
                self.average[name].copy_(state[f"ema.{name}"])
                self.optimiser.state[p] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": state[f"exp_avg.{name}"].to(self.device),
                    "exp_avg_sq": state[f"exp_avg_sq.{name}"].to(self.device),
                }

    def save(self, path: Path) -> None:
        tensors = {"step": torch.tensor(self.step), "samples": torch.tensor(self.samples)}
        tensors |= {"codec.filters": self.codec.filters, "codec.bias": self.codec.bias}
        for name, p in self.trained.items():
            tensors |= {f"model.{name}": p.detach(), f"ema.{name}": self.average[name]}
            tensors |= {f"{key}.{name}": self.optimiser.state[p][key] for key in ("exp_avg", "exp_avg_sq")}
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def __call__(self, latents: Tensor) -> Tensor:
        """Pixels, in float32."""
        with arithmetic(self.device):
            return self.model.decode(latents).sample.float()

    def swap(self) -> None:
        """Exchange the weights with their average; twice is nothing."""
        with torch.no_grad():
            for name, p in self.trained.items():
                kept = p.clone()
                p.copy_(self.average[name])
                self.average[name].copy_(kept)

    def learn(self, pixels: Tensor, latents: Tensor, teacher: Teacher | None, window: tuple[int, int]) -> float:
        output = self(latents)
        loss = reconstruction_loss(output, pixels)
        if teacher:  # on a quarter of the crop: the teacher is the slow part
            at = (..., *(slice(place, place + TEACHER_PX) for place in window))
            with arithmetic(self.device):
                loss = loss + teacher.distance(output[at], pixels[at])
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self.samples += len(pixels)
        ours, weights = list(self.average.values()), [p.detach() for p in self.trained.values()]
        torch._foreach_lerp_(ours, weights, max(AVERAGE, 1 / (0.1 * self.step + 1)))
        return loss.item()


def read_decoder(path: Path) -> AutoencoderKL:
    """The whole autoencoder of a state: the codec's encoder, and the averaged decoder."""
    codec = read_codec(path)
    model = autoencoder(codec.num_components)
    write_encoder(model, codec)
    state = load_file(path)
    learnt = {name.removeprefix("ema."): value for name, value in state.items() if name.startswith("ema.")}
    missing = model.load_state_dict(model.state_dict() | learnt)
    assert not missing.unexpected_keys
    return model.eval()


def psnr(output: Tensor, pixels: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(-10 * ((output.clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3)) / 4).mean().log10())


@torch.inference_mode()
def held_out(decoder: Decoder, held: dict[str, Tensor]) -> dict[str, float]:
    """dB on photographs held out: of the least squares, of the decoder, and of it on noisy latents."""
    found = {}
    for name, pixels in held.items():
        latents = decoder.codec.encode(pixels)
        disturbed = latents + 0.3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        found[f"{name}_linear"] = psnr(decoder.codec.decode(latents), pixels)
        found[name] = psnr(decoder(latents), pixels)
        found[f"{name}_noisy_linear"] = psnr(decoder.codec.decode(disturbed), pixels)
        found[f"{name}_noisy"] = psnr(decoder(disturbed), pixels)
    return {name: round(value, 2) for name, value in found.items()}


def learn(args: argparse.Namespace, clock: Clock) -> None:
    device = chosen_device(args.device)
    sets = packs(args.packs)
    torch.manual_seed(0)
    decoder = Decoder(read_codec(args.codec), device, args.rate)
    args.out.mkdir(parents=True, exist_ok=True)
    state = args.out / STATE
    if state.exists():
        decoder.load(state)
    elif args.start:
        some = torch.cat([as_pixels(p.pictures(evenly(p.train, NUM_FITTED))) for p in sets if p.name != SIMULATED])
        latents = decoder.codec.encode(some.to(device)).cpu()
        decoder.model.cpu()
        start_from(decoder.model, args.start, some, latents, DISTURBANCE)
        decoder.model.to(device)
        decoder.average = {name: p.detach().clone() for name, p in decoder.trained.items()}
    teacher = Teacher(args.teacher, device) if args.teacher else None
    held = {p.name: as_pixels(p.pictures(evenly(p.held, NUM_HELD))).to(device) for p in sets if p.held}
    losses = []
    while clock.running:
        for group in decoder.optimiser.param_groups:  # warm-up, then a cosine to zero over the minutes of this call
            warm = min(1.0, (decoder.step + 1) / WARM_UP_STEPS)
            group["lr"] = args.rate * warm * 0.5 * (1 + math.cos(math.pi * clock.share))
        draw = np.random.default_rng([7, decoder.step])
        pixels = crops(sets, args.batch, draw).to(device).contiguous(memory_format=torch.channels_last)
        noise = torch.Generator().manual_seed(int(draw.integers(2**62)))
        window = tuple(draw.integers(0, CROP_PX - TEACHER_PX + 1, 2))
        losses.append(decoder.learn(pixels, noisy(decoder.codec.encode(pixels), noise), teacher, window))
        if clock.due("save", args.save_s):
            decoder.save(state)
            decoder.swap()
            found = held_out(decoder, held)
            decoder.swap()
            loss = round(float(np.mean(losses[-200:])), 4)
            log(args.out / LOG, s=round(clock.elapsed_s), samples=decoder.samples, loss=loss, **found)
    if losses:
        decoder.save(state)
    log(args.out / LOG, s=round(clock.elapsed_s), samples=decoder.samples, saved=str(state.name))


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True, help="a state of training.pretrain, or codec.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="an autoencoder to begin from, as wide or half as wide")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--teacher", type=Path, help="taef2_encoder.pth: compare its features as well, for sharpness")
    parser.add_argument("--save-s", type=float, default=120)
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


def command() -> None:
    args = arguments(sys.argv[1:])
    clock = Clock(args.minutes)
    clock.stop.install()
    learn(args, clock)
    clock.stop.raise_if_set("learning the decoder; it is saved: run the same command to go on")


if __name__ == "__main__":
    run(command)
