"""The law of bases: with an adapter that changes nothing, all that is computed is what stock diffusers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.noise import NoiseSchedule, SamplerName
from taxadiffusion.condition import PromptConditioner, PromptSettings
from taxadiffusion.condition.prompt import prompt
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request, Sampler
from tests.published_bases import PUBLISHED, SIZE_PX, Name, write_documents, write_published_base

RANKS = ("order", "family")
CLOWNFISH = Lineage.of({"order": "Perciformes", "family": "Pomacentridae"})
SCALE, STEPS = 7.5, 4

NOISE_BASES: tuple[Name, ...] = ("sd14", "sd15", "sd21")
BASES: tuple[Name, ...] = (*NOISE_BASES, "flow")
SCALING = {"sd14": (0.18215, 0.0), "sd15": (0.18215, 0.0), "sd21": (0.18215, 0.0), "flow": (1.5305, 0.0609)}
"""By the name of the base, from its model card or paper: factor and shift."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_published_base(tmp_path_factory.mktemp(name), name) for name in BASES}


def stock(base: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, feature_extractor=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours(base: Path) -> Denoiser:
    """With a fresh LoRA, and conditions that are the prompt's own states."""
    backbone = Backbone.load(str(base))
    backbone.add_lora(LoRASettings())
    return Denoiser(backbone, PromptConditioner(RANKS, backbone.text, PromptSettings()))


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 3, SIZE_PX, SIZE_PX), np.uint8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_latents_are_stock(bases: dict[str, Path], name: Name) -> None:
    vae = AutoencoderKL.from_pretrained(bases[name], subfolder="vae")
    factor, shift = SCALING[name]
    assert (vae.config.scaling_factor, vae.config.shift_factor or 0.0) == (factor, shift)
    mode = vae.encode(torch.from_numpy(pictures()).float() / 127.5 - 1).latent_dist.mode()
    backbone = Backbone.load(str(bases[name]))
    torch.testing.assert_close(backbone.encode(pictures()), (mode - shift) * factor)
    pixels = (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1).numpy() * 255
    assert np.abs(backbone.decode((mode - shift) * factor) - pixels).max() < 0.51


@pytest.mark.parametrize("name", NOISE_BASES)
@torch.no_grad()
def test_text_states_are_stock(bases: dict[str, Path], name: Name) -> None:
    texts = [prompt(CLOWNFISH), prompt(CLOWNFISH.truncated("order"))]
    positive, negative = stock(bases[name]).encode_prompt(texts, "cpu", 1, True)
    denoiser = ours(bases[name])
    states = denoiser.conditioner([CLOWNFISH, CLOWNFISH.truncated("order"), Lineage()])
    assert states.shape == (3, 77, PUBLISHED[name]["text_encoder"]["hidden_size"])
    torch.testing.assert_close(states[:2], positive)
    torch.testing.assert_close(states[2], negative[0])


