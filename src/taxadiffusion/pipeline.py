"""The sampler as a diffusers `DiffusionPipeline`: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

# Letters: B images, T tokens, D width.
from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import ImagePipelineOutput
from PIL import Image
from torch import Tensor

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.base.weights import base_files
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import CONTEXT_SCALE, DEFAULT_SCALE, Context, Guidance
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.taxonomy import find_taxon

UNCONDITIONAL = "unconditional"
_COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_OUTPUT_TYPES = ("pil", "np", "pt")


class TaxaDiffusionPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Pictures of taxa by name, in diffusers' manner.

    ```
    pipeline = TaxaDiffusionPipeline.from_pretrained("reef-fish")
    pipeline("Zanclus cornutus", seed=1).images[0]
    ```
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        backbone = adapter.denoiser.backbone
        self.register_modules(
            unet=backbone.unet,
            vae=backbone.vae,
            text_encoder=backbone.text.model,
            tokenizer=backbone.text.tokenizer,
            scheduler=backbone.schedule.scheduler(),
        )

    @property
    def components(self) -> dict[str, Any]:
        """Diffusers' parts by name: it would look for the arguments of `__init__`."""
        return {name: getattr(self, name) for name in _COMPONENTS if hasattr(self, name)}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        base: str | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> TaxaDiffusionPipeline:
        """From a directory, a shipped name or a hub id; dtype None: what the device does well, float32 on a CPU (see
        `adapter.open_model`). Raises `CheckpointError`."""
        return cls(open_model(str(model), base=base, dtype=dtype, device=device))

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the adapter and the base it belongs to into one directory, file by file as they are.

        `from_pretrained` reads it without the network; stock diffusers reads the base in it as what it was, and
        `load_lora_weights(DIR, subfolder="adapter", weight_name="pytorch_lora_weights.safetensors")` the LoRA.
        push_to_hub and the hub's settings: as in diffusers.
        """
        target = Path(save_directory)
        push = bool(kwargs.pop("push_to_hub", False))
        base = self.adapter.denoiser.backbone.path
        for path in base_files(base):
            copied = target / path.relative_to(base)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
        shutil.copytree(self.adapter.path, target / "adapter", dirs_exist_ok=True)
        if push:
            self.push_to_hub(kwargs.pop("repo_id", target.name), **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> TaxaDiffusionPipeline:
        """As in diffusers; the rank encoders go along."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None:
            raise SettingsError("a pipeline's precision is chosen when it is read: from_pretrained(…, dtype=…)")
        super().to(device)
        self.adapter.denoiser.to(device)
        return self

    def lineage(self, taxon: str | Lineage, rank: Rank | None = None) -> Lineage:
        """The lineage of a name (binomial, genus, family …), cut at `rank`. Raises `DataError` for an unknown name.

        Warns where it is not simply the taxon of that name, such as the genus of a species the model does not know.
        """
        if isinstance(taxon, Lineage):
            lineage = taxon
        else:
            found = find_taxon(self.adapter.taxonomy, taxon)
            lineage = found.lineage
            if found.note:
                warnings.warn(found.note, stacklevel=2)
        return lineage if rank is None else lineage.truncated(rank)

    def __call__(
        self,
        taxon: str | Lineage | Sequence[str | Lineage],
        *,
        rank: Rank | None = None,
        guidance_scale: float = DEFAULT_SCALE,
        guidance_rank: Rank | Literal["coarsest", "unconditional"] = UNCONDITIONAL,
        towards: str | Lineage | None = None,
        fraction: float = 0.0,
        context: str | None = None,
        context_scale: float = CONTEXT_SCALE,
        num_inference_steps: int = 25,
        num_images_per_taxon: int = 1,
        seed: int = 0,
        generator: torch.Generator | None = None,
        batch_size: int = 16,
        output_type: Literal["pil", "np", "pt"] = "pil",
    ) -> ImagePipelineOutput:
        """Images of each taxon, taxon by taxon.

        rank: draw the taxon's ancestor at this rank. Seeds are `seed`, `seed` + 1, … or come from `generator`.
        guidance_rank: the base of guidance; "coarsest" is the paper's, "unconditional" is classifier-free guidance.
        towards, fraction: mix each taxon's condition with that of another, so far (0 … 1) towards it.
        context, context_scale: a caption of the base beside the taxon, such as "over pink", and how much it steers.
        output_type: "pil" images, "np" float (B, h, w, 3) in [0, 1], "pt" float (B, 3, h, w) in [0, 1].
        """
        if output_type not in _OUTPUT_TYPES:
            raise SettingsError(f"output_type {output_type!r} is none of {', '.join(_OUTPUT_TYPES)}")
        taxa = [taxon] if isinstance(taxon, str | Lineage) else list(taxon)
        ranks = {"coarsest": self.adapter.card.ranks[0], UNCONDITIONAL: None}
        guidance = Guidance(guidance_scale, ranks.get(guidance_rank, guidance_rank))
        seeds = [seed + number for number in range(num_images_per_taxon)]
        if generator is not None:
            drawn = torch.randint(2**31, (num_images_per_taxon,), generator=generator, device=generator.device)
            seeds = drawn.tolist()
        lineages = [self.lineage(name, rank) for name in taxa]
        other = None if towards is None else self.lineage(towards, rank)
        beside = None if context is None else Context(context, context_scale)
        requests = [
            Request(lineage, number, guidance, other, fraction, context=beside)
            for lineage in lineages
            for number in seeds
        ]
        sampler = Sampler(self.adapter.denoiser, size_px=self.adapter.card.image_size_px)
        samples = sampler(requests, num_steps=num_inference_steps, batch_size=batch_size)
        images = [sample.image for sample in self._watched(samples, len(requests))]
        return ImagePipelineOutput(images=_output(np.stack(images), output_type))

    def _watched(self, samples: Iterator[Any], total: int) -> Iterator[Any]:
        with self.progress_bar(total=total) as bar:
            for sample in samples:
                bar.update()
                yield sample

    @torch.no_grad()
    def encode_taxon(self, taxon: str | Lineage, rank: Rank | None = None) -> Tensor:
        """`c^(i)` (1, T, D): what any diffusers pipeline over this base and LoRA takes as `prompt_embeds`."""
        condition: Tensor = self.adapter.denoiser.conditioner([self.lineage(taxon, rank)])
        return condition

    def export_prompt_embeds(self, path: str | Path, taxa: Sequence[str | Lineage]) -> None:
        """A safetensors file of each taxon's condition (1, T, D) at every rank, by lineage, and the null.

        With `pytorch_lora_weights.safetensors` beside `adapter.json`, stock diffusers needs nothing else of ours.
        """
        lineages = [self.lineage(taxon) for taxon in taxa]
        parts = dict.fromkeys([Lineage(), *(lin.truncated(rank) for lin in lineages for rank in lin.ranks)])
        tensors = {str(part): self.encode_taxon(part).cpu().contiguous() for part in parts}
        card = {"base": self.adapter.card.base, "base_hash": self.adapter.card.base_hash}
        safetensors.torch.save_file(tensors, str(path), {"taxadiffusion": json.dumps(card)})


def _output(images: Any, output_type: str) -> Any:
    """uint8 (B, 3, h, w) as the caller wants it."""
    if output_type == "pil":
        return [Image.fromarray(image) for image in images.transpose(0, 2, 3, 1)]
    floats = images.astype(np.float32) / 255.0
    return torch.from_numpy(floats) if output_type == "pt" else floats.transpose(0, 2, 3, 1)
