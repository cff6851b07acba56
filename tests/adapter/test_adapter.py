"""Laws of adapters: what is saved is what is read, and anything else is refused before it can do harm."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from taxadiffusion.adapter import AdapterCard, base_name, load_adapter, open_model, read_adapter, save_adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.condition import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterSettings,
)
from taxadiffusion.errors import CheckpointError
from taxadiffusion.guidance import Guidance
from taxadiffusion.sampler import Request, Sampler
from tests.tiny_adapter import RANKS, SMALL, TAXA, TAXONOMY, make
from tests.tiny_base import write_tiny_base


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "good"
    save_adapter(path, make(base, lora=LoRASettings()), TAXONOMY, recipe={"steps": 3}, read_me="# Two fish\n")
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("settings", "lora", "full"),
    [
        (SMALL, LoRASettings(rank=2, alpha=8), False),
        (SMALL.model_copy(update={"vector_gain": 20.0}), LoRASettings(), False),
        (PromptSettings(), None, True),
        (ClassEmbeddingSettings(), LoRASettings(), False),
        (TaxonAdapterSettings(), None, False),
        (TaxonAdapterSettings(embedding_width=6), None, False),
    ],
)
def test_what_is_saved_draws_the_same_pictures_when_read(
    base: Path, tmp_path: Path, settings: ConditionerSettings, lora: LoRASettings | None, full: bool
) -> None:
    denoiser = make(base, settings, lora, full_unet=full)
    save_adapter(tmp_path / "adapter", denoiser, TAXONOMY, recipe={}, read_me="")
    adapter = load_adapter(tmp_path / "adapter", base=str(base))
    requests = [Request(TAXA[0], 1, Guidance(3.0, "order")), Request(TAXA[1], 2, Guidance(2.0))]
    for own, read in zip(
        Sampler(denoiser)(requests, num_steps=2), Sampler(adapter.denoiser)(requests, num_steps=2), strict=True
    ):
        assert np.array_equal(own.image, read.image)
    assert adapter.taxonomy.content_hash == TAXONOMY.content_hash


def test_a_saved_folder_replaces_an_older_one_whole(base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old.txt").write_text("old")
    save_adapter(tmp_path / "adapter", make(base), TAXONOMY, recipe={}, read_me="new")
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    assert not (tmp_path / "adapter" / "old.txt").exists()


def test_stock_diffusers_loads_the_lora_with_none_missing_and_none_unexpected(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And with the condition as `prompt_embeds` it predicts what we predict, whatever rank and alpha are."""
    denoiser = make(base, SMALL, LoRASettings(rank=2, alpha=8))
    save_adapter(tmp_path / "adapter", denoiser, TAXONOMY, recipe={}, read_me="")
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(tmp_path / "adapter")
    assert [record.message for record in caplog.records if record.name == "diffusers.loaders.peft"] == []
    loaded = {name: p for name, p in pipeline.unet.named_parameters() if "lora_" in name}
    assert len(loaded) == len(denoiser.state()["lora"])
    assert all(
        any(torch.equal(parameter, own) for own in denoiser.state()["lora"].values()) for parameter in loaded.values()
    )
    noisy, timesteps = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    with torch.no_grad():
        condition = denoiser.conditioner(TAXA[:1])
        expected = denoiser.backbone(noisy, timesteps, condition)
        found = pipeline.unet(noisy, timesteps, encoder_hidden_states=condition).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(Backbone.load(str(base))(noisy, timesteps, condition), expected, atol=1e-3)


def edit_card(path: Path, **changes: object) -> None:
    card = json.loads((path / "adapter.json").read_text())
    card.update(changes)
    (path / "adapter.json").write_text(json.dumps(card))