@pytest.mark.parametrize("name", NOISE_BASES)
@torch.no_grad()
def test_the_training_loss_is_that_of_diffusers_lora_training(bases: dict[str, Path], name: Name) -> None:
    """Its formula: noise, `add_noise` of the base's `DDPMScheduler`, target by `prediction_type`, mean square error."""
    pipeline, denoiser = stock(bases[name]), ours(bases[name])
    scheduler = DDPMScheduler.from_pretrained(bases[name], subfolder="scheduler")
    latents, noise, timesteps = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1), torch.tensor([37, 801])
    noisy = scheduler.add_noise(latents, noise, timesteps)
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    assert is_velocity == (name == "sd21")
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    states = pipeline.encode_prompt([prompt(CLOWNFISH)] * 2, "cpu", 1, False)[0]
    expected = F.mse_loss(pipeline.unet(noisy, timesteps, states).sample.float(), target.float(), reduction="mean")
    found = denoiser(Batch(latents, [CLOWNFISH] * 2, noise, timesteps)).mean()
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_training_loss_of_a_flow_base_is_the_interpolations(bases: dict[str, Path]) -> None:
    """As diffusers trains Stable Diffusion 3: `(1 − σ)·x + σ·ε` at the scheduler's σ, target `ε − x`."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bases["flow"], subfolder="scheduler")
    unet = UNet2DConditionModel.from_pretrained(bases["flow"], subfolder="unet")
    denoiser = ours(bases["flow"])
    latents, noise, steps = normal(2, 16, 8, 8), normal(2, 16, 8, 8, seed=1), [100, 900]
    sigmas, timesteps = scheduler.sigmas[steps][:, None, None, None], scheduler.timesteps[steps]
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    states = denoiser.backbone.text([prompt(CLOWNFISH)] * 2)
    expected = F.mse_loss(unet(noisy, timesteps, states).sample, noise - latents)
    found = denoiser(Batch(latents, [CLOWNFISH] * 2, noise, timesteps)).mean()
    torch.testing.assert_close(found, expected)


def drawn(denoiser: Denoiser, sampler: SamplerName | None) -> np.ndarray:
    requests = [Request(CLOWNFISH, 5, Guidance(SCALE))]
    (sample,) = Sampler(denoiser, scheduler=sampler, size_px=SIZE_PX)(requests, num_steps=STEPS)
    return sample.image.astype(float)


@pytest.mark.parametrize("sampler", ["own", "dpm"])
@pytest.mark.parametrize("name", NOISE_BASES)
def test_guided_pictures_are_stock(bases: dict[str, Path], name: Name, sampler: str) -> None:
    """With the scheduler that the base was published with, and with one put in its place in diffusers' manner."""
    pipeline = stock(bases[name])
    own: SamplerName = "ddim" if name == "sd21" else "pndm"
    if sampler == "dpm":
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    expected = pipeline(
        prompt(CLOWNFISH), height=SIZE_PX, width=SIZE_PX, num_inference_steps=STEPS, guidance_scale=SCALE,
        latents=normal(4, 8, 8, seed=5)[None], output_type="np",
    ).images[0]  # fmt: skip
    expected = expected.transpose(2, 0, 1) * 255
    assert np.ptp(expected) > 20
    assert np.abs(drawn(ours(bases[name]), own if sampler == "own" else None) - expected).max() <= 1.0


@torch.no_grad()
def test_guided_pictures_of_a_flow_base_are_those_of_a_plain_loop(bases: dict[str, Path]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bases["flow"], subfolder="scheduler")
    unet = UNet2DConditionModel.from_pretrained(bases["flow"], subfolder="unet")
    vae = AutoencoderKL.from_pretrained(bases["flow"], subfolder="vae")
    denoiser = ours(bases["flow"])
    states = denoiser.backbone.text(["", prompt(CLOWNFISH)])
    latents = normal(16, 8, 8, seed=5)[None]
    scheduler.set_timesteps(STEPS)
    for timestep in scheduler.timesteps:
        empty, named = unet(latents.repeat(2, 1, 1, 1), timestep, states).sample.chunk(2)
        latents = scheduler.step(empty + SCALE * (named - empty), timestep, latents).prev_sample
    pixels = vae.decode(latents / 1.5305 + 0.0609).sample[0]
    expected = (pixels / 2 + 0.5).clamp(0, 1).numpy() * 255
    assert np.ptp(expected) > 20
    assert np.abs(drawn(denoiser, None) - expected).max() <= 1.0


@pytest.mark.parametrize(
    ("name", "num_parameters", "width", "size_px"), [("sd15", 859_520_964, 768, 512), ("sd21", 865_910_724, 1024, 768)]
)
def test_the_published_sizes_hold(tmp_path: Path, name: Name, num_parameters: int, width: int, size_px: int) -> None:
    """The full-size networks on torch's `meta` device: shapes without memory."""
    write_documents(tmp_path, PUBLISHED[name])
    schedule = DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(PUBLISHED[name]["unet"])
        vae = AutoencoderKL.from_config(PUBLISHED[name]["vae"])
    backbone = Backbone(tmp_path, name, unet, NoiseSchedule(PUBLISHED[name]["scheduler"]))
    backbone.__dict__["_vae"] = vae
    side = size_px // 8
    assert sum(parameter.numel() for parameter in unet.parameters()) == num_parameters
    assert (backbone.latent_shape, backbone.image_size_px, backbone.downscale) == ((4, side, side), size_px, 8)
    assert (backbone.width, backbone.num_text_tokens) == (width, 77)
    assert torch.equal(backbone.schedule.alphas_cumprod, schedule.alphas_cumprod)
    assert backbone.schedule.prediction == schedule.config.prediction_type
    assert backbone.latent_scale.factor == vae.config.scaling_factor == 0.18215
    latents = backbone.encode(torch.zeros(1, 3, 512, 512, dtype=torch.uint8))
    assert latents.shape == (1, 4, 64, 64)
    predicted = backbone(latents, torch.zeros(1, device="meta"), torch.zeros(1, 77, width, device="meta"))
    assert predicted.shape == latents.shape
