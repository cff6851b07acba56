"""A model for ComfyUI: LoRA or merged U-Net, conditions of taxa, our node that loads them, a workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from taxadiffusion.adapter import Adapter
from taxadiffusion.base.lora import lora_targets
from taxadiffusion.base.weights import component_files
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE
from taxadiffusion.names import Lineage
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from taxadiffusion.sharing.comfyui_shape import Held, held
from taxadiffusion.sharing.exported import Exported, merged_unet, refuse_own_attention
from taxadiffusion.sharing.kohya import kohya_names, model_spec
from taxadiffusion.sharing.new_folder import new_folder

Node = dict[str, Any]

_NUM_STEPS = 25


def export_comfyui(adapter: Adapter, out: Path, taxa: Sequence[Lineage], *, name: str, merged: bool) -> Exported:
    """Write the new folder `out` in the shape of ComfyUI's own: what lies below `models` and `custom_nodes` goes there.

    merged: the whole U-Net, LoRA added, and the autoencoder, so that no other file is needed; else the LoRA alone, for
    a checkpoint of the base that the user has. name: of the files. Raises `SettingsError` for a base that ComfyUI
    cannot hold, for a model that is no LoRA, and where `out` exists.
    """
    backbone = adapter.denoiser.backbone
    form = held(backbone.path, adapter.card.base)
    refuse_own_attention(adapter)
    if adapter.card.full_unet and not merged:
        raise SettingsError("the model trained the U-Net itself, which no LoRA holds: give --merged")
    with new_folder(out) as folder:
        parts = _merged_files(adapter, folder, name, form) if merged else _lora_file(adapter, folder, name, form)
        (folder / "models/taxadiffusion").mkdir(parents=True)
        conditions = folder / f"models/taxadiffusion/{name}.safetensors"
        TaxaDiffusionPipeline(adapter).export_prompt_embeds(conditions, taxa)
        node = files("taxadiffusion").joinpath("sharing/comfyui_node.py").read_text(encoding="utf-8")
        (folder / "custom_nodes/taxadiffusion").mkdir(parents=True)
        (folder / "custom_nodes/taxadiffusion/__init__.py").write_text(node, encoding="utf-8")
        graph = workflow(parts, form, name=name, taxon=taxa[0].label, size_px=adapter.card.image_size_px)
        (folder / f"{name}-workflow.json").write_text(json.dumps(graph, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_read_me(adapter, name, taxa[0], form, merged=merged), encoding="utf-8")
        with safetensors.safe_open(conditions, framework="pt") as stream:
            num_conditions = len(stream.keys())
    return Exported(out, num_conditions)


def _lora_file(adapter: Adapter, folder: Path, name: str, form: Held) -> dict[str, Node]:
    """The LoRA, where there is one, and the nodes that load it onto a checkpoint of the base."""
    base = adapter.card.base.rpartition("/")[2]
    nodes = {"model": _node("CheckpointLoaderSimple", ckpt_name=f"{base}.safetensors")}
    settings = adapter.card.lora
    if settings is not None:
        tensors = kohya_names(lora_targets(adapter.denoiser.backbone.unet), settings)
        _save(folder / "models/loras", name, tensors, _metadata(adapter, name, form, is_lora=True))
        nodes["lora"] = _node(
            "LoraLoaderModelOnly", model=["model", 0], lora_name=f"{name}.safetensors", strength_model=1.0
        )
    return nodes


def _merged_files(adapter: Adapter, folder: Path, name: str, form: Held) -> dict[str, Node]:
    """U-Net and autoencoder under diffusers' names, which ComfyUI reads, and the nodes that load them."""
    metadata = _metadata(adapter, name, form, is_lora=False)
    _save(folder / "models/diffusion_models", name, merged_unet(adapter), metadata)
    latents: dict[str, Tensor] = {}
    for path in component_files(adapter.denoiser.backbone.path, "vae"):
        latents |= safetensors.torch.load_file(path)
    _save(folder / "models/vae", f"{name}-vae", latents, {})
    return {
        "model": _node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default"),
        "vae": _node("VAELoader", vae_name=f"{name}-vae.safetensors"),
    }