def replace_weights(path: Path, name: str, data: bytes) -> None:
    """Exchange a weight file and make the card agree, as one who means harm would."""
    (path / name).write_bytes(data)
    card = json.loads((path / "adapter.json").read_text())
    edit_card(path, files=card["files"] | {name: hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"ranks": ["order", "species"]}, "conditioner"),
        ({"ranks": ["species", "order"]}, "ranks"),
        ({"ranks": ["order", "family", "genus", "species"]}, "taxonomy has"),
        ({"base_hash": "0" * 64}, "belongs to base"),
        ({"taxonomy_hash": "0" * 64}, "not the taxonomy"),
        ({"base": "/etc"}, "neither a shipped one"),
        ({"base": "../x"}, "neither a shipped one"),
        ({"files": {"../encoders.safetensors": "0" * 64}}, "no file of an adapter"),
        ({"files": {}}, "weights are missing"),
        ({"lora": None}, "this model consists of"),
        ({"lora": {"rank": 3}}, "has shape"),
        ({"lora": {"rank": 10**9}}, "lora"),
        ({"conditioner": {"kind": "os.system"}}, "conditioner"),
        ({"conditioner": {"kind": "taxonomy", "num_layers": 64, "feed_forward": 65536}}, "missing"),
        ({"num_text_tokens": 10**9}, "num_text_tokens"),
    ],
)
def test_a_card_that_does_not_match_is_refused(
    copy: Path, base: Path, changes: dict[str, object], message: str
) -> None:
    """METHOD, fault 5: strict, never in part."""
    edit_card(copy, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(copy, base=str(base))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(self.path), "w"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "name", ["encoders.safetensors", "pytorch_lora_weights.safetensors", "adapter.json", "taxonomy.json"]
)
@pytest.mark.parametrize("protocol", range(6))
def test_a_renamed_pickle_is_refused_and_never_run(
    copy: Path, base: Path, tmp_path: Path, name: str, protocol: int
) -> None:
    data = pickle.dumps(Bomb(tmp_path / "executed"), protocol=protocol)
    if name.endswith(".safetensors"):
        replace_weights(copy, name, data)
    else:
        (copy / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        load_adapter(copy, base=str(base))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "x.CKPT", "y.pkl"])
def test_a_pickled_file_beside_the_weights_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="may hold code"):
        read_adapter(copy)


def test_a_link_out_of_the_adapter_is_refused_but_the_hubs_cache_is_read(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (copy / "taxonomy.json").rename(outside)
    (copy / "taxonomy.json").symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads out"):
        read_adapter(copy)
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(copy.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    read_adapter(snapshot)


def test_every_flipped_byte_of_the_weights_is_seen(copy: Path) -> None:
    generator = np.random.default_rng(0)
    path = copy / "encoders.safetensors"
    good = path.read_bytes()
    for position in generator.integers(0, len(good), 50):
        bad = bytearray(good)
        bad[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(bad))
        with pytest.raises(CheckpointError, match="damaged or was exchanged"):
            read_adapter(copy)


def test_mutated_weights_with_a_matching_hash_crash_nothing(copy: Path, base: Path) -> None:
    generator = np.random.default_rng(0)
    good = (copy / "encoders.safetensors").read_bytes()
    for _ in range(60):
        bad = bytearray(good)
        for position in generator.integers(0, 2000, 3):  # the header is where a reader can be fooled
            bad[position] = int(generator.integers(256))
        replace_weights(copy, "encoders.safetensors", bytes(bad))
        with pytest.raises(CheckpointError):
            load_adapter(copy, base=str(base))


def test_weights_that_are_not_finite_are_refused(copy: Path, base: Path) -> None:
    tensors = safetensors.torch.load((copy / "encoders.safetensors").read_bytes())
    tensors["encoders.order.layers.0.linear1.weight"][0, 0] = float("inf")
    replace_weights(copy, "encoders.safetensors", safetensors.torch.save(tensors))
    with pytest.raises(CheckpointError, match="not finite"):
        load_adapter(copy, base=str(base))


def test_another_base_and_a_base_nobody_named_are_refused(saved: Path, tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "other", seed=1)
    files = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="use the base it was trained on"):
        load_adapter(saved, base=str(other))
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == files
    with pytest.raises(CheckpointError, match="say where it is"):
        load_adapter(saved)


def test_a_card_names_public_bases_and_no_path_of_this_machine(saved: Path, base: Path) -> None:
    assert base_name("stable-diffusion-v1-5/stable-diffusion-v1-5") == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert base_name(SHIPPED_BASE) == SHIPPED_BASE
    card = AdapterCard.model_validate_json((saved / "adapter.json").read_text())
    assert card.base == "local"
    assert str(base) not in (saved / "adapter.json").read_text()


def test_a_model_is_an_adapter_a_run_or_an_adapter_beside_its_base(saved: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "run" / "adapter")
    for model, named_base in ((saved, str(base)), (tmp_path / "run", str(base))):
        assert open_model(str(model), base=named_base).card.ranks == RANKS
    shutil.copytree(base, tmp_path / "whole")
    shutil.copytree(saved, tmp_path / "whole" / "adapter")
    assert open_model(str(tmp_path / "whole")).denoiser.backbone.path == tmp_path / "whole"
    with pytest.raises(CheckpointError, match=r"holds no adapter\.json"):
        open_model(str(base))


def test_a_model_nobody_can_find_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for model in ("no/such-model-anywhere", "not a model"):
        with pytest.raises(CheckpointError, match=r"neither a directory nor|cannot be had from the hub"):
            open_model(model)
