"""Laws of the base: read strictly, never written, the VAE's own numbers, LoRA that comes and goes without a trace."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from taxadiffusion.base import attention
from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings, lora_parameters, lora_targets
from taxadiffusion.base.weights import resolve_base
from taxadiffusion.errors import CheckpointError, NonFiniteError, SettingsError
from tests.second_device import second_device
from tests.tiny_backbone import inputs, with_lora
from tests.tiny_base import write_tiny_base


def test_the_prediction_is_the_unets(base: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    noisy, timesteps, condition = inputs()
    with torch.no_grad():
        expected = unet(noisy, timesteps, encoder_hidden_states=condition).sample
        torch.testing.assert_close(Backbone.load(str(base))(noisy, timesteps, condition), expected)


def test_latents_carry_the_vaes_own_shift_and_scale(base: Path) -> None:
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8)
    backbone = Backbone.load(str(base))
    with torch.no_grad():
        mode = vae.encode(torch.from_numpy(images).float() / 127.5 - 1).latent_dist.mode()
        torch.testing.assert_close(backbone.encode(images), (mode - 0.1) * 0.7)
        pixels = (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1) * 255
    decoded = backbone.decode(backbone.encode(images))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(float) - pixels.numpy()).max() <= 0.5 + 1e-3


def test_files_with_the_names_of_older_diffusers_are_read(base: Path, tmp_path: Path) -> None:
    """As in Stable Diffusion 1.5's published files: query, key, value, proj_attn; text_model.…; position_ids."""
    old = Path(shutil.copytree(base, tmp_path / "old"))
    vae = old / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, tensor in load_file(vae).items():
        for new, former in names.items():
            name = name.replace(new, former)
        renamed[name] = tensor
    assert any(".proj_attn." in name for name in renamed)
    save_file(renamed, vae, {"format": "pt"})
    text = old / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(text).items()}
    save_file(tensors | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text, {"format": "pt"})
    one, other = Backbone.load(str(base)), Backbone.load(str(old))
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), np.uint8)
    assert torch.equal(one.encode(images), other.encode(images))
    assert torch.equal(one.text(["a fish"]), other.text(["a fish"]))


def test_a_hub_id_is_read_from_the_hubs_cache_without_network(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--fish-base"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = Backbone.load("someone/fish-base")
    assert backbone.path == snapshot
    assert backbone.content_hash == Backbone.load(str(base)).content_hash


def test_sizes_follow_from_the_bases_settings(base: Path) -> None:
    backbone = Backbone.load(str(base))
    assert (backbone.latent_shape, backbone.image_size_px, backbone.downscale) == ((4, 8, 8), 16, 2)
    assert backbone.latent_shape_at(32) == (4, 16, 16)
    assert (backbone.width, backbone.num_text_tokens) == (16, 77)
    with pytest.raises(SettingsError, match="multiple of 4 px, not 30"):
        backbone.latent_shape_at(30)


def test_only_the_unet_is_read_until_more_is_used(base: Path) -> None:
    backbone = Backbone.load(str(base))
    assert not {"_vae", "_text"} & set(vars(backbone))
    first = backbone.text(["a"])
    backbone.release()
    assert not {"_vae", "_text"} & set(vars(backbone))
    assert torch.equal(backbone.text(["a"]), first)


def test_everything_is_frozen_and_in_evaluation_mode(base: Path) -> None:
    backbone = with_lora(base)
    assert not any(p.requires_grad for p in [*backbone.parameters(), *backbone.vae.parameters()])
    assert not any(module.training for module in [*backbone.unet.modules(), *backbone.vae.modules()])


def test_latents_that_are_no_numbers_are_named(base: Path) -> None:
    latents = torch.zeros(3, 4, 8, 8)
    latents[1, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"positions \[1\]"):
        Backbone.load(str(base)).decode(latents)


def test_hashes_follow_content_not_place(base: Path, tmp_path: Path) -> None:
    one, same = Backbone.load(str(base)), Backbone.load(str(write_tiny_base(tmp_path / "same")))
    other = Backbone.load(str(write_tiny_base(tmp_path / "other", seed=1)))
    assert one.content_hash == same.content_hash != other.content_hash
    config = tmp_path / "same" / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.5}))
    assert Backbone.load(str(tmp_path / "same")).vae_hash != one.vae_hash


def test_new_lora_changes_nothing_and_trained_lora_does(base: Path) -> None:
    plain = Backbone.load(str(base))
    fresh = Backbone.load(str(base))
    fresh.add_lora(LoRASettings())
    assert torch.equal(fresh(*inputs()), plain(*inputs()))
    assert not torch.allclose(with_lora(base)(*inputs()), plain(*inputs()), atol=1e-3)


