"""Laws of a model in diffusers' layout: our pipeline by `custom_pipeline`, blocks, and stock diffusers all agree."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, ModularPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from taxadiffusion.adapter import load_adapter, save_adapter
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from taxadiffusion.sharing.blocks import SpeciesModel, TaxaDiffusionBlocks, TaxonStep
from taxadiffusion.sharing.diffusers_folder import CONDITIONS, export_diffusers
from taxadiffusion.sharing.hub_pipeline import HubPipeline
from tests.tiny_adapter import TAXA, TAXONOMY, make

ASKED = {"num_inference_steps": 2, "seed": 3}


@pytest.fixture(scope="module", autouse=True)
def _own_cache_of_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Diffusers copies a model's code into a cache before it runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("code")))
        patch.setattr(sys, "path", list(sys.path))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    path = tmp_path_factory.mktemp("model") / "reef"
    save_adapter(path, make(base, lora=LoRASettings()), TAXONOMY, recipe={}, read_me="x")
    return path


@pytest.fixture(scope="module")
def folder(model: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "reef"
    export_diffusers(load_adapter(model, base=str(base)), out, TAXA, name="reef", merged=False)
    return out


@pytest.fixture(scope="module")
def drawn(folder: Path) -> np.ndarray:
    """What the package's own pipeline draws."""
    pipeline = TaxaDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(TAXA[1].label, output_type="np", **ASKED).images


def levels(images: list[object]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(float)


def test_diffusers_opens_our_pipeline_by_its_name(folder: Path, drawn: np.ndarray) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)
    assert isinstance(pipeline, HubPipeline)
    pipeline.set_progress_bar_config(disable=True)
    assert np.array_equal(pipeline(TAXA[1].label, output_type="np", **ASKED).images, drawn)
    assert {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} == set(pipeline.components)
    assert pipeline.to("cpu") is pipeline


def test_without_the_package_the_models_code_says_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("taxadiffusion.sharing.hub_pipeline", "taxadiffusion.sharing.blocks"):
        monkeypatch.setitem(sys.modules, name, None)
    for file in ("pipeline.py", "taxadiffusion_blocks.py"):
        with pytest.raises(ImportError, match="pip install taxadiffusion"):
            exec(compile((folder / file).read_text(), file, "exec"), {})


def test_a_pipeline_without_a_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="made without a model"):
        HubPipeline().open()


def test_blocks_draw_what_the_pipeline_draws(folder: Path, drawn: np.ndarray) -> None:
    pipeline = TaxaDiffusionBlocks().init_pipeline()
    pipeline.update_components(model=SpeciesModel.from_pretrained(str(folder)))
    images = pipeline(taxon=TAXA[1].label, output="images", **ASKED)
    assert np.abs(levels(images) - drawn * 255).max() <= 2


def test_a_shared_folder_brings_its_blocks(folder: Path) -> None:
    pipeline = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    assert isinstance(pipeline.blocks, TaxaDiffusionBlocks)
    assert [given.name for given in pipeline.blocks.inputs if given.required] == ["taxon"]
    optional = {"rank", "guidance_rank", "seed", "guidance_scale", "num_inference_steps"}
    assert optional <= set(pipeline.blocks.input_names)


def test_the_taxon_block_serves_other_blocks(model: Path, base: Path) -> None:
    pipeline = TaxonStep().init_pipeline()
    pipeline.update_components(model=SpeciesModel.from_pretrained(str(model), base=str(base)))
    conditioner = pipeline.model.adapter.denoiser.conditioner
    state = pipeline(taxon=TAXA[1].label, rank="family", guidance_rank="order")
    assert torch.equal(state.get("prompt_embeds"), conditioner([TAXA[1].truncated("family")]))
    assert torch.equal(state.get("negative_prompt_embeds"), conditioner([TAXA[1].truncated("order")]))
    state = pipeline(taxon=TAXA[0].label)
    assert torch.equal(state.get("negative_prompt_embeds"), conditioner([Lineage()]))
    with pytest.raises(DataError, match="Zanclida"):
        pipeline(taxon="Zanclida")
    with pytest.raises(ValueError, match="read whole"):
        SpeciesModel.from_pretrained(str(model), subfolder="unet")


def test_stock_diffusers_reads_the_folder(model: Path, base: Path, folder: Path, tmp_path: Path) -> None:
    """With the LoRA beside the base, and with the LoRA in it: the same picture."""
    export_diffusers(load_adapter(model, base=str(base)), tmp_path / "merged", TAXA, name="reef", merged=True)
    assert not (tmp_path / "merged/adapter").exists()
    pictures = []
    for path in (folder, tmp_path / "merged"):
        stock = StableDiffusionPipeline.from_pretrained(path)
        if path == folder:
            stock.load_lora_weights(path, subfolder="adapter", weight_name="pytorch_lora_weights.safetensors")
        stock.set_progress_bar_config(disable=True)
        conditions = load_file(path / CONDITIONS)
        latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(2))
        asked = {"prompt_embeds": conditions[str(TAXA[1])], "negative_prompt_embeds": conditions["(unconditional)"]}
        pictures.append(stock(latents=latents, num_inference_steps=2, output_type="np", **asked).images)
    np.testing.assert_allclose(pictures[0], pictures[1], atol=1e-4)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
