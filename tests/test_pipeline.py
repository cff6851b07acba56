"""Laws of the pipeline: it is the sampler, it goes round through a folder, and stock diffusers can follow it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from taxadiffusion.adapter import save_adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings, lora_parameters
from taxadiffusion.condition import TaxonomyConditioner, TaxonomySettings
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE, Context, Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from taxadiffusion.sampler import Request, Sampler
from tests.taxa import taxonomy_of
from tests.tiny_base import write_tiny_base

RANKS = ("order", "genus", "species")
TAXA = [
    Lineage.of({"order": "Perciformes", "genus": genus, "species": species})
    for genus, species in (("Amphiprion", "clarkii"), ("Zanclus", "cornutus"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as it is saved: base and adapter in one folder."""
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    backbone = Backbone.load(str(base))
    backbone.add_lora(LoRASettings())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in lora_parameters(backbone.unet).values():
            parameter.data.normal_(std=0.1)
    conditioner = TaxonomyConditioner(RANKS, backbone.text, TaxonomySettings(num_heads=2, feed_forward=32))
    adapter = tmp_path_factory.mktemp("model") / "adapter"
    save_adapter(adapter, Denoiser(backbone, conditioner), taxonomy_of(TAXA, RANKS), recipe={}, read_me="x")
    saved = tmp_path_factory.mktemp("saved")
    TaxaDiffusionPipeline.from_pretrained(adapter, base=str(base)).save_pretrained(saved)
    return saved


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> TaxaDiffusionPipeline:
    pipeline = TaxaDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_the_sampler(pipeline: TaxaDiffusionPipeline) -> None:
    asked = {"num_inference_steps": 2, "num_images_per_taxon": 2, "seed": 4}
    images = pipeline("Zanclus cornutus", **asked).images
    images += pipeline("Zanclus cornutus", guidance_scale=9.0, guidance_rank="coarsest", **asked).images
    guidances = (Guidance(DEFAULT_SCALE), Guidance(9.0, "order"))
    requests = [Request(TAXA[1], seed, guidance) for guidance in guidances for seed in (4, 5)]
    for image, sample in zip(images, Sampler(pipeline.adapter.denoiser)(requests, num_steps=2), strict=True):
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), sample.image)


def test_output_types_hold_the_same_pixels(pipeline: TaxaDiffusionPipeline) -> None:
    pil, arrays, tensors = (
        pipeline(["Amphiprion", "Zanclus"], num_inference_steps=2, output_type=kind).images
        for kind in ("pil", "np", "pt")
    )
    np.testing.assert_allclose(np.stack([np.asarray(image) for image in pil]) / 255, arrays, atol=1e-6)
    np.testing.assert_allclose(tensors.permute(0, 2, 3, 1).numpy(), arrays)


def test_a_fall_back_is_said(pipeline: TaxaDiffusionPipeline) -> None:
    with pytest.warns(UserWarning, match="unknown species 'Zanclus novus'; using its genus Zanclus") as said:
        images = pipeline("Zanclus novus", num_inference_steps=1, num_images_per_taxon=2).images
    assert len([warning for warning in said if "Zanclus novus" in str(warning.message)]) == 1
    assert len(images) == 2


def test_rank_and_guidance_rank_mean_what_they_say(pipeline: TaxaDiffusionPipeline) -> None:
    def draw(taxon: str, **kwargs: object) -> np.ndarray:
        return pipeline(taxon, num_inference_steps=2, output_type="np", **kwargs).images  # type: ignore[arg-type,no-any-return]

    assert np.array_equal(draw("Zanclus cornutus", rank="genus"), draw("Zanclus"))
    vanilla, taxonomy = draw("Zanclus", guidance_rank="unconditional"), draw("Zanclus", guidance_rank="coarsest")
    assert not np.array_equal(vanilla, taxonomy)
    assert np.array_equal(vanilla, draw("Zanclus"))
    one = torch.Generator().manual_seed(3)
    two = torch.Generator().manual_seed(3)
    assert np.array_equal(draw("Zanclus", generator=one), draw("Zanclus", generator=two))


