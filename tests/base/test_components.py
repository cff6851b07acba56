"""Laws of components: settings are those of the loaded models; three forms of weights; refusals that name the cause."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

from taxadiffusion.adapter import open_model, save_adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.components import check_base, text_settings, unet_settings, vae_settings
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import base_files, component_hash, component_variant
from taxadiffusion.condition import PromptConditioner, PromptSettings
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from tests.published_bases import SIZE_PX, Form, Name, tiny, write_documents, write_published_base
from tests.taxa import taxonomy_of
from tests.tiny_base import write_tiny_base

COMPONENTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, Path]:
    forms: tuple[Form, ...] = ("whole", "sharded", "fp16")
    return {form: write_published_base(tmp_path_factory.mktemp(form), "sd15", form) for form in forms}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A base's settings alone: what is refused is refused without weights."""
    write_documents(tmp_path / "base", tiny("sd15"))
    return tmp_path / "base"


def change(base: Path, file: str, **values: Any) -> None:
    path = base / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def serve(repository: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let the hub be this folder, downloaded into `snapshot`; returns what will have been asked for."""
    asked: list[list[str]] = []

    def download(_repository: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        for path in repository.rglob("*"):
            name = path.relative_to(repository)
            if path.is_file() and any(name.match(pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_settings_are_those_of_the_loaded_models(bases: dict[Form, Path]) -> None:
    base = bases["whole"]
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").config
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae").config
    text = CLIPTextModel.from_pretrained(base / "text_encoder").config
    assert unet_settings(base) == {key: unet[key] for key in unet_settings(base)}
    assert vae_settings(base) == {key: vae[key] for key in vae_settings(base)}
    assert {"scaling_factor", "shift_factor", "latents_mean", "latents_std"} <= set(vae_settings(base))
    for key in ("hidden_size", "max_position_embeddings", "num_hidden_layers", "hidden_act", "layer_norm_eps"):
        assert getattr(text_settings(base), key) == getattr(text, key)


def test_latent_statistics_are_applied_by_channel_as_diffusers_does(tmp_path: Path) -> None:
    """As `StableDiffusionXLPipeline` decodes: `latents · std / scaling_factor + mean`."""
    base = write_tiny_base(tmp_path)
    mean, std = [0.1, -0.2, 0.3, 0.0], [0.5, 2.0, 1.5, 1.0]
    change(base, "vae/config.json", latents_mean=mean, latents_std=std, shift_factor=None, scaling_factor=0.7)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8)
    backbone = Backbone.load(str(base))
    latents = backbone.encode(images)
    columns = [torch.tensor(values).view(1, 4, 1, 1) for values in (mean, std)]
    with torch.no_grad():
        mode = vae.encode(torch.from_numpy(images).float() / 127.5 - 1).latent_dist.mode()
        torch.testing.assert_close(latents * columns[1] / 0.7 + columns[0], mode)
        pixels = (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1).numpy() * 255
    assert np.abs(backbone.decode(latents) - pixels).max() < 0.51


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"scaling_factor": None}, "scaling_factor is None"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"shift_factor": "a"}, "shift_factor is 'a'"),
        ({"latents_mean": [0.0] * 4}, "latents_std is None, expected 4 numbers"),
        ({"latents_mean": [0.0] * 3, "latents_std": [1.0] * 4}, r"latents_mean is \[0.0, 0.0, 0.0\], expected 4"),
        ({"latents_mean": [0.0] * 4, "latents_std": [0.0] * 4}, "must be above 0"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "shift_factor": 0.1}, "go without shift_factor"),
    ],
)
def test_scaling_that_cannot_be_is_refused(settings: Path, values: dict[str, Any], fault: str) -> None:
    change(settings, "vae/config.json", **values)
    with pytest.raises(CheckpointError, match=fault):
        check_base(settings)


def test_every_form_of_weights_is_the_same_base(bases: dict[Form, Path]) -> None:
    """Sharded: bit for bit; half precision alone: the rounded weights, in float32."""
    backbones = {form: Backbone.load(str(base)) for form, base in bases.items()}
    images = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE_PX, SIZE_PX), np.uint8)
    found = {}
    for form, backbone in backbones.items():
        latents, states = backbone.encode(images), backbone.text(["a fish"])
        assert backbone.dtype == latents.dtype == states.dtype == torch.float32
        with torch.no_grad():
            found[form] = (latents, states, backbone(latents, torch.tensor([500]), states))
    for whole, sharded, half in zip(*found.values(), strict=True):
        assert torch.equal(whole, sharded)
        torch.testing.assert_close(whole, half, rtol=0.03, atol=0.03)
    assert {form: component_variant(base, "unet") for form, base in bases.items()} == {
        "whole": None, "sharded": None, "fp16": "fp16",
    }  # fmt: skip
    whole = load_file(bases["whole"] / "unet" / "diffusion_pytorch_model.safetensors")
    rounded = dict(backbones["fp16"].unet.named_parameters())
    assert all(torch.equal(rounded[name], tensor.half().float()) for name, tensor in whole.items())


@pytest.mark.parametrize("form", ["whole", "sharded", "fp16"])
def test_hashes_follow_the_weights_of_every_form(bases: dict[Form, Path], tmp_path: Path, form: Form) -> None:
    same = Path(shutil.copytree(bases[form], tmp_path / "same"))
    for component in COMPONENTS:
        before = component_hash(same, component)
        assert before == component_hash(bases[form], component)
        last = sorted((same / component).glob("*.safetensors"))[-1]
        content = bytearray(last.read_bytes())
        content[-1] ^= 1
        last.write_bytes(content)
        assert component_hash(same, component) != before
    other: Form = "sharded" if form == "whole" else "whole"
    assert component_hash(bases[form], "unet") != component_hash(bases[other], "unet")


@pytest.mark.parametrize("form", ["sharded", "fp16"])
def test_half_precision_and_shards_are_read_from_the_hubs_cache(
    bases: dict[Form, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    """Half precision is asked for only where a component has nothing else; settings come first."""
    asked = serve(bases[form], tmp_path, monkeypatch)
    assert Backbone.load("someone/base").unet_hash == component_hash(bases[form], "unet")
    assert not any(name.endswith("safetensors") for name in asked[0])
    assert len(asked) == (3 if form == "fp16" else 2)
    assert not any("fp16" in name for patterns in asked[:2] for name in patterns)


def test_a_base_is_refused_before_its_weights_are_fetched(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(settings, "unet/config.json", time_cond_proj_dim=256)
    asked: list[list[str]] = []

    def download(_repository: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(settings)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="latent consistency"):
        Backbone.load("someone/base")
    assert len(asked) == 1


def test_a_hub_base_of_pickled_weights_alone_is_refused_with_the_command(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(settings))
    with pytest.raises(CheckpointError, match=r"no safetensors weights of its unet, vae.*P\.from_pretrained\('a/base'"):
        Backbone.load("a/base")


def test_files_of_a_base_are_those_that_count(bases: dict[Form, Path], tmp_path: Path) -> None:
    """What the pipeline copies: neither a variant beside the whole weights, nor pickled ones."""
    base = Path(shutil.copytree(bases["whole"], tmp_path / "base"))
    shutil.copytree(bases["fp16"], base, dirs_exist_ok=True)
    (base / "unet" / "diffusion_pytorch_model.bin").touch()
    (base / "unet" / "diffusion_pytorch_model.non_ema.safetensors").touch()
    names = {str(path.relative_to(base)) for path in base_files(base)}
    assert {name for name in names if "unet" in name} == {
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    for form in ("sharded", "fp16"):
        copied = tmp_path / form
        for path in base_files(bases[form]):
            target = copied / path.relative_to(bases[form])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        assert Backbone.load(str(copied)).content_hash == Backbone.load(str(bases[form])).content_hash


def test_an_adapter_and_its_half_precision_base_travel_through_the_hub(
    bases: dict[Form, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone.load(str(bases["fp16"]))
    backbone.add_lora(LoRASettings())
    conditioner = PromptConditioner(("order",), backbone.text, PromptSettings())
    taxonomy = taxonomy_of([Lineage.of({"order": "Perciformes"})], ("order",))
    save_adapter(tmp_path / "adapter", Denoiser(backbone, conditioner), taxonomy, recipe={}, read_me="")
    pipeline = TaxaDiffusionPipeline.from_pretrained(tmp_path / "adapter", base=str(bases["fp16"]))
    pipeline.save_pretrained(tmp_path / "both")
    serve(tmp_path / "both", tmp_path / "snapshot", monkeypatch)
    read = open_model("someone/fish").denoiser.backbone
    assert read.path == tmp_path / "snapshot"
    assert read.content_hash == backbone.content_hash


def test_the_files_that_the_cluster_page_fetches_make_a_base(bases: dict[Form, Path], tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    command = re.search(r"hf download \S+ --local-dir \S+ (.*?)```", page, re.DOTALL)
    assert command
    for name in command[1].replace("\\\n", " ").split():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name != "tokenizer/special_tokens_map.json":  # today's tokenizers say the same in tokenizer_config.json
            shutil.copyfile(bases["whole"] / name, target)
    fetched, whole = Backbone.load(str(tmp_path)), Backbone.load(str(bases["whole"]))
    assert (fetched.unet_hash, fetched.vae_hash) == (whole.unet_hash, whole.vae_hash)
    assert fetched.num_text_tokens == 77
    assert torch.equal(fetched.text(["a fish"]), whole.text(["a fish"]))
    fetched.encode(np.zeros((1, 3, SIZE_PX, SIZE_PX), np.uint8))


def _unet(**values: Any) -> Callable[[Path], None]:
    return lambda base: change(base, "unet/config.json", **values)


def _text(**values: Any) -> Callable[[Path], None]:
    return lambda base: change(base, "text_encoder/config.json", **values)


def _index(**values: Any) -> Callable[[Path], None]:
    return lambda base: change(base, "model_index.json", **values)


def _scheduler(**values: Any) -> Callable[[Path], None]:
    return lambda base: change(base, "scheduler/scheduler_config.json", **values)


XL = {
    "_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}  # fmt: skip
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}

REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "latent consistency": (_unet(time_cond_proj_dim=256), r"latent consistency model.*time_cond_proj_dim = 256"),
    "Stable Diffusion XL": (_index(**XL), "StableDiffusionXLPipeline with text_encoder_2, tokenizer_2"),
    "XL's U-Net": (_unet(addition_embed_type="text_time"), "Stable Diffusion XL's kind.*'text_time'"),
    "classes": (_unet(num_class_embeds=1000), "conditioned on classes"),
    "class embeddings": (_unet(class_embed_type="timestep"), "conditioned on classes"),
    "inpainting": (_unet(in_channels=9), "reads 9 channels, its VAE gives 4; it is for inpainting"),
    "depth": (_unet(in_channels=5), "depth to image"),
    "editing": (_unet(in_channels=8), "editing by instructions"),
    "learned variance": (_unet(out_channels=8), "gives 8 channels for 4"),
    "image prompts": (_unet(encoder_hid_dim_type="ip_image_proj"), "ip_image_proj"),
    "boxes": (_unet(attention_type="gated"), "GLIGEN"),
    "another width": (_unet(cross_attention_dim=1024), "states of width 1024, its text encoder gives 768"),
    "another U-Net": (_unet(_class_name="UNet3DConditionModel"), "its unet is a UNet3DConditionModel"),
    "another autoencoder": (
        lambda base: change(base, "vae/config.json", _class_name="AutoencoderTiny"), "its vae is a AutoencoderTiny",
    ),
    "T5": (_text(model_type="t5"), "is a 't5'; only CLIP's"),
    "a projecting encoder": (_text(architectures=["CLIPTextModelWithProjection"]), "WithProjection"),
    "a masking encoder": (_text(use_attention_mask=True), "use_attention_mask"),
    "another encoder by the index": (
        _index(text_encoder=["pipelines", "RobertaSeriesModelWithTransformation"]), "RobertaSeriesModel",
    ),
    "settings of no encoder": (_text(hidden_size="wide"), "holds no settings of a CLIP text encoder"),
    "EDM": (_scheduler(_class_name="EDMEulerScheduler"), "'EDMEulerScheduler' is not served"),
    "no scheduler": (_scheduler(_class_name="SuperScheduler"), "'SuperScheduler', which diffusers does not have"),
    "no betas": (_scheduler(beta_schedule="of my own"), "cannot be made from the base's settings"),
    "a moving shift": (_scheduler(**FLOW, use_dynamic_shifting=True), "use_dynamic_shifting"),
    "no tokenizer": (lambda base: shutil.rmtree(base / "tokenizer"), "tokenizer is missing"),
    "a transformer": (lambda base: shutil.rmtree(base / "unet"), "no unet/config.json.*it is a StableDiff"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_by_name_before_weights_are_read(settings: Path, kind: str) -> None:
    """There are no weights in the folder: the cause named is the kind, not their absence."""
    with pytest.raises(CheckpointError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        Backbone.load(str(settings))
    alter, message = REFUSED[kind]
    alter(settings)
    with pytest.raises(CheckpointError, match=message):
        Backbone.load(str(settings))


@pytest.mark.parametrize(
    ("name", "file", "at_least"),
    [
        ("sd15", "unet/config.json", 20),
        ("sd15", "text_encoder/config.json", 20),
        ("sd15", "scheduler/scheduler_config.json", 10),
        ("sd15", "model_index.json", 0),
        ("flow", "vae/config.json", 20),
        ("flow", "scheduler/scheduler_config.json", 4),
    ],
)
def test_settings_of_any_kind_are_taken_or_refused_and_nothing_breaks(
    tmp_path: Path, name: Name, file: str, at_least: int
) -> None:
    """Each value of the published files in turn exchanged for one of another type."""
    settings = tmp_path / "base"
    write_documents(settings, tiny(name))
    path = settings / file
    document = json.loads(path.read_text())
    refused = 0
    for key in document:
        for value in (None, "x", [], -1):
            path.write_text(json.dumps(document | {key: value}))
            try:
                check_base(settings)
            except CheckpointError:
                refused += 1
    assert refused >= at_least


@pytest.mark.parametrize("name", ["v1-5.safetensors", "v1-4.ckpt", "folder"])
def test_a_single_file_is_refused_with_the_command_that_converts_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "v1-5-pruned-emaonly.safetensors").touch()
    else:
        path.touch()
    with pytest.raises(CheckpointError, match=r"single-file checkpoint.*P\.from_single_file\('.*save_pretrained"):
        Backbone.load(str(path))


def test_pickled_weights_are_refused_with_a_command_that_converts_them(
    bases: dict[Form, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is run: what it writes is the base."""
    base = Path(shutil.copytree(bases["whole"], tmp_path / "base"))
    for component in COMPONENTS:
        (weights,) = (base / component).glob("*.safetensors")
        name = "pytorch_model.bin" if component == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(load_file(weights), base / component / name)
        weights.unlink()
    with pytest.raises(
        CheckpointError, match=r"only diffusion_pytorch_model\.bin: pickled weights are never read"
    ) as got:
        Backbone.load(str(base))
    command = re.search(r'python -c "(.*)" \(', str(got.value))
    assert command
    monkeypatch.chdir(tmp_path)
    exec(command[1], {})
    converted, original = Backbone.load("NEW"), Backbone.load(str(bases["whole"]))
    assert torch.equal(converted.text(["a fish"]), original.text(["a fish"]))
    state = converted.unet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in original.unet.state_dict().items())