def test_lora_is_the_papers(base: Path) -> None:
    """METHOD: `to_q, to_k, to_v, to_out.0`, rank 4, alpha 4, gaussian A, zero B."""
    backbone = Backbone.load(str(base))
    backbone.add_lora(LoRASettings())
    state = lora_targets(backbone.unet)
    assert {name.rsplit(".lora_", 1)[0].rsplit(".attn", 1)[1][2:] for name in state} == {
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    }
    for name, tensor in state.items():
        assert 4 in tensor.shape
        assert bool(tensor.any()) == (".lora_A." in name)
    spread = torch.cat([tensor.flatten() for name, tensor in state.items() if ".lora_A." in name]).std()
    assert float(spread) == pytest.approx(1 / 4, rel=0.05)


def test_lora_reaches_other_layers_when_told(base: Path) -> None:
    backbone = with_lora(base, targets=("to_q", "ff.net.2", "conv1"))
    names = " ".join(lora_targets(backbone.unet))
    assert ".ff.net.2." in names
    assert ".conv1." in names
    backbone.merge_lora()
    merged = backbone(*inputs())
    backbone.unmerge_lora()
    torch.testing.assert_close(merged, backbone(*inputs()), rtol=1e-4, atol=1e-4)
    with pytest.raises(SettingsError, match="'to_z' names no"):
        with_lora(base, targets=("to_z",))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_merged_lora_predicts_the_same_and_leaves_no_trace(base: Path, dtype: torch.dtype, tolerance: float) -> None:
    backbone = with_lora(base, dtype, rank=3, alpha=6)
    before = {name: tensor.clone() for name, tensor in backbone.unet.state_dict().items()}
    plain = backbone(*inputs())
    backbone.merge_lora()
    torch.testing.assert_close(backbone(*inputs()), plain, rtol=tolerance, atol=tolerance)
    backbone.merge_lora()  # a second time adds nothing
    backbone.unmerge_lora()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.unet.state_dict().items())
    assert torch.equal(backbone(*inputs()), plain)


def test_bfloat16_holds_the_frozen_part_and_float32_the_trained(base: Path) -> None:
    exact, rounded = with_lora(base), with_lora(base, torch.bfloat16)
    assert {p.dtype for p in lora_parameters(rounded.unet).values()} == {torch.float32}
    assert rounded.unet.conv_in.weight.dtype == torch.bfloat16
    prediction = rounded(*inputs())
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, exact(*inputs()), rtol=0.1, atol=0.1)


def test_decoupled_attention_starts_as_the_plain_and_adds_a_second_one(base: Path) -> None:
    plain, decoupled = Backbone.load(str(base)), Backbone.load(str(base))
    decoupled.add_decoupled_attention(3)
    noisy, timesteps, condition = inputs()
    extra = torch.cat([condition, torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(5))], dim=1)
    torch.testing.assert_close(decoupled(noisy, timesteps, extra), plain(noisy, timesteps, condition))
    for module in decoupled.unet.modules():
        if type(module).__name__ == "DecoupledAttention":
            module.to_v_extra.weight.data.fill_(0.1)  # type: ignore[union-attr, operator]
    assert not torch.allclose(decoupled(noisy, timesteps, extra), plain(noisy, timesteps, condition), atol=1e-3)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))  # type: ignore[return-value]


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    weights.write_bytes(bomb)
    with pytest.raises(CheckpointError, match="unet"):
        Backbone.load(str(base))
    weights.unlink()
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(CheckpointError, match="pickled weights are never read"):
        Backbone.load(str(base))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
@pytest.mark.parametrize("component", ["unet", "vae"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, component: str, fault: str) -> None:
    """METHOD, fault 5: strict, whatever diffusers would make of it."""
    base = write_tiny_base(tmp_path)
    path = base / component / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if fault == "missing":
        del tensors[name]
    elif fault == "unexpected":
        tensors["surprise"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(1)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=component):
        Backbone.load(str(base)).encode(np.zeros((1, 3, 16, 16), np.uint8))


def test_a_network_that_fails_midway_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever HTTP library the hub's client stands on."""
    from huggingface_hub.errors import HfHubHTTPError

    (transport,) = (base for base in HfHubHTTPError.__bases__ if base is not OSError)

    def broken(*_: object, **__: object) -> str:
        raise transport("the connection was closed")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(CheckpointError, match=r"cannot be had from the hub \(HTTPError\)"):
        resolve_base("someone/base")


def test_a_base_nobody_can_find_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"no/such-base-anywhere.*give an existing directory"):
        resolve_base("no/such-base-anywhere")
    with pytest.raises(CheckpointError, match="is not a base in diffusers' layout"):
        resolve_base(str(tmp_path))
    base = write_tiny_base(tmp_path / "base")
    (base / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json is not readable JSON"):
        Backbone.load(str(base))


def test_keys_and_values_of_distinct_conditions_give_the_same_predictions_and_gradients(base: Path) -> None:
    backbone = with_lora(base)
    noisy, timesteps, states = inputs()
    noisy, timesteps = noisy.repeat(2, 1, 1, 1), timesteps.repeat(2)
    conditions = Conditions(states.requires_grad_(True), torch.tensor([1, 0, 1, 1]))
    lora = list(lora_parameters(backbone.unet).values())
    for parameter in lora:
        parameter.requires_grad_(True)
    found = []
    for condition in (conditions.expanded(), conditions):
        prediction = backbone(noisy, timesteps, condition)
        found.append((prediction, *torch.autograd.grad(prediction.square().sum(), [conditions.states, *lora])))
    for apart, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-4)