def _metadata(adapter: Adapter, name: str, form: Held, *, is_lora: bool) -> dict[str, str]:
    return model_spec(
        adapter.card,
        architecture=form.shape.architecture,
        title=f"{name}: taxa by their lineage",
        prediction=form.prediction,
        is_lora=is_lora,
    )


def _save(folder: Path, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    safetensors.torch.save_file(dict(tensors), folder / f"{name}.safetensors", {"format": "pt", **metadata})


def workflow(parts: Mapping[str, Node], form: Held, *, name: str, taxon: str, size_px: int) -> dict[str, Node]:
    """ComfyUI's graph (its API format, which its page opens too): a taxon's picture, guided from "unconditional".

    parts: the nodes that load the model: "model", and of "lora" and "vae" what there is.
    """
    nodes = {key: dict(node) for key, node in parts.items()}
    # What ComfyUI would guess from the weights is said: the prediction, and a schedule that ends in pure noise.
    nodes["schedule"] = _node(
        "ModelSamplingDiscrete",
        model=["lora" if "lora" in parts else "model", 0],
        sampling="v_prediction" if form.prediction == "v_prediction" else "eps",
        zsnr=form.zero_snr,
    )
    conditions = {"file": f"{name}.safetensors", "rank": "as named"}
    nodes["taxon"] = _node("TaxaDiffusionTaxon", taxon=taxon, **conditions)
    nodes["unconditional"] = _node("TaxaDiffusionTaxon", taxon="", **conditions)
    nodes["noise"] = _node("EmptyLatentImage", width=size_px, height=size_px, batch_size=1)
    nodes["sampler"] = _node(
        "KSampler",
        model=["schedule", 0],
        positive=["taxon", 0],
        negative=["unconditional", 0],
        latent_image=["noise", 0],
        seed=0,
        steps=_NUM_STEPS,
        cfg=DEFAULT_SCALE,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        denoise=1.0,
    )
    autoencoder = ["vae", 0] if "vae" in parts else ["model", 2]
    nodes["pixels"] = _node("VAEDecode", samples=["sampler", 0], vae=autoencoder)
    nodes["picture"] = _node("SaveImage", images=["pixels", 0], filename_prefix=name)
    numbers = {key: str(number) for number, key in enumerate(nodes, 1)}
    return {
        numbers[key]: node | {"inputs": {k: _linked(v, numbers) for k, v in node["inputs"].items()}}
        for key, node in nodes.items()
    }


def _node(kind: str, **inputs: Any) -> Node:
    return {"class_type": kind, "inputs": inputs}


def _linked(value: Any, numbers: Mapping[str, str]) -> Any:
    return [numbers[value[0]], value[1]] if isinstance(value, list) else value


def _read_me(adapter: Adapter, name: str, taxon: Lineage, form: Held, *, merged: bool) -> str:
    base = adapter.card.base
    needed = (
        "Everything that is needed lies here: the U-Net with the LoRA added, and the autoencoder."
        if merged
        else f"Beside these you need a checkpoint of the base ({base}, {form.shape.name}) in `models/checkpoints`."
    )
    return "\n".join([
        f"# {name} for ComfyUI",
        "",
        "1. Copy `models` and `custom_nodes` into ComfyUI's folder, and start ComfyUI anew.",
        f"2. {needed}",
        f"3. Drag `{name}-workflow.json` onto ComfyUI's page{'' if merged else ', and choose your checkpoint in it'}.",
        f"4. Write a taxon into the node “Taxon”: {taxon.label}, or one of its ancestors; `rank` cuts it there.",
        "5. The other “Taxon” node is what guidance leads away from: empty is unconditional; an ancestor guides finer.",
        "6. Prompts have no part in it: the conditions stand in the place of the text encoder's states.",
        "7. Pictures are synthetic and are no evidence that an organism was ever seen.",
        "",
    ])  # fmt: skip
