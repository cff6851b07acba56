"""The base's recipe on a few pictures: what is packed, what a run resumes to, and what an exported base says it saw."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from training import decoder, networks, pretrain
from training.caption_tokens import CaptionTokens
from training.clock import Clock
from training.curve import points, table
from training.describe import describe
from training.export import export, joined
from training.pack import pack_photographs, pack_simulated
from training.packs import Pack, as_pixels, packs
from training.state import STATE
from training.visual_words import VisualWords

from taxadiffusion.adapter import read_adapter
from taxadiffusion.base.training_record import Source, read_record
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import DataError

START = Path(__file__).parents[1] / "src/taxadiffusion/weights/base-128"
TAXA = (("Amphiprion", "clarkii", 12), ("Zanclus", "cornutus", 10), ("Chromis", "chrysura", 11))


class Colours:
    """A feature network of 768 numbers that follow from a picture's pixels."""

    name, content_hash = "colours", "0"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        small = images[:, :, ::8, ::8].reshape(len(images), -1).astype(np.float32)
        return small @ np.random.default_rng(0).normal(size=(small.shape[1], 768)).astype(np.float32)


class Steps(Clock):
    """A clock that stops after so many steps and stands still meanwhile."""

    share = 0.2  # type: ignore[assignment]

    def __init__(self, number: int) -> None:
        super().__init__(1)
        self.left = number

    @property
    def running(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of 23 training and 3 test photographs, and 4 simulated pictures, described."""
    root = tmp_path_factory.mktemp("recipe")
    source, rows = root / "fish", []
    for genus, epithet, number in TAXA:
        for i in range(number + 1):
            name = f"{epithet}-{i}.png"
            rows.append({"file_name": name, "split": "train" if i < number else "test", "class": "Actinopterygii",
                         "genus": genus, "specific_epithet": epithet})  # fmt: skip
            noise = np.random.default_rng([i, number]).integers(0, 255, (10, 12, 3), dtype=np.uint8)
            source.mkdir(exist_ok=True)
            Image.fromarray(noise).resize((150, 130), Image.Resampling.BICUBIC).save(source / name)
    with (source / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    prepare(source, root / "prepared")
    pack_photographs(PreparedDataset.open(root / "prepared"), root / "packs", "fish", num_processes=1)
    pack_simulated(4, root / "packs")
    describe(root / "packs", Colours(), START)
    return root / "packs"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few hundred thousand parameters."""
    monkeypatch.setattr(networks, "CHANNELS", (32, 32))
    monkeypatch.setattr(networks, "HEADS", (2, 2))
    monkeypatch.setattr(pretrain, "write_previews", lambda *_: [])


def run(folder: Path, out: Path, steps: int, *more: str) -> dict[str, torch.Tensor]:
    words = ["--packs", str(folder), "--out", str(out), "--batch", "2", "--batch-64", "2", "--device", "cpu",
             "--components", "16", *more]  # fmt: skip
    pretrain.pretrain(pretrain.arguments(words), Steps(steps))
    return load_file(out / STATE)


def test_a_pack_leaves_rare_taxa_out_and_says_what_it_shows(folder: Path) -> None:
    pack = Pack(folder, "fish")
    assert (len(pack.train), len(pack.held)) == (23, 3)  # ten photographs are few
    assert pack.picture(0).shape == (3, 128, 128)
    seen = Source.model_validate(json.loads((folder / "fish.seen.json").read_text()))
    assert seen.taxa == {"Amphiprion clarkii": 12, "Chromis chrysura": 11}
    assert seen.num_images == 23
    assert not list(folder.glob("*.pkl"))
    assert {p.name for p in packs(folder)} == {"fish", "simulated"}


def test_captions_say_all_or_nothing_when_asked_and_no_taxon(folder: Path) -> None:
    tokens = networks.Tokens.read(folder)
    captions, slots = CaptionTokens(tokens, torch.device("cpu")), Pack(folder, "fish").slots()
    whole = captions.whole(slots, torch.arange(3))
    assert whole.shape == (3, 48)
    from transformers import CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(folder / "tokenizer").decode(whole[0], skip_special_tokens=True)
    assert "fish" in words
    assert "layout" in words
    assert sum(word.startswith("qx") for word in words.split()) == 4
    null = captions.null(2)
    assert (null[:, 0] == tokens.bos).all()
    assert (null[:, 1:] == tokens.eos).all()
    torch.manual_seed(0)
    lengths = (captions(slots, torch.zeros(64).long(), torch.zeros(64).long()) != tokens.pad).sum(1)
    assert lengths.min() < lengths.max() <= (whole[0] != tokens.pad).sum()


@pytest.mark.usefixtures("small")
def test_a_run_that_is_interrupted_ends_as_one_that_is_not(folder: Path, tmp_path: Path) -> None:
    whole = run(folder, tmp_path / "whole", 2)
    run(folder, tmp_path / "parts", 1)
    parts = run(folder, tmp_path / "parts", 1)
    assert int(whole["samples"]) == int(parts["samples"]) == 4
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert {"codec.filters", "model.unet.conv_in.weight", "ema.text.final_layer_norm.weight"} <= whole.keys()


@pytest.mark.usefixtures("small")
def test_a_stop_saves_what_was_learnt_before_it_leaves(folder: Path, tmp_path: Path) -> None:
    clock = Steps(1)
    clock.stop.number = 15
    words = ["--packs", str(folder), "--out", str(tmp_path), "--batch", "2", "--batch-64", "0", "--device", "cpu",
             "--components", "16"]  # fmt: skip
    with pytest.raises(Exception, match="samples are saved") as raised:
        pretrain.pretrain(pretrain.arguments(words), clock)
    assert raised.value.exit_code == 75  # type: ignore[attr-defined]
    assert int(load_file(tmp_path / STATE)["samples"]) == 2


def decoded(folder: Path, state: Path, out: Path, steps: int) -> dict[str, torch.Tensor]:
    words = ["--packs", str(folder), "--codec", str(state), "--out", str(out), "--batch", "2", "--device", "cpu"]
    decoder.learn(decoder.arguments(words), Steps(steps))
    return load_file(out / decoder.STATE)


@pytest.mark.usefixtures("small")
def test_stock_diffusers_loads_what_is_exported_and_its_record_tells_of_the_start(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path, 1)
    whole = decoded(folder, tmp_path / STATE, tmp_path / "whole", 2)
    decoded(folder, tmp_path / STATE, tmp_path / "parts", 1)
    parts = decoded(folder, tmp_path / STATE, tmp_path / "parts", 1)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    export(tmp_path / STATE, tmp_path / "whole" / decoder.STATE, folder, tmp_path / "base", START)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "base", torch_dtype=torch.float32)
    x = as_pixels(Pack(folder, "fish").pictures([0, 1]))
    codec = decoder.read_codec(tmp_path / "base/codec.safetensors")
    with torch.no_grad():
        assert (pipeline.vae.encode(x).latent_dist.mean - codec.encode(x)).abs().max() < 0.02
    drawn: Any = pipeline("a fish", num_inference_steps=1, height=64, width=64, output_type="np")
    assert drawn.images.shape == (1, 64, 64, 3)
    record = read_record(tmp_path / "base")
    assert record is not None
    names = [source.name for source in record.sources]
    assert {"butterflies", "reef-fish", "prepared"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.usefixtures("small")
def test_without_a_new_decoder_the_starts_autoencoder_stays_weight_for_weight(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path, 1, "--start", str(START), "--components", "24")
    export(tmp_path / STATE, None, folder, tmp_path / "base", START)
    (theirs,), (mine,) = START.glob("vae/*.safetensors"), (tmp_path / "base").glob("vae/*.safetensors")
    assert load_file(theirs).keys() == load_file(mine).keys()
    assert all(torch.equal(tensor, load_file(mine)[name]) for name, tensor in load_file(theirs).items())
    written = "".join(path.read_text() for path in (tmp_path / "base").rglob("*.json"))
    assert str(START) not in written  # no path of this machine
    assert str(tmp_path) not in written
    words = [source.learnt.split("; ") for source in read_record(tmp_path / "base").sources]
    assert all(len(phrases) == len(set(phrases)) for phrases in words)
    with pytest.raises(DataError, match="--decoder"):
        export(tmp_path / STATE, None, folder, tmp_path / "other")


def test_an_export_that_would_not_know_what_was_seen_is_refused(folder: Path, tmp_path: Path) -> None:
    from training.export import seen

    with pytest.raises(DataError, match=r"training\.json"):
        seen(packs(folder), tmp_path)


def test_the_shipped_base_never_saw_the_rare_butterflies_and_its_record_says_so() -> None:
    record = read_record(START)
    assert record is not None
    butterflies = next(source for source in record.sources if source.name == "butterflies")
    _, taxonomy, _ = read_adapter(START.parent / "butterflies")
    species = {taxonomy.lineage(taxon).label for taxon in taxonomy.at_rank("species")}
    unseen = species - set(butterflies.taxa)
    assert len(unseen) == 12
    assert {"Actias luna", "Papilio ulysses"} <= unseen
    assert min(butterflies.taxa.values()) > 10
    assert sum(butterflies.taxa.values()) == butterflies.num_images


def test_sources_of_one_name_are_the_same_photographs() -> None:
    record = joined([Source(name="a", splits=("train",), num_images=5, taxa={"x": 3, "y": 2}),
                     Source(name="a", splits=("train",), num_images=3, taxa={"x": 3}),
                     Source(name="b", num_images=2)])  # fmt: skip
    assert [(source.name, source.num_images, dict(source.taxa)) for source in record.sources] == [
        ("a", 5, {"x": 3, "y": 2}), ("b", 2, {})]  # fmt: skip


def test_visual_words_are_coarse_to_fine(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, 50))[draw.integers(4, size=100)] + 0.1 * draw.normal(size=(100, 50))
    words = VisualWords.fit(x, num_codes=4)
    words.write(tmp_path)
    codes = VisualWords.read(tmp_path)(x)
    assert codes.shape == (100, 4)
    assert len({tuple(row) for row in codes[:, :1].tolist()}) == 4
    rest = words.centres[0][codes[:, 0]]
    assert np.abs(rest).sum() > 4 * np.abs(words.centres[3][codes[:, 3]]).sum()


def test_the_curve_tells_how_fast_losses_fall(tmp_path: Path) -> None:
    lines = [{"packs": {}}, *({"samples": 1000 * k, "held_fish": 1 - 0.01 * k} for k in range(1, 7))]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "fish -0.0100" in table(points(tmp_path / "log.jsonl"))
