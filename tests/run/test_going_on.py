"""Laws of a run that goes on from an adapter: what it knew keeps its place, and what it lost is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from taxadiffusion.adapter import Adapter, load_adapter
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import DataError, PreemptedError, SettingsError
from taxadiffusion.run import open_run, train
from taxadiffusion.run.kept import Kept, read_kept
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World
from tests.tiny_base import write_tiny_base
from tests.tiny_command import invoke, run_all
from tests.tiny_run import tiny_base

RANKS = ("order", "family", "genus", "species")
CLARKII = ("Perciformes", "Pomacentridae", "Amphiprion", "clarkii")
VAIGIENSIS = ("Perciformes", "Pomacentridae", "Abudefduf", "vaigiensis")
OCELLARIS = ("Perciformes", "Pomacentridae", "Amphiprion", "ocellaris")
IO = ("Lepidoptera", "Nymphalidae", "Aglais", "io")


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxadiffusion.run.kept.NUM_SAMPLES", 32)


def photographed(folder: Path, taxa: Sequence[Sequence[str]], ranks: Sequence[str] = RANKS, seed: int = 0) -> Path:
    """A prepared set: six pictures of each taxon in a colour of its own, a seventh for validation."""
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True)
    lines = [",".join(["file_name", "split", *ranks])]
    for taxon in taxa:
        colour = rng.integers(0, 256, 3)
        for number in range(7):
            pixels = np.clip(colour + rng.integers(-20, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            name = f"{taxon[-2]}-{taxon[-1]}-{number}.png"
            Image.fromarray(pixels).save(folder / "photos" / name)
            lines.append(",".join([name, "val" if number == 6 else "train", *taxon]))
    (folder / "photos" / "metadata.csv").write_text("\n".join(lines) + "\n")
    prepare(folder / "photos", folder / "prepared")
    return folder / "prepared"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographed(tmp_path_factory.mktemp("old"), [CLARKII, VAIGIENSIS])


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A species of a genus that the adapter knows, and one of an order that it does not."""
    return photographed(tmp_path_factory.mktemp("new"), [OCELLARIS, IO], seed=1)


OWN: dict[str, Any] = {
    "base": {"path": str(tiny_base()), "image_size_px": 16},
    "conditioner": {"num_heads": 2, "num_layers": 1, "dropout": 0.0},
    "optimiser": {"learning_rate": 0.01},
    "training": {"batch_size": 4, "balance": 0.5},
    "preview": {"num_taxa": 0},
    "num_threads": 1,
}


def parent(old: Path, out: Path, strategy: str = "progressive", *changes: str) -> Path:
    own = {
        "data": {"path": str(old)},
        "stages": {"steps": 1, "strategy": strategy},
        "output": {"path": str(out), "tensorboard": False},
    }
    run_all(parse({**OWN, **own}, changes))
    return out


@pytest.fixture(scope="module")
def adapter(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent(old, tmp_path_factory.mktemp("run") / "reef")


def child(adapter: Path, data: Path, out: Path, *changes: str, replay: Path | None = None) -> Settings:
    own: dict[str, Any] = {
        "start": {"adapter": str(adapter)} | ({"replay": str(replay)} if replay else {}),
        "base": {"path": str(tiny_base())},
        "data": {"path": str(data)},
        "output": {"path": str(out), "tensorboard": False},
        "preview": {"num_taxa": 0},
        "num_threads": 1,
    }
    return parse(own, changes)


def loaded(run: Path) -> Adapter:
    return load_adapter(run / "adapter", base=str(tiny_base()))


def kept(run: Path) -> Kept:
    found = read_kept(run)
    assert found is not None
    return found


def predictions(adapter: Adapter) -> torch.Tensor:
    """Of fixed noise under every taxon of the first adapter and its ancestors."""
    lineages = [adapter.taxonomy.lineage(taxon) for taxon in range(6)]
    noise = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    denoiser = adapter.denoiser
    with torch.no_grad():
        return denoiser.backbone(noise, torch.full((6,), 500), denoiser.conditioner.distinct(lineages))


def test_old_taxa_keep_their_ids_and_a_new_species_joins_its_genus(
    adapter: Path, old: Path, new: Path, tmp_path: Path
) -> None:
    settings = child(adapter, new, tmp_path / "run", "stages.steps=2", replay=old)
    assert settings.optimiser.learning_rate == 0.01  # all that made the adapter is taken over
    assert settings.method.name == "progressive"
    train(settings)
    before, after = loaded(adapter).taxonomy, loaded(tmp_path / "run").taxonomy
    assert [after.lineage(taxon) for taxon in range(len(before))] == [
        before.lineage(taxon) for taxon in range(len(before))
    ]
    genus = before.at_rank("genus")[[before.name(taxon) for taxon in before.at_rank("genus")].index("Amphiprion")]
    named = {after.name(taxon): taxon for taxon in range(len(before), len(after))}
    assert sorted(named) == ["Aglais", "Lepidoptera", "Nymphalidae", "io", "ocellaris"]
    assert after.parent(named["ocellaris"]) == genus


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("progressive", []),
        ("progressive", ["conditioner.vector_gain=20", "stages.steps=3"]),
        ("lora", []),
        ("full", []),
        ("class_embedding", []),
        ("taxon_adapter", []),
    ],
)
def test_without_steps_old_taxa_are_predicted_the_same_bit_for_bit(
    old: Path, new: Path, tmp_path: Path, strategy: str, changes: list[str]
) -> None:
    before = parent(old, tmp_path / "old", strategy, *changes)
    train(child(before, new, tmp_path / "new", "stages.steps=0"))
    assert torch.equal(predictions(loaded(before)), predictions(loaded(tmp_path / "new")))
    changes = kept(tmp_path / "new").changes
    assert changes
    assert all(change.moved == 0 for change in changes)