def test_weights_that_are_not_all_there_are_refused(bases: dict[Form, Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(bases["sharded"], tmp_path / "base"))
    index = base / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    document = index.read_text()
    first = base / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    first.rename(tmp_path / first.name)
    with pytest.raises(CheckpointError, match=r"00001-of-00002\.safetensors is missing; .* names 2 files"):
        Backbone.load(str(base))
    (tmp_path / first.name).rename(first)
    index.write_text(document.replace(first.name, "../vae/" + first.name))
    with pytest.raises(CheckpointError, match="no safetensors file beside it"):
        Backbone.load(str(base))
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(CheckpointError, match="names no files"):
        Backbone.load(str(base))
    index.unlink()
    with pytest.raises(CheckpointError, match=r"shards of weights but no diffusion_pytorch_model\.safetensors\.index"):
        Backbone.load(str(base))
    index.write_text(document)
    (base / "unet" / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="holds both"):
        Backbone.load(str(base))


@pytest.mark.parametrize("size", [None, [8, 12]])
def test_a_base_without_a_square_size_needs_one_said(tmp_path: Path, size: object) -> None:
    base = write_tiny_base(tmp_path)
    change(base, "unet/config.json", sample_size=size)
    backbone = Backbone.load(str(base))
    with pytest.raises(SettingsError, match=r"base\.image_size_px"):
        _ = backbone.image_size_px
    assert backbone.latent_shape_at(32) == (4, 16, 16)


def test_texts_are_as_long_as_the_tokenizer_pads(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path)
    change(base, "tokenizer/tokenizer_config.json", model_max_length=40)
    backbone = Backbone.load(str(base))
    assert backbone.num_text_tokens == backbone.text.num_tokens == 40
    assert backbone.text(["a fish"]).shape == (1, 40, 16)
