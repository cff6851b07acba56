"""Laws of models for ComfyUI: every key is one that it reads, it adds what we add, and our node finds each taxon."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.base.weights import SHIPPED_BASE, resolve_base
from taxadiffusion.cli import app
from taxadiffusion.condition import PromptSettings, TaxonAdapterSettings
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import RANKS as ALL_RANKS
from taxadiffusion.names import Lineage
from taxadiffusion.sharing import comfyui_node, comfyui_shape, exported
from taxadiffusion.sharing.comfyui import export_comfyui
from taxadiffusion.sharing.comfyui_shape import held
from taxadiffusion.sharing.exported import chosen_taxa, file_stem
from tests.published_bases import PUBLISHED, tiny, write_documents, write_published_base
from tests.sharing.comfyui_rules import known_modules, patches
from tests.sharing.shared_model import LORA, TAXA, tiny_shapes, write_model
from tests.tiny_adapter import TAXONOMY, make

SHAPES = tuple(comfyui_shape.SHAPES)
MODULES = known_modules(1, (True, True, True, False))


@pytest.fixture(scope="module", autouse=True)
def _tiny_shapes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_shapes(patch)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(model: tuple[Path, Path]) -> Adapter:
    return load_adapter(model[0], base=str(model[1]))


@pytest.fixture(scope="module")
def out(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "reef"
    assert export_comfyui(adapter, out, TAXA, name="reef", merged=False).num_conditions == 6
    return out


@pytest.fixture(scope="module")
def merged(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "reef"
    export_comfyui(adapter, out, TAXA, name="reef", merged=True)
    return out


def unet_inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 77, 768, generator=generator),
    }


def predicted(unet: UNet2DConditionModel) -> torch.Tensor:
    with torch.no_grad():
        return unet(**unet_inputs()).sample


def test_comfyui_reads_every_key_and_adds_what_we_add(adapter: Adapter, out: Path) -> None:
    lora = load_file(out / "models/loras/reef.safetensors")
    added, unread = patches(lora, MODULES)
    assert not unread
    unet = adapter.denoiser.backbone.unet
    layers = {name: module for name, module in unet.named_modules() if hasattr(module, "lora_A")}
    assert {name.rpartition(".")[2] for name in layers} >= {"to_q", "conv1", "proj"}
    assert set(added) == set(layers)
    for name, layer in layers.items():
        torch.testing.assert_close(added[name], layer.get_delta_weight("default").flatten(1))


def test_stock_diffusers_predicts_the_same_with_the_file(adapter: Adapter, model: tuple[Path, Path], out: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(model[1], safety_checker=None, feature_extractor=None)
    bare = predicted(stock.unet)
    stock.load_lora_weights(out / "models/loras", weight_name="reef.safetensors")
    ours = predicted(adapter.denoiser.backbone.unet)
    torch.testing.assert_close(predicted(stock.unet), ours, atol=1e-5, rtol=1e-4)
    assert (bare - ours).abs().max() > 1e-3


def test_the_lora_says_what_it_is(out: Path) -> None:
    with safe_open(out / "models/loras/reef.safetensors", framework="pt") as stream:
        metadata = stream.metadata()
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.resolution"] == "64x64"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == (str(LORA.rank), f"{LORA.alpha}.0")
    assert {"modelspec.title", "modelspec.implementation", "modelspec.description"} <= set(metadata)


def test_the_merged_unet_predicts_the_same_and_the_model_stays(adapter: Adapter, merged: Path) -> None:
    unet = UNet2DConditionModel.from_config(adapter.denoiser.backbone.unet.config)
    before = predicted(adapter.denoiser.backbone.unet)
    unet.load_state_dict(load_file(merged / "models/diffusion_models/reef.safetensors"))
    torch.testing.assert_close(predicted(unet), before, atol=1e-5, rtol=1e-4)
    assert not adapter.denoiser.backbone.lora_is_merged
    with safe_open(merged / "models/diffusion_models/reef.safetensors", framework="pt") as stream:
        assert stream.metadata()["modelspec.architecture"] == "stable-diffusion-v1"
    assert load_file(merged / "models/vae/reef-vae.safetensors")


def test_the_conditions_are_the_models(adapter: Adapter, out: Path) -> None:
    conditions = load_file(out / "models/taxadiffusion/reef.safetensors")
    lineages = {Lineage(), *TAXA, *(taxon.truncated(rank) for taxon in TAXA for rank in taxon.ranks)}
    assert set(conditions) == set(map(str, lineages))
    for lineage in lineages:
        assert torch.equal(conditions[str(lineage)], adapter.denoiser.conditioner([lineage]))


# the node


@pytest.fixture
def node(out: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The node as ComfyUI imports it: the written file, beside ComfyUI's table of folders."""
    folders: dict[str, Path] = {}
    monkeypatch.setitem(
        sys.modules,
        "folder_paths",
        SimpleNamespace(
            models_dir=str(out / "models"),
            folder_names_and_paths=folders,
            add_model_folder_path=lambda name, path: folders.setdefault(name, Path(path)),
            get_filename_list=lambda name: sorted(path.name for path in folders[name].iterdir()),
            get_full_path=lambda name, file: str(folders[name] / file) if (folders[name] / file).exists() else None,
        ),
    )
    spec = importlib.util.spec_from_file_location("written_node", out / "custom_nodes/taxadiffusion/__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_node_loads_a_taxon_as_conditioning(node: ModuleType, adapter: Adapter) -> None:
    loader = node.NODE_CLASS_MAPPINGS["TaxaDiffusionTaxon"]
    assert set(node.NODE_DISPLAY_NAME_MAPPINGS) == set(node.NODE_CLASS_MAPPINGS)
    inputs = loader.INPUT_TYPES()["required"]
    assert inputs["file"][0] == ["reef.safetensors"]
    assert inputs["rank"][0] == ["as named", *ALL_RANKS]
    assert loader.RETURN_TYPES == ("CONDITIONING",)
    run = getattr(loader(), loader.FUNCTION)
    for taxon, rank, lineage in [
        (TAXA[1].label, "as named", TAXA[1]),
        (" cornutus ", "as named", TAXA[1]),
        (str(TAXA[1]), "family", TAXA[1].truncated("family")),
        ("zanclidae", "as named", TAXA[1].truncated("family")),
        ("", "order", Lineage()),
    ]:
        (((condition, extra),),) = run("reef.safetensors", taxon, rank)
        assert torch.equal(condition, adapter.denoiser.conditioner([lineage]))
        assert isinstance(extra, dict)


@pytest.mark.parametrize(
    ("file", "taxon", "rank", "message"),
    [
        ("reef.safetensors", "Zanclida", "as named", "did you mean Zanclidae"),
        ("reef.safetensors", "Zanclidae", "genus", "has no genus .* order, family"),
        ("other.safetensors", "Zanclidae", "as named", "models/taxadiffusion/other.safetensors is not there"),
    ],
)
def test_the_node_refuses_what_the_file_has_not(
    node: ModuleType, file: str, taxon: str, rank: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        node.TaxonCondition().load(file, taxon, rank)


def test_homonyms_are_told_apart_by_their_lineage() -> None:
    keys = ["order: A > genus: Morus", "order: B > genus: Morus", "order: B > genus: Morus > species: alba"]
    with pytest.raises(ValueError, match="names several taxa"):
        comfyui_node.find(keys, "Morus")
    assert comfyui_node.find(keys, keys[1]) == keys[1]
    assert comfyui_node.find(keys, "morus alba", "genus") == keys[1]


def test_the_node_stands_alone(out: Path) -> None:
    text = (out / "custom_nodes/taxadiffusion/__init__.py").read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0")
    assert "import taxadiffusion" not in text
    assert "from taxadiffusion" not in text


# the workflow

OUTPUTS = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"), "LoraLoaderModelOnly": ("MODEL",), "UNETLoader": ("MODEL",),
    "VAELoader": ("VAE",), "ModelSamplingDiscrete": ("MODEL",), "TaxaDiffusionTaxon": ("CONDITIONING",),
    "EmptyLatentImage": ("LATENT",), "KSampler": ("LATENT",), "VAEDecode": ("IMAGE",), "SaveImage": (),
}  # fmt: skip
INPUTS = {
    "CheckpointLoaderSimple": {"ckpt_name": str},
    "LoraLoaderModelOnly": {"model": "MODEL", "lora_name": str, "strength_model": float},
    "UNETLoader": {"unet_name": str, "weight_dtype": str},
    "VAELoader": {"vae_name": str},
    "ModelSamplingDiscrete": {"model": "MODEL", "sampling": str, "zsnr": bool},
    "TaxaDiffusionTaxon": {"file": str, "taxon": str, "rank": str},
    "EmptyLatentImage": {"width": int, "height": int, "batch_size": int},
    "KSampler": {
        "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT", "seed": int,
        "steps": int, "cfg": float, "sampler_name": str, "scheduler": str, "denoise": float,
    },
    "VAEDecode": {"samples": "LATENT", "vae": "VAE"},
    "SaveImage": {"images": "IMAGE", "filename_prefix": str},
}  # fmt: skip
"""ComfyUI's own nodes (`nodes.py`, `comfy_extras/nodes_model_advanced.py`): what they take and give."""


@pytest.mark.parametrize("kind", ["out", "merged"])
def test_the_workflow_fits_comfyuis_nodes(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    graph = json.loads((folder / "reef-workflow.json").read_text())
    for node in graph.values():
        assert set(node["inputs"]) == set(INPUTS[node["class_type"]])
        for name, value in node["inputs"].items():
            wanted = INPUTS[node["class_type"]][name]
            if isinstance(value, list):
                assert OUTPUTS[graph[value[0]]["class_type"]][value[1]] == wanted
            else:
                assert isinstance(value, wanted)  # type: ignore[arg-type]
    written = {path.name for path in (folder / "models").rglob("*.safetensors")}
    named = {value for node in graph.values() for value in node["inputs"].values() if str(value).endswith("tensors")}
    assert written <= named
    assert named - written == ({"local.safetensors"} if kind == "out" else set())  # the base, which the user has


def test_what_the_weights_do_not_say_the_workflow_says(tmp_path: Path) -> None:
    base = write_published_base(tmp_path / "sd21", "sd21")
    form = held(base, "sd21")
    assert (form.shape.architecture, form.prediction, form.zero_snr) == ("stable-diffusion-v2", "v_prediction", False)
    config = base / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rescale_betas_zero_snr": True}))
    assert held(base, "sd21").zero_snr


# what ComfyUI cannot hold


@pytest.mark.parametrize("name", ["sd14", "sd15", "sd21"])
def test_published_bases_are_held_at_their_full_width(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfyui_shape, "SHAPES", SHAPES)
    write_documents(tmp_path / "full", PUBLISHED[name])  # type: ignore[index]
    assert held(tmp_path / "full", name).shape == SHAPES[name == "sd21"]
    write_documents(tmp_path / "tiny", tiny(name))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="block_out_channels of its U-Net"):
        held(tmp_path / "tiny", name)


def test_other_bases_are_refused_by_name(tmp_path: Path) -> None:
    ours = resolve_base(SHIPPED_BASE)
    with pytest.raises(SettingsError, match=rf"{SHIPPED_BASE}. has a shape that ComfyUI cannot hold: .* of its U-Net"):
        held(ours, SHIPPED_BASE)
    flow = tiny("flow")
    write_documents(tmp_path / "flow", flow)
    with pytest.raises(SettingsError, match="in_channels of its U-Net is 16"):
        held(tmp_path / "flow", "flow")
    scaled = tiny("sd15")
    scaled["vae"]["scaling_factor"] = 0.5
    write_documents(tmp_path / "scaled", scaled)
    with pytest.raises(SettingsError, match=r"its autoencoder .* 0\.5"):
        held(tmp_path / "scaled", "scaled")
    other = tiny("sd15")
    other["scheduler"]["beta_end"] = 0.02
    write_documents(tmp_path / "other", other)
    with pytest.raises(SettingsError, match=r"beta_end of its noise schedule is 0\.02, ComfyUI's is 0\.012"):
        held(tmp_path / "other", "other")


def test_models_that_are_no_lora_are_refused_or_merged(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "own", make(base, TaxonAdapterSettings()), TAXONOMY, recipe={}, read_me="x")
    with pytest.raises(SettingsError, match="cross-attention of their own"):
        exported.merged_unet(load_adapter(tmp_path / "own", base=str(base)))
    full, shaped = write_model(tmp_path / "full", PromptSettings(), None, full_unet=True)
    adapter = load_adapter(full, base=str(shaped))
    with pytest.raises(SettingsError, match="give --merged"):
        export_comfyui(adapter, tmp_path / "out", TAXA, name="x", merged=False)
    assert not (tmp_path / "out").exists()
    export_comfyui(adapter, tmp_path / "out", TAXA, name="x", merged=True)
    written = load_file(tmp_path / "out/models/diffusion_models/x.safetensors")
    assert torch.equal(written["conv_in.weight"], adapter.denoiser.backbone.unet.conv_in.weight)


# taxa and the command


def test_taxa_are_chosen_or_all_up_to_a_number(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_taxa(adapter, [], every=False) == sorted(TAXA, key=lambda taxon: taxon.label)
    assert chosen_taxa(adapter, ["Zanclidae", "Zanclidae"], every=False) == [TAXA[1].truncated("family")]
    with pytest.raises(SettingsError, match="not both"):
        chosen_taxa(adapter, ["Zanclidae"], every=True)
    with pytest.raises(DataError, match="Zanclida"):
        chosen_taxa(adapter, ["Zanclida"], every=False)
    monkeypatch.setattr(exported, "MOST_UNASKED", 1)
    with pytest.raises(SettingsError, match="knows 2 taxa, each with a condition of its own; choose some with --taxon"):
        chosen_taxa(adapter, [], every=False)
    assert len(chosen_taxa(adapter, [], every=True)) == 2


def test_files_are_called_as_the_model(tmp_path: Path) -> None:
    assert file_stem("reef-fish") == "reef-fish"
    assert file_stem("someone/my fish") == "my-fish"
    assert file_stem(str(tmp_path / "run 1/adapter")) == "run-1"
    assert file_stem("/") == "model"


def test_the_command_writes_a_new_folder_and_never_over_one(model: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["export-model", str(model[0]), str(tmp_path / "new"), "--to", "comfyui", "--base", str(model[1])]
    result = CliRunner().invoke(app, [*command, "--taxon", "cornutus"])
    assert result.exit_code == 0, result.output
    assert "4 conditions and the model in" in result.output
    assert len((tmp_path / "new/README.md").read_text().splitlines()) <= 10
    assert (tmp_path / "new/models/loras/model.safetensors").is_file()
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, SettingsError)
    assert "exists already" in str(again.exception)
    refused = CliRunner().invoke(app, ["export-model", "reef-fish", str(tmp_path / "small"), "--to", "comfyui"])
    assert isinstance(refused.exception, SettingsError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
