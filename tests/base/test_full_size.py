"""The whole path at Stable Diffusion 1.5's size, with random weights: minutes and gigabytes, run with `-m slow`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.condition import TaxonomyConditioner, TaxonomySettings
from taxadiffusion.condition.methods import method_named
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.stages import plan
from tests.tiny_base import write_tokenizer

SIZE_PX = 256
LIMIT_BYTES = 16e9
RANKS = ("order", "family")
CLOWNFISH = Lineage.of({"order": "Perciformes", "family": "Pomacentridae"})


def write_full_size_base(path: Path) -> Path:
    """Stable Diffusion 1.5's shapes: 860 M U-Net, ViT-L/14 text encoder, KL-VAE; a tokenizer without merges."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(path / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            hidden_act="quick_gelu", eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, sample_size=512,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(path)  # fmt: skip
    return path


def steps(base: Path, dtype: torch.dtype) -> dict[str, float]:
    """One step of stage 0, one of stage 1, one guided sampling step; seconds of each, and the peak memory."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    backbone = Backbone.load(str(base), dtype=dtype)
    backbone.add_lora(LoRASettings())
    denoiser = Denoiser(backbone, TaxonomyConditioner(RANKS, backbone.text, TaxonomySettings()))
    images = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE_PX, SIZE_PX), np.uint8)
    latents = backbone.encode(images)
    assert latents.shape == (1, *backbone.latent_shape_at(SIZE_PX)) == (1, 4, 32, 32)
    seconds["load_and_encode"] = time.perf_counter() - start
    for number, stage in enumerate(plan(method_named("progressive"), RANKS, 1)):
        start = time.perf_counter()
        parameters = denoiser.prepare_stage(stage, merge_lora=True)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4)
        batch = Batch(latents, [CLOWNFISH.truncated(stage.rank)], torch.randn_like(latents), torch.tensor([500]))
        loss = denoiser(batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in parameters.values())
        optimizer.step()
        assert any(not torch.equal(parameter, before[name]) for name, parameter in parameters.items())
        seconds[f"stage_{number}"] = time.perf_counter() - start
    start = time.perf_counter()
    sampler = Sampler(denoiser, size_px=SIZE_PX)
    (sample,) = sampler([Request(CLOWNFISH, 0, Guidance(9.0, "order"))], num_steps=1)
    assert sample.image.shape == (3, SIZE_PX, SIZE_PX)
    seconds["guided_sampling_step"] = time.perf_counter() - start
    return seconds | {"peak_bytes": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


@pytest.fixture(scope="module")
def full_size_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full_size_base(tmp_path_factory.mktemp("full"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_size_base_trains_and_samples_in_16_gb(full_size_base: Path, dtype: str) -> None:
    command = [sys.executable, "-m", "tests.base.test_full_size", str(full_size_base), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    print(dtype, measured)
    assert measured["peak_bytes"] < LIMIT_BYTES


if __name__ == "__main__":
    print(json.dumps(steps(Path(sys.argv[1]), getattr(torch, sys.argv[2]))))
