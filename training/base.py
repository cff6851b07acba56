"""Pretrain the nano base: U-Net and text encoder together on captioned latents; resumes by itself, writes previews."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.captions import compose
from training.tokenizer import NUM_TOKENS
from training.transform import LATENT_CHANNELS, project, unproject

# B batch, T tokens, D width; latents (B, 24, 8, 8)

WIDTH = 256
NULL_CAPTION_SHARE = 0.1

SHOWN = (
    "a large deep orange and white fish facing left over dark brown",
    "a large deep orange and white fish facing right over dark brown",
    "a big oval yellow fish facing left over teal bright light",
    "a big disc black fish over teal",
    "a huge thin red and silver fish facing right over grey",
    "a deep bodied white fish with four black bars and a forked tail, facing left, over coral",
    "a large blue fish with yellow fins and a forked tail, facing right, in open water",
    "packed bars black and white fish over grey busy",
)
"""Captions of the preview grid: one row each, to judge by eye whether words steer the picture."""


class Base(nn.Module):
    """The two networks that learn."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            block_out_channels=(96, 192),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=(3, 6),  # diffusers' name for the number of heads
        )
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=3 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=8,
                max_position_embeddings=NUM_TOKENS,
                projection_dim=WIDTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )

    def forward(self, noisy_latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        condition = self.text(tokens).last_hidden_state  # (B, T, D)
        return self.unet(noisy_latents, timesteps, encoder_hidden_states=condition).sample


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction; the one schedule of training and sampling."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@dataclass(frozen=True)
class Transform:
    """The encoder's linear map and the scaling that goes into the base's configuration."""

    filters: Tensor
    bias: Tensor

    def encode(self, images: np.ndarray) -> Tensor:
        """Latents of every picture and of its mirror image, alternating. float16 (2 N, 24, 8, 8)"""
        out = []
        for start in range(0, len(images), 256):
            x = torch.from_numpy(images[start : start + 256].astype(np.float32) / 127.5 - 1)
            pair = [project(view, self.filters, self.bias) for view in (x, x.flip(3))]
            out.append(torch.stack(pair, 1).flatten(0, 1).half())
        return torch.cat(out)

    def decode(self, latents: Tensor) -> Tensor:
        return unproject(latents, self.filters, self.bias)


class Corpus:
    """Latents and phrases of one source; the last `held_out` pictures are for validation."""

    def __init__(self, transform: Transform, folder: Path, name: str, held_out: int = 0) -> None:
        images = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        order = np.random.default_rng(0).permutation(len(images))
        self.latents = transform.encode(images[order])
        phrases = json.loads((folder / f"{name}.json").read_text())
        self.phrases = [phrases[2 * i + k] for i in order for k in (0, 1)]
        self.num_training = len(self.latents) - 2 * held_out


def tokens_of(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    return tokenizer(
        captions, padding="max_length", max_length=NUM_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids  # (B, T)


def preview(
    model: Base, decode: Callable[[Tensor], Tensor], tokenizer: CLIPTokenizer, scale: float, path: Path
) -> None:
    """A grid: one row per caption of `SHOWN`, the same eight seeds in every row, guided by `scale`."""
    sampler = DPMSolverMultistepScheduler.from_config(scheduler().config, algorithm_type="dpmsolver++")
    sampler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, LATENT_CHANNELS, 8, 8, generator=generator)
    rows = []
    with torch.inference_mode():
        null = model.text(tokens_of(tokenizer, [""])).last_hidden_state
        for text in SHOWN:
            condition = model.text(tokens_of(tokenizer, [text])).last_hidden_state
            sampler.set_timesteps(20)
            x = noise.clone()
            for t in sampler.timesteps:
                both = torch.cat([null.expand(8, -1, -1), condition.expand(8, -1, -1)])
                base, target = model.unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
                x = sampler.step(base + scale * (target - base), t, x).prev_sample
            pictures = decode(x).clamp(-1, 1)
            rows.append(torch.cat(list((pictures + 1) * 127.5), dim=2))  # (3, 64, 512)
    grid = torch.cat(rows, dim=1).byte().permute(1, 2, 0).numpy()
    Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder written by training.corpus")
    parser.add_argument("--transform", type=Path, required=True, help="transform.safetensors of training.corpus")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=60, help="of this call; the rate falls to zero over its last 30 %%"
    )
    parser.add_argument("--photograph-share", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)
    transform = Transform(**load_file(args.transform))
    photographs = Corpus(transform, args.corpus, "photographs", held_out=128)
    simulated = Corpus(transform, args.corpus, "simulated")
    scaling = 1.0 / photographs.latents.float().std().item()
    print(f"scaling factor {scaling:.4f}; {len(photographs.latents)} + {len(simulated.latents)} latents", flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scaling.json").write_text(json.dumps(scaling))
    model = Base(tokenizer)
    model.unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, weight_decay=0.01, betas=(0.9, 0.99), fused=True
    )
    step = 0
    if (args.out / "state.safetensors").exists():
        state = load_file(args.out / "state.safetensors")
        step = int(state.pop("step"))
        model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        names = dict(model.named_parameters())
        for name, parameter in names.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": state[f"exp_avg.{name}"],
                "exp_avg_sq": state[f"exp_avg_sq.{name}"],
            }
        ema = {name: state[f"ema.{name}"].clone() for name in names}  # in the order of the parameters, not of the file
    else:
        ema = {k: v.detach().clone() for k, v in model.named_parameters()}

    alphas = scheduler().alphas_cumprod
    held = torch.arange(photographs.num_training, len(photographs.latents), 2)
    held_latents = photographs.latents[held].float() * scaling
    held_generator = torch.Generator().manual_seed(1)
    held_noise = torch.randn(held_latents.shape, generator=held_generator)
    held_timesteps = torch.arange(len(held)) * 1000 // len(held)
    held_captions = [compose(photographs.phrases[int(i)], np.random.default_rng(int(i))) for i in held]
    held_tokens = tokens_of(tokenizer, held_captions)

    def v_loss(latents: Tensor, noise: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        a = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        v = a.sqrt() * noise - (1 - a).sqrt() * latents  # Salimans & Ho 2022, eq. for v
        return functional.mse_loss(model(noisy.contiguous(memory_format=torch.channels_last), timesteps, tokens), v)

    def save() -> None:
        state = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in ema.items()}
        for name, parameter in model.named_parameters():
            state[f"exp_avg.{name}"] = optimizer.state[parameter]["exp_avg"]
            state[f"exp_avg_sq.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
        state["step"] = torch.tensor(step)
        save_file({k: v.contiguous() for k, v in state.items()}, args.out / "state.tmp")
        (args.out / "state.tmp").replace(args.out / "state.safetensors")

    start = last_log = last_save = time.monotonic()
    losses: list[float] = []
    while (elapsed := time.monotonic() - start) < args.minutes * 60:
        share = elapsed / (args.minutes * 60)
        rate = args.learning_rate * min(1.0, (step + 1) / 250) * min(1.0, (1 - share) / 0.3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = np.random.default_rng([step, 7])
        num_photographs = generator.binomial(args.batch_size, args.photograph_share)
        chosen = [(photographs, i) for i in generator.integers(photographs.num_training, size=num_photographs)]
        chosen += [
            (simulated, i) for i in generator.integers(simulated.num_training, size=args.batch_size - num_photographs)
        ]
        captions = [
            "" if generator.random() < NULL_CAPTION_SHARE else compose(corpus.phrases[i], generator)
            for corpus, i in chosen
        ]
        latents = torch.stack([corpus.latents[i] for corpus, i in chosen]).float() * scaling
        torch.manual_seed(step)
        loss = v_loss(
            latents,
            torch.randn_like(latents),
            torch.randint(0, 1000, (args.batch_size,)),
            tokens_of(tokenizer, captions),
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        weight = max(0.0005, 10 / (step + 10)) if step < 20000 else 0.0005
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in model.parameters()], weight)
        if time.monotonic() - last_log > 60:
            last_log = time.monotonic()
            live = {k: v.detach().clone() for k, v in model.named_parameters()}
            model.load_state_dict(ema, strict=False)
            with torch.inference_mode():
                validation = v_loss(held_latents, held_noise, held_timesteps, held_tokens).item()
                unconditional = v_loss(
                    held_latents, held_noise, held_timesteps, tokens_of(tokenizer, [""] * len(held))
                ).item()
            record = {
                "step": step,
                "samples": step * args.batch_size,
                "loss": float(np.mean(losses)),
                "validation": validation,
                "validation_null_caption": unconditional,
                "learning_rate": rate,
                "minutes": elapsed / 60,
            }
            losses.clear()
            with (args.out / "base.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
            due = time.monotonic() - last_save > 240
            if due:
                preview(
                    model, lambda x: transform.decode(x / scaling), tokenizer, 3.0, args.out / f"preview-{step:06d}.png"
                )
            model.load_state_dict(live, strict=False)
            if due:
                last_save = time.monotonic()
                save()
    save()


if __name__ == "__main__":
    main()
