"""Laws of a synthetic set: as planned, every refusal counted, gone on with, shared, and readable by others."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import webdataset
from typer.testing import CliRunner

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import DataError, SettingsError, TaxaDiffusionError
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.pictures.generate import Sampling
from taxadiffusion.sharing.generated_set import read_generated
from taxadiffusion.synthetic import making
from taxadiffusion.synthetic.accept import MISNAMED, NEAR_DUPLICATE, NOT_NEEDED, Looked, NamedRight
from taxadiffusion.synthetic.checks import Accepting, open_checks, sight
from taxadiffusion.synthetic.making import Candidate, Maker, Making
from taxadiffusion.synthetic.plan import TOP_UP, Plan, counted_species, plan_of_counts
from tests.coloured_dataset import photographed
from tests.coloured_pictures import RANKS, SPECIES, Colours, fresh
from tests.faults.harness import fork
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

FEW = Making(tries=2, sampling=Sampling(num_steps=2, batch_size=4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a base and a model of its species."""
    path = tmp_path_factory.mktemp("augment")
    photographed(path, 2)
    base, taxonomy = write_tiny_base(path / "base"), taxonomy_of(SPECIES, RANKS)
    save_adapter(path / "model", make(base, ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Fish\n")
    return path


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_adapter(folder / "model", base=str(folder / "base"))


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """Two pictures of one species, four of another."""
    dataset = PreparedDataset.open(folder / "prepared")
    return plan_of_counts(counted_species(dataset, RANKS), RANKS, TOP_UP, 14)


def every_second(_: NamedRight, looked: Looked) -> list[str | None]:
    """A tiny model's pictures show nothing: the probe's place is taken by one that refuses the first, third …"""
    return [None if i % 2 else MISNAMED for i in range(len(looked.taxa))]


def set_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("taxadiffusion.features.open_extractor", lambda *_: Colours())
    patch.setattr(NamedRight, "__call__", every_second)


@pytest.fixture
def _set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch)


def augmented(folder: Path, *more: str) -> str:
    """What the command prints; it raises where the command fails."""
    fixed = ("--data", folder / "prepared", "--license", "cc0-1.0", "--base", folder / "base", "--steps", 2)
    arguments = ["augment", folder / "model", *fixed, "--batch-size", 4, "--plan", "top-up", "--to", 14, *more]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, TaxaDiffusionError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[Path, str]:
    """A set accepted by family, with what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        set_up(patch)
        out = folder / "set"
        return out, augmented(folder, "--accept", "family", "--tries", "2", "--out", str(out))


def verdicts(out: Path) -> list[dict[str, str]]:
    with (out / "verdicts.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_plan_is_printed_first_with_its_cost(made: tuple[Path, str]) -> None:
    words = " ".join(made[1].split())
    assert words.index("plan: top-up to 14") < words.index("6 pictures of 2 species: 6 to 12 are drawn, about")


def test_every_picture_that_was_drawn_is_accepted_or_refused_for_a_reason(made: tuple[Path, str]) -> None:
    out, _ = made
    manifest = json.loads((out / "manifest.json").read_text())
    rows = verdicts(out)
    accepted = [row for row in rows if row["accepted"] == "yes"]
    assert 0 < len(accepted) == manifest["accepted"] < manifest["drawn"] == len(rows)
    assert manifest["drawn"] == manifest["accepted"] + sum(manifest["refused"].values())
    assert {row["reason"] for row in rows if row["accepted"] == "no"} == {*manifest["refused"]} >= {MISNAMED}
    for one in manifest["species"]:
        assert one["accepted"] <= one["wanted"]
        assert one["accepted"] == one["wanted"] or one["drawn"] == 2 * one["wanted"]
        assert one["drawn"] == one["accepted"] + sum(one["refused"].values())


def test_checks_refuse_what_shows_another_species_and_what_was_accepted_before(folder: Path, tmp_path: Path) -> None:
    by = sight(Colours(), tmp_path / "features", 32)

    def never() -> Planter:
        raise AssertionError("copies are not asked for")

    dataset = PreparedDataset.open(folder / "prepared")
    checks = open_checks(dataset, RANKS, Accepting("species", distinct=True), by, never)
    pictures = generated_folder(fresh(tmp_path / "swapped", 5, ("species",), 4, swap=True), RANKS)
    new = [Candidate(t, i, Path(f)) for i, (t, f) in enumerate(zip(pictures.lineages, pictures.files, strict=True))]
    found = checks(new)
    assert [reason == MISNAMED for reason in found] == [one.taxon.get("genus") == "Ruber" for one in new]
    assert None in found
    again = checks(new)
    assert {second for first, second in zip(found, again, strict=True) if first is None} == {NEAR_DUPLICATE}


def test_what_is_accepted_lies_there_marked_as_synthetic_with_recipe_and_licence(made: tuple[Path, str]) -> None:
    out, _ = made
    pictures = generated_folder(out / "pictures", RANKS)
    assert [Path(file).name for file in pictures.files] == [
        Path(row["file_name"]).name for row in verdicts(out) if row["accepted"] == "yes"
    ]
    assert {row["source"] for row in read_generated(out / "pictures").rows} == {"synthetic image"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["licence"], manifest["source"]) == ("cc0-1.0", "synthetic image")
    assert manifest["recipe"]["num_steps"] == "2"
    assert "license: cc0-1.0" in (out / "README.md").read_text()


@pytest.mark.usefixtures("_set_up")
def test_the_same_command_makes_nothing_anew_and_another_is_refused(folder: Path, made: tuple[Path, str]) -> None:
    out, _ = made
    before = {path: path.stat().st_mtime_ns for path in (out / "candidates").rglob("*.png")}
    document = (out / "manifest.json").read_text()
    augmented(folder, "--accept", "family", "--tries", "2", "--out", str(out))
    assert {path: path.stat().st_mtime_ns for path in (out / "candidates").rglob("*.png")} == before
    assert (out / "manifest.json").read_text() == document
    with pytest.raises(SettingsError, match=r"asked for otherwise \(accepted_by differ\)"):
        augmented(folder, "--accept", "genus", "--tries", "2", "--out", str(out))


@pytest.mark.usefixtures("_set_up")
def test_shards_hold_the_same_pictures_and_the_same_bytes_each_time(folder: Path, made: tuple[Path, str]) -> None:
    out, _ = made
    names = {Path(row["file_name"]).stem for row in verdicts(out) if row["accepted"] == "yes"}
    options = ("--accept", "family", "--tries", "2", "--out", str(out), "--layout", "webdataset")
    augmented(folder, *options)
    (tar,) = sorted((out / "shards").glob("*.tar"))
    first = tar.read_bytes()
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert {sample["__key__"].rpartition("/")[2] for sample in samples} == names
    classes = (out / "shards" / "classes.txt").read_text().splitlines()
    for sample in samples:
        row = json.loads(sample["json"])
        assert row["scientific_name"] == classes[int(sample["cls"])]
        assert sample["png"] == (out / "candidates" / row["file_name"]).read_bytes()
    augmented(folder, *options)
    assert tar.read_bytes() == first
    augmented(folder, *options[:-1], "folder")
    assert not (out / "shards").exists()


@pytest.mark.usefixtures("_set_up")
def test_copies_are_refused_only_where_they_can_be_told(folder: Path) -> None:
    with pytest.raises(DataError, match="8 unseen photographs are too few for 1% false alarms; allow more"):
        augmented(folder, "--accept", "original", "--out", str(folder / "copies"))


@pytest.mark.usefixtures("_set_up")
def test_a_dry_run_draws_nothing(folder: Path) -> None:
    assert "6 pictures of 2 species" in " ".join(augmented(folder, "--dry-run", "--out", str(folder / "dry")).split())
    assert not (folder / "dry").exists()


def odd(new: Sequence[Candidate]) -> list[str | None]:
    """Refuses every picture of an even number."""
    return [None if one.number % 2 else MISNAMED for one in new]


def told_of(candidates: Sequence[Candidate]) -> list[tuple[str, int, str, str | None]]:
    return [(one.taxon.label, one.number, one.path.name, one.reason) for one in candidates]


def test_a_round_draws_what_is_missing_until_it_is_there_or_the_tries_are_used_up(
    adapter: Adapter, plan: Plan, tmp_path: Path
) -> None:
    found = Maker(adapter, plan, FEW, tmp_path, {}).make(odd)
    wanted = {one.taxon: one.pictures for one in plan.wanted if one.pictures}
    for taxon, number in wanted.items():
        mine = [one for one in found if one.taxon == taxon]
        assert [one.number for one in mine] == list(range(2 * number))
        assert sum(one.reason is None for one in mine) == number
    nothing = Maker(adapter, plan, FEW, tmp_path / "none", {}).make(lambda new: [MISNAMED] * len(new))
    assert len(nothing) == 2 * plan.total
    every = Maker(adapter, plan, FEW, tmp_path / "all", {}).make(lambda new: [None] * len(new))
    assert len(every) == plan.total
    assert NOT_NEEDED not in {one.reason for one in every}


def test_two_processes_make_what_one_makes(
    adapter: Adapter, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_POLL_S", 0.05)
    alone = told_of(Maker(adapter, plan, FEW, tmp_path / "alone", {}).make(odd))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child must not ask its parent's threads
    child = fork(lambda: Maker(adapter, plan, FEW, tmp_path / "shared", {}, Shard(1, 2)).follow(), tmp_path)
    shared = told_of(Maker(adapter, plan, FEW, tmp_path / "shared", {}, Shard(0, 2)).make(odd))
    torch.set_num_threads(threads)
    assert child.wait(60) == 0, child.output()
    assert shared == alone
    monkeypatch.setattr(making, "_PATIENCE_S", 0.1)
    with pytest.raises(DataError, match="process 0 of this run is not at work"):
        Maker(adapter, plan, FEW, tmp_path / "without the first", {}, Shard(1, 2)).follow()


def test_a_stopped_set_goes_on_where_it_was(adapter: Adapter, plan: Plan, tmp_path: Path) -> None:
    calls = 0

    def stopped(new: Sequence[Candidate]) -> list[str | None]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return odd(new)

    with pytest.raises(KeyboardInterrupt):
        Maker(adapter, plan, FEW, tmp_path / "a", {}).make(stopped)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a" / "candidates").rglob("*.png")}
    again = told_of(Maker(adapter, plan, FEW, tmp_path / "a", {}).make(odd))
    assert again == told_of(Maker(adapter, plan, FEW, tmp_path / "b", {}).make(odd))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a" / "candidates").rglob("*.png")}
    assert {name: after[name] for name in before} == before


@pytest.mark.usefixtures("_set_up")
def test_a_set_draws_its_surroundings_from_one_list_and_another_list_is_another_set(
    folder: Path, tmp_path: Path
) -> None:
    captions, out = tmp_path / "captions.txt", tmp_path / "set"
    captions.write_text("over pink\nover black\n", encoding="utf-8")
    asked = ("--accept", "none", "--out", str(out))
    augmented(folder, *asked, "--contexts", str(captions))
    with (out / "pictures" / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["context"] for row in rows] == [("over pink", "over black")[int(row["seed"]) % 2] for row in rows]
    assert {row["context_scale"] for row in rows} == {"2"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(manifest["contexts"].values()) == manifest["drawn"] == len(rows)
    assert manifest["recipe"]["context_scale"] == "2"
    augmented(folder, *asked, "--contexts", str(captions))  # goes on
    for other in ((), ("--contexts", str(captions), "--context-scale", "3")):
        with pytest.raises(SettingsError, match=r"asked for otherwise \(contexts differ\)"):
            augmented(folder, *asked, *other)
    captions.write_text("over pink\nover white\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"asked for otherwise \(contexts differ\)"):
        augmented(folder, *asked, "--contexts", str(captions))
    captions.write_text("over pink\n" * 20 + "pink " * 40 + "\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="tokens, 77 are allowed"):
        augmented(folder, "--accept", "none", "--out", str(tmp_path / "other"), "--contexts", str(captions))
    assert not (tmp_path / "other").exists()
    with pytest.raises(SettingsError, match="give it with --contexts FILE"):
        augmented(folder, "--accept", "none", "--out", str(tmp_path / "other"), "--context-scale", "3")