def test_compiled_training_has_the_predictions_and_gradients_of_the_plain_one(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the graph that is compiled, run by autograd's own operations: to build machine code takes a minute."""
    graphs: list[object] = []

    def counting(graph: torch.fx.GraphModule, _given: object) -> object:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    plain, compiled = with_lora(base), with_lora(base)
    compiled.compile()
    found = []
    for backbone in (plain, compiled):
        noisy, timesteps, states = inputs()
        conditions = Conditions(states.requires_grad_(True), torch.tensor([1, 1]))
        lora = list(lora_parameters(backbone.unet).values())
        for parameter in lora:
            parameter.requires_grad_(True)
        prediction = backbone(noisy, timesteps, conditions)
        found.append((prediction, *torch.autograd.grad(prediction.square().sum(), [states, *lora])))
    assert graphs
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    built = len(graphs)
    with torch.no_grad():
        compiled(*inputs())
    assert len(graphs) == built  # what needs no gradient is not compiled


def test_keys_and_values_are_computed_once_for_each_distinct_condition_and_kept_where_asked(base: Path) -> None:
    backbone = Backbone.load(str(base))
    seen: list[int] = []
    projection = next(m.to_k for name, m in backbone.unet.named_modules() if name.endswith("attn2"))
    projection.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    noisy, timesteps, states = inputs()
    rows = torch.tensor([0, 0])
    with torch.no_grad():
        backbone(noisy, timesteps, Conditions(states[:1], rows))
        kept = Conditions(states[:1], rows, kept={})
        first, again = (backbone(noisy, timesteps, kept) for _ in range(2))
        backbone(noisy, timesteps, states)
    assert seen == [1, 1, 2]
    assert torch.equal(first, again)


def test_a_base_whose_attention_does_more_gets_each_samples_condition(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    config = tmp_path / "base" / "unet" / "config.json"
    settings = json.loads(config.read_text()) | {"cross_attention_norm": "layer_norm"}
    UNet2DConditionModel.from_config(settings).save_pretrained(tmp_path / "base" / "unet")
    backbone = Backbone.load(str(tmp_path / "base"))
    noisy, timesteps, states = inputs()
    conditions = Conditions(states, torch.tensor([1, 1]))
    with torch.no_grad():
        expected = backbone(noisy, timesteps, conditions.expanded())
        assert torch.equal(backbone(noisy, timesteps, conditions), expected)


def _gradients(backbone: Backbone) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    noisy, timesteps, condition = inputs()
    conditions = Conditions(condition[:1], torch.tensor([0, 0]))
    learning = lora_parameters(backbone.unet)
    for parameter in learning.values():
        parameter.requires_grad_()
    prediction = backbone(noisy, timesteps, conditions)
    prediction.square().mean().backward()
    return prediction.detach(), {name: p.grad for name, p in learning.items() if p.grad is not None}


def test_attention_written_out_is_the_same_attention(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _gradients(with_lora(base))
    monkeypatch.setattr(attention, "multiplies_in_bfloat16", lambda _: True)
    rounded = with_lora(base, torch.bfloat16)
    assert rounded._current.writes_out
    calls = []
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *given: calls.append(given))
    found = _gradients(with_lora(base, torch.bfloat16))
    assert not calls
    monkeypatch.undo()
    exact = with_lora(base)
    attention._write_out_attention(exact.unet, exact._current)
    written = _gradients(exact)
    torch.testing.assert_close(written[0], plain[0])
    assert written[1].keys() == plain[1].keys() == found[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(written[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_a_lora_beside_bfloat16_weights_learns_what_it_learns_beside_float32(base: Path) -> None:
    """To rounding: its products are bfloat16 as those of the weights beside it, its gradients float32."""
    (expected, exact), (found, rounded) = (_gradients(with_lora(base, d)) for d in (torch.float32, torch.bfloat16))
    assert float((found - expected).std() / expected.std()) < 0.05
    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        alike = torch.nn.functional.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0)
        assert alike > 0.95, name


def test_products_of_a_lora_are_those_of_the_weights_beside_it(base: Path) -> None:
    kinds = set()
    backbone = with_lora(base, torch.bfloat16)
    for name, module in backbone.unet.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _module, _given, result: kinds.add(result.dtype))
    _gradients(backbone)
    assert kinds == {torch.bfloat16}


def test_conditions_that_lie_elsewhere_are_brought_to_the_base(base: Path) -> None:
    noisy, timesteps, condition = inputs()
    conditions = Conditions(condition[:1], torch.tensor([0, 0]))
    with torch.no_grad():
        expected = Backbone.load(str(base))(noisy, timesteps, conditions)
        with second_device() as device:
            there = Backbone.load(str(base)).to(device)
            found = there(noisy.to(device), timesteps.to(device), conditions).to("cpu")
    torch.testing.assert_close(found, expected)
