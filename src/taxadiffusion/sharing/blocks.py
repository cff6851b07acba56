"""Modular Diffusers' blocks: a taxon's condition, denoising under it, pixels; each can stand in others' pipelines."""

# Letters: B images, T tokens, D width, C H W of latents.
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines import ComponentSpec, InputParam, OutputParam
from PIL import Image

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.guidance import DEFAULT_SCALE
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.asked import cut_at, requested_lineage
from taxadiffusion.sampler import seeded


class SpeciesModel:
    """A trained model as a component of a modular pipeline."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        base: str | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        subfolder: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
    ) -> SpeciesModel:
        """As `adapter.open_model`. Raises `CheckpointError`; `ValueError` for a part of a repository (diffusers asks
        with empty ones)."""
        if subfolder or variant or revision:
            raise ValueError("a model is read whole: no subfolder, variant or revision can be chosen")
        return cls(open_model(str(model), base=base, dtype=dtype, device=device))


_MODEL = ComponentSpec("model", SpeciesModel, description="what `taxadiffusion train` writes: a folder or a hub id")
_CONDITIONS = ("prompt_embeds", "negative_prompt_embeds")


class TaxonStep(ModularPipelineBlocks):  # type: ignore[misc]
    """Taxon → conditions under diffusers' names, for any block that takes a prompt's states."""

    model_name = "taxadiffusion"

    @property
    def description(self) -> str:
        return "The condition of a taxon, and of what guidance leads away from, in the place of a prompt's states."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [_MODEL]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("taxon", type_hint=str, required=True, description="a binomial, genus, family …"),
            InputParam("rank", type_hint=str, description="draw the taxon's ancestor at this rank"),
            InputParam("guidance_rank", type_hint=str, description="guide away from the ancestor here; none: the null"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam(name, type_hint=torch.Tensor, description="(1, T, D)") for name in _CONDITIONS]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Raises `DataError` for a name that the model does not know."""
        asked = self.get_block_state(state)
        adapter: Adapter = components.model.adapter
        lineage, _ = requested_lineage(adapter, asked.taxon, asked.rank)
        away = cut_at(adapter, lineage, asked.guidance_rank) if asked.guidance_rank else Lineage()
        asked.prompt_embeds = adapter.denoiser.conditioner([lineage])
        asked.negative_prompt_embeds = adapter.denoiser.conditioner([away])
        self.set_block_state(state, asked)
        return components, state


class DenoiseStep(ModularPipelineBlocks):  # type: ignore[misc]
    """Conditions → latents, by the base's own schedule."""

    model_name = "taxadiffusion"

    @property
    def description(self) -> str:
        return "Latents under a condition, by DPM-Solver++ (or the flow's Euler) over the base's schedule."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [_MODEL]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            *(InputParam(name, type_hint=torch.Tensor, required=True, description="(1, T, D)") for name in _CONDITIONS),
            InputParam("num_inference_steps", type_hint=int, default=25),
            InputParam("guidance_scale", type_hint=float, default=DEFAULT_SCALE, description="1 = no guidance"),
            InputParam("seed", type_hint=int, default=0, description="of the first noise"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents", type_hint=torch.Tensor, description="(1, C, H, W)")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        asked = self.get_block_state(state)
        adapter: Adapter = components.model.adapter
        backbone = adapter.denoiser.backbone
        scheduler = backbone.schedule.scheduler()
        scheduler.set_timesteps(asked.num_inference_steps, device=backbone.device)
        shape = backbone.latent_shape_at(adapter.card.image_size_px)
        latents = torch.randn(1, *shape, generator=seeded(asked.seed)).to(backbone.device)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)  # (1, C, H, W)
        for timestep in scheduler.timesteps:
            known = hasattr(scheduler, "scale_model_input")
            noisy = scheduler.scale_model_input(latents, timestep) if known else latents
            away, towards = (backbone(noisy, timestep.expand(1), asked[name]) for name in reversed(_CONDITIONS))
            guided = away + asked.guidance_scale * (towards - away)
            latents = scheduler.step(guided, timestep, latents).prev_sample
        asked.latents = latents
        self.set_block_state(state, asked)
        return components, state


class DecodeStep(ModularPipelineBlocks):  # type: ignore[misc]
    """Latents → pictures."""

    model_name = "taxadiffusion"

    @property
    def description(self) -> str:
        return "Pictures of latents, by the base's autoencoder with its own scale."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [_MODEL]

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("latents", type_hint=torch.Tensor, required=True, description="(B, C, H, W)")]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("images", type_hint=list, description="PIL images")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        asked = self.get_block_state(state)
        pixels = components.model.adapter.denoiser.backbone.decode(asked.latents)  # uint8 (B, 3, h, w)
        asked.images = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in pixels]
        self.set_block_state(state, asked)
        return components, state


class TaxaDiffusionBlocks(SequentialPipelineBlocks):  # type: ignore[misc]
    """A taxon's picture: condition, denoise, decode.

    ```
    pipeline = TaxaDiffusionBlocks().init_pipeline()
    pipeline.update_components(model=SpeciesModel.from_pretrained("reef-fish"))
    pipeline(taxon="Zanclus cornutus", output="images")[0]
    ```
    """

    model_name = "taxadiffusion"
    block_classes = (TaxonStep, DenoiseStep, DecodeStep)
    block_names = ("taxon", "denoise", "decode")

    @property
    def description(self) -> str:
        return "Pictures of a taxon by its lineage."
