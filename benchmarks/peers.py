"""What others' steps do, restated in a few lines of ours; every line of cost names where it comes from."""

# Letters: B batch, T tokens, D width, C latent channels, H W latent size.
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.workload import RANKS, Workload, noise_and_timesteps
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.text import TextEncoder, rank_text
from taxadiffusion.condition import TaxonomyConditioner, prompt
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request
from taxadiffusion.stages import Stage


class PublishedStep:
    """A training step of TaxaDiffusion's published code (PEERS (d); float32, nothing is cached).

    `adamw`, clipping at 1 and constant rate as published. The noise schedule is the base's own, so that losses agree.
    """

    def __init__(self, workload: Workload, num_tokens: int | None = None) -> None:
        self.workload = workload
        self.backbone = workload.backbone(torch.float32, num_tokens)
        conditioner = TaxonomyConditioner(RANKS, self.backbone.text, workload.encoders).to(workload.device)
        self.encoders = conditioner.encoders
        self.denoiser = Denoiser(self.backbone, conditioner)  # says what a stage trains; its forward is not used
        self.images = workload.images()
        self.noise, self.timesteps = noise_and_timesteps(workload, self.backbone)
        self.lineages = workload.lineages()

    def begin(self, stage: Stage) -> None:
        self.stage = stage
        parameters = self.denoiser.prepare_stage(stage, merge_lora=False)  # its LoRA is never merged
        self.parameters = list(parameters.values())
        self.encoders.train()  # frozen encoders as well (METHOD, fault 3)
        self.adam = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-2)

    def loss(self) -> Tensor:
        latents = self.backbone.encode(self.images)  # VAE every step (fault 10)
        noisy_latents = self.backbone.schedule.add_noise(latents, self.noise, self.timesteps)
        condition = self.condition(self.lineages, RANKS[: RANKS.index(self.stage.rank) + 1])
        prediction = self.backbone(noisy_latents, self.timesteps, condition)  # float32, LoRA unmerged in all stages
        return functional.mse_loss(prediction, self.backbone.schedule.target(latents, self.noise, self.timesteps))

    def condition(self, lineages: Sequence[Lineage], ranks: Sequence[str]) -> Tensor:
        """(B, T, D): every rank's text of every sample is encoded, also those below the stage's rank (PEERS (d) 26)."""
        states = [text_states(self.backbone, [rank_text(r, lineage.get(r)) for lineage in lineages]) for r in RANKS]
        terms = [self.encoders[rank](state) for rank, state in zip(RANKS, states, strict=True) if rank in ranks]
        return torch.stack(terms).sum(0)

    def __call__(self) -> float:
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        self.adam.zero_grad()
        return float(loss.detach())


class DiffusersLoRAStep:
    """A training step of diffusers' `train_text_to_image_lora`: VAE and one caption a sample are encoded every step.

    In the precision of the frozen base, as its `weight_dtype`; LoRA in float32. It shares its base with `backbone`.
    """

    def __init__(self, workload: Workload, backbone: Backbone) -> None:
        self.backbone = backbone
        self.images = workload.images()
        self.noise, self.timesteps = noise_and_timesteps(workload, backbone)
        rank = workload.stages()[0].rank  # a longer caption costs the same: it is padded
        self.captions = [prompt(lineage.truncated(rank)) for lineage in workload.lineages()]
        fresh = workload.plain(num_tokens=backbone.num_text_tokens)
        self.encoder = fresh.text
        self.vae = fresh.vae.to(backbone.dtype)
        self.text = self.encoder.model.to(backbone.dtype)
        self.parameters = [p for name, p in backbone.unet.named_parameters() if ".lora_" in name]
        self.adam = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-2)

    def loss(self) -> Tensor:
        pixels = (torch.from_numpy(self.images).to(self.backbone.device) / 127.5 - 1.0).to(self.vae.dtype)
        with torch.no_grad():
            encoded = self.vae.encode(pixels).latent_dist.mode().float()  # every step
            latents = self.backbone.latent_scale.scaled(encoded)
            ids = token_ids(self.encoder, self.captions)  # one caption a sample
            condition = self.text(input_ids=ids)[0]  # every step
        noisy_latents = self.backbone.schedule.add_noise(latents, self.noise, self.timesteps)
        prediction = self.backbone(noisy_latents, self.timesteps, condition)
        return functional.mse_loss(prediction, self.backbone.schedule.target(latents, self.noise, self.timesteps))

    def __call__(self) -> float:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        self.adam.zero_grad()
        return float(loss.detach())


