"""Draw preview sheets of a state: photographs held out, then what their captions draw, unguided and guided.

    python -m training.preview --state work/base/state.safetensors --packs work/packs --out work/base

The photographs are other people's: keep the files to yourself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler
from torch import Tensor, nn

from taxadiffusion.base.device import chosen_device
from taxadiffusion.images import image_grid
from training.caption_tokens import CaptionTokens
from training.codec import PATCH
from training.command import run
from training.corpus import part, scaling
from training.decoder import read_decoder
from training.networks import Tokens, arithmetic, for_device, scheduler, text_encoder, unet
from training.packs import SIMULATED, Slots, as_pixels, evenly, packs, resized
from training.state import Average, read_average

# B batch, C latent channels

NUM_SHOWN, NUM_STEPS = 10, 25
GUIDANCE = (1.0, 3.0)


def loaded(average: Average, tokens: Tokens, device: torch.device) -> nn.ModuleDict:
    """Both networks with the averaged weights."""
    model = nn.ModuleDict({"unet": unet(average.codec.num_components), "text": text_encoder(tokens)})
    model["unet"].load_state_dict(average.of("unet"))
    own = model["text"].state_dict()
    model["text"].load_state_dict(own | average.of("text"))
    for_device(model, device)
    return model.eval()


@torch.no_grad()
def drawn(model: nn.ModuleDict, ids: Tensor, null: Tensor, size_px: int, guidance: float) -> Tensor:
    """Scaled latents (B, C, h, w) of captions, the same noise at every guidance."""
    sampler = DPMSolverMultistepScheduler.from_config(scheduler().config, algorithm_type="dpmsolver++")
    sampler.set_timesteps(NUM_STEPS, device=ids.device)
    shape = (len(ids), model["unet"].config.in_channels, size_px // PATCH, size_px // PATCH)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(ids.device)
    states = model["text"](input_ids=torch.cat([null, ids]))[0]
    for t in sampler.timesteps:
        with arithmetic(ids.device):
            out = model["unet"](torch.cat([x, x]), t, encoder_hidden_states=states).sample
        base, target = out.float().chunk(2)
        x = sampler.step(base + guidance * (target - base), t, x).prev_sample
    return x


@torch.no_grad()
def write_previews(
    state: Path, folder: Path, out: Path, device: torch.device, decoder: AutoencoderKL | None = None
) -> list[Path]:
    """A sheet for each pack, through `decoder`, or where there is none by least squares."""
    average, tokens, written = read_average(state), Tokens.read(folder), []
    codec, sets = average.codec.to(device), packs(folder)
    scale = average.scaling or scaling([part(pack, codec, device) for pack in sets])
    model, captions = loaded(average, tokens, device), CaptionTokens(tokens, device)
    for pack in sets:
        size_px = 64 if pack.name == SIMULATED else 128
        rows = evenly(pack.held or pack.train, NUM_SHOWN)
        slots = pack.slots()
        ids = captions.whole(
            Slots(slots.tokens[rows].to(device), slots.kinds[rows].to(device)), torch.arange(len(rows), device=device)
        )
        lines = [resized(as_pixels(pack.pictures(rows)), size_px)]
        for guidance in GUIDANCE:
            latents = drawn(model, ids, captions.null(len(rows)), size_px, guidance) / scale
            lines.append((decoder.decode(latents.cpu()).sample if decoder else codec.decode(latents)).cpu())
        pictures = ((torch.cat(lines).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        written.append(out / f"preview-{pack.name}.png")
        image_grid(list(pictures), len(rows), None, cell_px=size_px).save(written[-1])
    return written


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--decoder", type=Path, help="decoder.safetensors of training.decoder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    decoder = read_decoder(args.decoder) if args.decoder else None
    for path in write_previews(args.state, args.packs, args.out, chosen_device(args.device), decoder):
        print(path)


if __name__ == "__main__":
    run(command)