def test_a_mix_is_the_sampler_s(pipeline: TaxaDiffusionPipeline) -> None:
    asked = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    images = pipeline("Amphiprion clarkii", towards="Zanclus cornutus", fraction=0.25, **asked).images
    request = Request(TAXA[0], 0, Guidance(3.0), TAXA[1], 0.25)
    (sample,) = Sampler(pipeline.adapter.denoiser)([request], num_steps=2)
    assert np.array_equal((images[0] * 255).round().astype(np.uint8), sample.image.transpose(1, 2, 0))
    alone = pipeline("Amphiprion clarkii", **asked).images
    assert not np.array_equal(images, alone)


def test_a_context_is_the_sampler_s(pipeline: TaxaDiffusionPipeline) -> None:
    asked = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    images = pipeline("Amphiprion clarkii", context="over pink", context_scale=1.5, **asked).images
    request = Request(TAXA[0], 0, Guidance(3.0), context=Context("over pink", 1.5))
    (sample,) = Sampler(pipeline.adapter.denoiser)([request], num_steps=2)
    assert np.array_equal((images[0] * 255).round().astype(np.uint8), sample.image.transpose(1, 2, 0))


def test_stock_diffusers_draws_the_same_from_exported_conditions(
    pipeline: TaxaDiffusionPipeline, folder: Path, tmp_path: Path
) -> None:
    pipeline.export_prompt_embeds(tmp_path / "embeds.safetensors", ["Zanclus cornutus"])
    embeds = safetensors.torch.load_file(tmp_path / "embeds.safetensors")
    assert len(embeds) == 4
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.load_lora_weights(folder / "adapter")
    stock.scheduler = pipeline.scheduler
    stock.set_progress_bar_config(disable=True)
    latents = stock(
        prompt_embeds=embeds[str(TAXA[1])],
        negative_prompt_embeds=embeds[str(TAXA[1].truncated("order"))],
        guidance_scale=9.0,
        num_inference_steps=3,
        latents=torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(2)),
        output_type="latent",
    ).images
    expected = pipeline.adapter.denoiser.backbone.decode(latents)[0].astype(int)
    asked = {"num_inference_steps": 3, "seed": 2, "guidance_scale": 9.0, "guidance_rank": "coarsest"}
    own = pipeline("Zanclus cornutus", output_type="np", **asked).images[0] * 255
    assert np.abs(own.round().astype(int).transpose(2, 0, 1) - expected).max() <= 2


def test_saving_keeps_the_base_byte_for_byte(pipeline: TaxaDiffusionPipeline, folder: Path, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == names
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_push_to_hub_uploads_what_is_saved(pipeline: TaxaDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[str] = []

    def upload(_self: object, folder: Path, *_: object, **__: object) -> None:
        uploaded.extend(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())

    hub = "diffusers.utils.hub_utils"
    monkeypatch.setattr(f"{hub}.create_repo", lambda *_, **__: SimpleNamespace(repo_id="a/b"))
    card = SimpleNamespace(save=lambda path: Path(path).write_text("card"))
    monkeypatch.setattr(f"{hub}.load_or_create_model_card", lambda *_, **__: card)
    monkeypatch.setattr(f"{hub}.populate_model_card", lambda card: card)
    monkeypatch.setattr(TaxaDiffusionPipeline, "_upload_folder", upload)
    pipeline.push_to_hub("a/b")
    assert {"adapter/adapter.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"} <= set(uploaded)


def test_its_components_are_diffusers_own(pipeline: TaxaDiffusionPipeline, folder: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(folder)
    assert set(pipeline.components) == {name for name, part in stock.components.items() if part is not None}


def test_wrong_calls_are_refused(pipeline: TaxaDiffusionPipeline) -> None:
    with pytest.raises(DataError, match="Zanclus"):
        pipeline("Zanclos cornutus")
    with pytest.raises(SettingsError, match="output_type"):
        pipeline("Zanclus", output_type="gif")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="precision"):
        pipeline.to(torch.bfloat16)