def token_ids(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """(B, T); longer texts are cut, as diffusers' script does."""
    encoded = encoder.tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=encoder.num_tokens, return_tensors="pt"
    )
    ids: Tensor = encoded["input_ids"].to(encoder.model.device)
    return ids


@torch.no_grad()
def text_states(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """(B, T, D)."""
    states: Tensor = backbone.text.model(input_ids=token_ids(backbone.text, texts))[0]
    return states


@torch.no_grad()
def published_pictures(step: PublishedStep, requests: Sequence[Request], num_steps: int) -> list[NDArray[np.uint8]]:
    """The published inference: a picture at a time, its condition computed anew, LoRA unmerged, decoded alone.

    With the sampler that ours uses, so that both make the same pictures.
    """
    step.denoiser.prepare_stage(step.stage, merge_lora=False)
    step.denoiser.eval()
    schedule, backbone = step.backbone.schedule, step.backbone
    pictures = []
    for request in requests:  # one picture per forward (fault 11)
        target = step.condition([request.lineage], RANKS)
        base = step.condition([request.lineage], RANKS[:1])  # all texts are encoded again for the base (PEERS (d) 24)
        both = torch.cat([base, target])
        scheduler = schedule.scheduler()
        scheduler.set_timesteps(num_steps, device=backbone.device)
        shape = backbone.latent_shape_at(step.workload.size_px)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed))[None]
        latents = noise.to(backbone.device) * getattr(scheduler, "init_noise_sigma", 1.0)
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            low, high = backbone(torch.cat([scaled, scaled]), timestep.expand(2), both).chunk(2)
            latents = scheduler.step(low + request.guidance.scale * (high - low), timestep, latents).prev_sample
        pictures.append(backbone.decode(latents)[0])
    return pictures


class DiffusersPictures:
    """diffusers' `StableDiffusionPipeline` as it is, in full batches, with the LoRA that `load_lora_weights` leaves
    unmerged. Conditions are given to it as `prompt_embeds`, which spares it the text encoder (whose precision it would
    otherwise give them, and that need not be the U-Net's).
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.pipeline = StableDiffusionPipeline(
            vae=backbone.vae, text_encoder=None, tokenizer=None, unet=backbone.unet,
            scheduler=backbone.schedule.scheduler(), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        self.pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(
        self, requests: Sequence[Request], targets: Tensor, bases: Tensor, size_px: int, num_steps: int, batch_size: int
    ) -> list[NDArray[np.uint8]]:
        """Pictures of the requests; `targets` and `bases` (pictures, T, D) are their conditions."""
        shape = self.backbone.latent_shape_at(size_px)
        pictures: list[NDArray[np.uint8]] = []
        for start in range(0, len(requests), batch_size):
            now = slice(start, start + batch_size)
            noise = [torch.randn(shape, generator=torch.Generator().manual_seed(r.seed)) for r in requests[now]]
            latents = self.pipeline(
                prompt_embeds=targets[now].to(self.backbone.dtype),
                negative_prompt_embeds=bases[now].to(self.backbone.dtype),
                guidance_scale=requests[0].guidance.scale, num_inference_steps=num_steps,
                latents=torch.stack(noise).to(self.backbone.device, self.backbone.dtype), height=size_px, width=size_px,
                output_type="latent", return_dict=False,
            )[0]  # fmt: skip
            pictures += list(self.backbone.decode(latents))
        return pictures
