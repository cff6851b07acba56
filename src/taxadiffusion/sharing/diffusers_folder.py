"""A model as one folder of diffusers' layout: base, LoRA, conditions, and our pipeline for `custom_pipeline`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch

from taxadiffusion.adapter import Adapter
from taxadiffusion.base.weights import base_files
from taxadiffusion.names import Lineage
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from taxadiffusion.sharing.exported import Exported, merged_unet
from taxadiffusion.sharing.new_folder import new_folder

CONDITIONS = "conditions.safetensors"

_PIPELINE = '''# SPDX-License-Identifier: Apache-2.0
"""DiffusionPipeline.from_pretrained(MODEL, custom_pipeline="pipeline", trust_remote_code=True)"""

try:
    from taxadiffusion.sharing.hub_pipeline import HubPipeline  # noqa: F401
except ImportError as error:
    raise ImportError("this model is drawn by taxadiffusion, which is missing: pip install taxadiffusion") from error
'''
_BLOCKS = '''# SPDX-License-Identifier: Apache-2.0
"""ModularPipeline.from_pretrained(MODEL, trust_remote_code=True)"""

try:
    from taxadiffusion.sharing.blocks import TaxaDiffusionBlocks  # noqa: F401
except ImportError as error:
    raise ImportError("this model is drawn by taxadiffusion, which is missing: pip install taxadiffusion") from error
'''
_MODULAR = {
    "_class_name": "TaxaDiffusionBlocks",
    "auto_map": {"ModularPipelineBlocks": "taxadiffusion_blocks.TaxaDiffusionBlocks"},
}


def pipeline_files() -> dict[str, str]:
    """Name → text of the files by which diffusers finds our pipeline and blocks in a model's folder."""
    return {
        "pipeline.py": _PIPELINE,
        "taxadiffusion_blocks.py": _BLOCKS,
        "modular_config.json": json.dumps(_MODULAR, indent=1) + "\n",
    }


def export_diffusers(adapter: Adapter, out: Path, taxa: Sequence[Lineage], *, name: str, merged: bool) -> Exported:
    """Write the new folder `out`: the base file by file, the adapter below `adapter`, conditions, pipeline, README.

    merged: the base with the LoRA added to its U-Net instead, and no adapter: stock diffusers and the conditions are
    all it takes. Raises `SettingsError` where `out` exists, or (merged) the model is no LoRA.
    """
    with new_folder(out) as folder:
        pipeline = TaxaDiffusionPipeline(adapter)
        if merged:
            _write_merged(adapter, folder)
        else:
            pipeline.save_pretrained(folder)
            for file, text in pipeline_files().items():
                (folder / file).write_text(text, encoding="utf-8")
        pipeline.export_prompt_embeds(folder / CONDITIONS, taxa)
        (folder / "README.md").write_text(_read_me(name, taxa[0], merged=merged), encoding="utf-8")
        with safetensors.safe_open(folder / CONDITIONS, framework="pt") as stream:
            num_conditions = len(stream.keys())
    return Exported(out, num_conditions)


def _write_merged(adapter: Adapter, folder: Path) -> None:
    base = adapter.denoiser.backbone.path
    weights = merged_unet(adapter)
    for path in base_files(base):
        if path.parent.name == "unet" and path.name != "config.json":
            continue
        copied = folder / path.relative_to(base)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    safetensors.torch.save_file(weights, folder / "unet/diffusion_pytorch_model.safetensors", {"format": "pt"})


def _read_me(name: str, taxon: Lineage, *, merged: bool) -> str:
    lora = (
        []
        if merged
        else [
            'lora = "pytorch_lora_weights.safetensors"',
            'pipeline.load_lora_weights("THIS FOLDER", subfolder="adapter", weight_name=lora)',
        ]
    )
    ours = [] if merged else [
        "With taxadiffusion installed, by name and at any rank:",
        "",
        '    options = {"custom_pipeline": "pipeline", "trust_remote_code": True}',
        '    pipeline = DiffusionPipeline.from_pretrained("THIS FOLDER", **options)',
        f'    pipeline("{taxon.label}").images[0]',
        "",
    ]  # fmt: skip
    stock = [
        'pipeline = StableDiffusionPipeline.from_pretrained("THIS FOLDER", safety_checker=None)',
        *lora,
        f'conditions = safetensors.torch.load_file("{CONDITIONS}")',
        f'taxon, null = conditions["{taxon}"], conditions["(unconditional)"]',
        "pipeline(prompt_embeds=taxon, negative_prompt_embeds=null).images[0]",
    ]
    return "\n".join([
        f"# {name} for diffusers",
        "",
        *ours,
        "With stock diffusers, by the conditions that lie here:",
        "",
        *(f"    {line}" for line in stock),
        "",
        "Pictures are synthetic and are no evidence that an organism was ever seen.",
        "",
    ])  # fmt: skip