def test_the_new_is_learned_and_what_the_old_lost_is_measured(
    adapter: Path, old: Path, new: Path, tmp_path: Path
) -> None:
    train(child(adapter, new, tmp_path / "none", "stages.steps=0", replay=old))
    train(child(adapter, new, tmp_path / "run", "stages.steps=8", replay=old))
    still, moved = kept(tmp_path / "none"), kept(tmp_path / "run")
    assert [(loss.taxa, loss.rank) for loss in moved.losses] == [(taxa, r) for taxa in ("old", "new") for r in RANKS]
    assert all(loss.before == loss.after and loss.error == 0 for loss in still.losses)
    for first, last in zip(still.losses, moved.losses, strict=True):
        assert last.before == first.after  # the adapter's own loss, whatever the run then made of it
        assert last.after != last.before
        assert last.error > 0
        assert last.photographs == "held out"
        assert last.num_photographs == 2
        if last.taxa == "new":
            assert last.after < last.before
    assert not moved.changes
    text = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert f"{moved.losses[0].before:.4f} | {moved.losses[0].after:.4f}" in text


def test_without_photographs_of_old_taxa_the_change_of_their_predictions_is_told(
    adapter: Path, new: Path, tmp_path: Path
) -> None:
    train(child(adapter, new, tmp_path / "run", "stages.steps=4"))
    found = kept(tmp_path / "run")
    assert {loss.taxa for loss in found.losses} == {"new"}
    assert [change.rank for change in found.changes] == list(RANKS)
    assert all(change.moved > 0 and change.num_taxa == 2 for change in found.changes)
    assert len({change.moved for change in found.changes}) > 1


def test_a_folder_without_higher_ranks_gets_them_from_the_genus_that_is_known(adapter: Path, tmp_path: Path) -> None:
    data = photographed(tmp_path / "mine", [OCELLARIS[2:]], RANKS[2:])
    with open_run(child(adapter, data, tmp_path / "run"), stop=StopSignal(), world=World()) as run:
        assert [lineage.names for lineage in run.taxa[6:]] == [tuple(zip(RANKS, OCELLARIS, strict=True))]
        assert [stage.name for stage in run.plan] == ["species"]  # the ranks above have no new name
    stranger = photographed(tmp_path / "stranger", [IO[2:]], RANKS[2:])
    with pytest.raises(DataError, match=r"knows no relative .*Aglais io: no order, family"):
        run_all(child(adapter, stranger, tmp_path / "other"))


def test_an_interrupted_run_ends_as_if_undisturbed(adapter: Path, old: Path, new: Path, tmp_path: Path) -> None:
    train(child(adapter, new, tmp_path / "a", "stages.steps=2", replay=old))
    disturbed = child(adapter, new, tmp_path / "b", "stages.steps=2", replay=old)
    stop = StopSignal()
    with open_run(disturbed, stop=stop, world=World()) as run:
        stream = run.trainer.run()
        while run.trainer.progress.step < 3:
            next(stream)
        stop.number = 15
        with pytest.raises(PreemptedError):
            list(stream)
    train(disturbed)
    for name in ("adapter/encoders.safetensors", "adapter/pytorch_lora_weights.safetensors", "kept.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    other = parent(new, tmp_path / "other")
    with pytest.raises(SettingsError, match="adapter: "):
        train(child(other, new, tmp_path / "b", "stages.steps=2"))


def test_the_card_says_what_each_training_learned_from(adapter: Path, old: Path, new: Path, tmp_path: Path) -> None:
    train(child(adapter, new, tmp_path / "run", "stages.steps=1", replay=old))
    before, after = loaded(adapter).card, loaded(tmp_path / "run").card
    first, second = after.learned
    assert (first,) == before.learned
    assert first.from_hash is None
    assert second.from_hash == before.content_hash
    assert second.from_adapter == "reef"
    assert second.sets is not None
    assert [(one.num_photographs, one.num_taxa, one.replayed) for one in second.sets] == [(12, 2, False), (12, 2, True)]
    written = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert before.content_hash in written
    assert str(tmp_path) not in written + after.model_dump_json()


def test_half_of_the_samples_are_replayed_whatever_the_numbers_of_photographs(
    adapter: Path, old: Path, new: Path, tmp_path: Path
) -> None:
    for share in (0.5, 0.25):
        settings = child(adapter, new, tmp_path / "run", f"start.replay_share={share}", replay=old)
        with open_run(settings, stop=StopSignal(), world=World()) as run:
            rows = run.trainer.dataset.order.rows_at(np.arange(2400))
            replayed = np.isin(rows, run.trainer.data.replay.rows)  # type: ignore[union-attr]
            assert replayed.mean() == pytest.approx(share, abs=0.01)
            assert set(rows) == set(run.trainer.data.train_rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.ranks=[family, genus, species]"], "was trained on order, family, genus, species"),
        (["conditioner.num_layers=2"], "num_layers: 1 → 2"),
        (["lora.rank=2"], "lora: .*rank=4"),
        (["stages.strategy=lora"], "another method"),
        (["stages.strategy=full"], "the whole U-Net is trained: False → True"),
    ],
)
def test_another_method_is_one_clear_error(
    adapter: Path, new: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        run_all(child(adapter, new, tmp_path / "run", *changes))


def test_another_base_and_other_parents_are_refused(adapter: Path, old: Path, new: Path, tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base", "epsilon", seed=1)
    with pytest.raises(SettingsError, match=r"belongs to base 'local' .*say where its base is"):
        run_all(child(adapter, new, tmp_path / "run", f"base.path={base}"))
    moved = photographed(tmp_path / "moved", [("Perciformes", "Labridae", "Amphiprion", "ocellaris")])
    with pytest.raises(DataError, match="genus Amphiprion lies in family Pomacentridae there, in Labridae here"):
        run_all(child(adapter, moved, tmp_path / "run"))
    with pytest.raises(DataError, match=r"holds 2 taxa that the adapter does not know, e.g. .*ocellaris"):
        run_all(child(adapter, old, tmp_path / "run", replay=new))
    with pytest.raises(DataError, match="is the set to learn from"):
        run_all(child(adapter, old, tmp_path / "run", replay=old))
    with pytest.raises(SettingsError, match="say which one"):
        run_all(parse({**OWN, "data": {"path": str(new)}, "start": {"replay": str(old)}}))


def test_the_command_needs_no_file_of_settings(adapter: Path, old: Path, new: Path, tmp_path: Path) -> None:
    where = ["--data", str(new), "--out", str(tmp_path / "run"), "--set", f"base.path={tiny_base()}"]
    small = ["--set", "stages.steps=1", "--set", "preview.num_taxa=0", "--set", "output.tensorboard=false"]
    code, output = invoke(None, "--from", str(adapter), *where, "--replay", str(old), *small)
    assert code == 0, output
    assert "going on from reef" in output
    assert "new: 1 order, 1 family, 1 genus, 2 species" in output
    assert "| old | 2 held out | species |" in output
    assert (
        json.loads((tmp_path / "run" / "adapter" / "adapter.json").read_text())["learned"][1]["from_adapter"] == "reef"
    )
    code, output = invoke(None)
    assert code == 2
    assert "--from MODEL" in output
