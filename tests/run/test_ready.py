"""Laws of the beginning of a run: what is cheap to find is found first, and by `--dry-run` in the same words."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion import cli
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.cli import app
from taxadiffusion.config import parse
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import CheckpointError, DataError, PreemptedError, TaxaDiffusionError
from taxadiffusion.run import open_run, trial
from taxadiffusion.run.held_out import FILE, MIN_PHOTOGRAPHS, hold_out
from taxadiffusion.trainer import events
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World
from tests.tiny_command import invoke, run_all
from tests.tiny_run import state_hash, tiny_base

NUM_PHOTOGRAPHS = {"clarkii": 40, "ocellaris": MIN_PHOTOGRAPHS, "percula": MIN_PHOTOGRAPHS - 1, "bicinctus": 5}
"""Of each species of *Amphiprion*; those of *clarkii* are pairs of one observation."""


def write_source(root: Path, split: str = "train", genus: str = "Amphiprion", family: str = "Pomacentridae") -> Path:
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["file_name,order,family,genus,species,group,split"]
    for epithet, number in NUM_PHOTOGRAPHS.items():
        for index in range(number):
            name = f"{epithet}-{index}.png"
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name)
            group = f"pair {index // 2}" if epithet == "clarkii" else ""
            lines.append(f"{name},,{family},{genus},{epithet},{group},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and what `prepare` makes of it, side by side."""
    folder = tmp_path_factory.mktemp("fish")
    prepare(write_source(folder / "source"), folder / "prepared", num_workers=1)
    return folder


@pytest.fixture(autouse=True)
def _threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def values(prepared: Path, out: Path) -> dict[str, Any]:
    return {
        "data": {"path": str(prepared), "ranks": ["family", "species"]},
        "base": {"path": str(tiny_base()), "image_size_px": 16},
        "conditioner": {"num_heads": 2, "num_layers": 1},
        "stages": {"steps": 3},
        "training": {"batch_size": 4},
        "checkpoint": {"every_steps": 2},
        "validation": {"every_steps": 2, "num_samples": 4},
        "preview": {"num_taxa": 0},
        "output": {"path": str(out), "tensorboard": False},
        "num_threads": 1,
    }


# ---- held-out photographs


def test_whole_groups_of_taxa_with_enough_photographs_are_held_out(made: Path) -> None:
    dataset = PreparedDataset.open(made / "prepared")
    held = hold_out(dataset, 1000, seed=0)
    taken = Counter(str(dataset.lineage(row).get("species")) for row in held.rows.tolist())
    assert taken == {"clarkii": 4, "ocellaris": 2}  # a tenth at most, nothing of the rarer ones
    groups = dataset.groups(dataset.rows())
    inside = {groups[row] for row in held.rows.tolist()}
    outside = {groups[row] for row in set(dataset.rows().tolist()) - set(held.rows.tolist())}
    assert not inside & outside
    assert (np.diff(held.rows) > 0).all()
    assert np.array_equal(held.rows, hold_out(dataset, 1000, seed=0).rows)
    assert not np.array_equal(held.rows, hold_out(dataset, 1000, seed=1).rows)
    few = hold_out(dataset, 2, seed=0).rows.tolist()
    assert set(few) <= set(held.rows.tolist())
    assert 2 <= len(few) <= 3


def test_what_is_held_out_does_not_depend_on_the_order_of_rows(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "source", tmp_path / "source")
    table = tmp_path / "source/metadata.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]) + "\n")
    prepare(tmp_path / "source", tmp_path / "prepared", num_workers=1)
    files = [
        {dataset.record(row).path.name for row in hold_out(dataset, 1000, seed=3).rows.tolist()}
        for dataset in map(PreparedDataset.open, (made / "prepared", tmp_path / "prepared"))
    ]
    assert files[0] == files[1]


def test_training_leaves_them_out_and_validation_takes_them(made: Path, tmp_path: Path) -> None:
    settings = parse(values(made / "prepared", tmp_path / "run"))
    dataset = PreparedDataset.open(made / "prepared")
    with open_run(settings, stop=StopSignal(), world=World()) as run:
        data = run.trainer.data
        assert set(data.train_rows.tolist()) | set(data.validation_rows.tolist()) == set(dataset.rows().tolist())
        assert not set(data.train_rows.tolist()) & set(data.validation_rows.tolist())
        assert any(f"{len(data.validation_rows)} photographs of 2 taxa are held out" in note for note in run.notes)
        validated = [event for event in run.trainer.run() if isinstance(event, events.Validated)]
        listed = json.loads((tmp_path / "run" / FILE).read_text())
        assert [entry["row"] for entry in listed["images"]] == data.validation_rows.tolist()
    assert [event.step for event in validated] == [2, 3, 4, 6]
    assert f"{len(data.train_rows)} images" in (tmp_path / "run/adapter/README.md").read_text()
    assert str(tmp_path) not in json.dumps(listed)


def test_a_resumed_run_holds_out_what_it_recorded_whatever_is_asked_now(made: Path, tmp_path: Path) -> None:
    whole = parse(values(made / "prepared", tmp_path / "a"))
    run_all(whole)
    stop = StopSignal()
    with open_run(parse(values(made / "prepared", tmp_path / "b")), stop=stop, world=World()) as run:
        stream = run.trainer.run()
        while run.trainer.progress.step < 3:
            next(stream)
        stop.number = 15
        with pytest.raises(PreemptedError):
            list(stream)
    other = ["validation.num_samples=1000", "validation.every_steps=0"]
    done = run_all(parse(values(made / "prepared", tmp_path / "b"), other))
    assert isinstance(done[0], events.Resumed)
    assert state_hash(tmp_path / "a") == state_hash(tmp_path / "b")
    (tmp_path / "b" / FILE).unlink()
    with pytest.raises(Exception, match=r"began with other settings or data:\n  data: "):
        run_all(parse(values(made / "prepared", tmp_path / "b")))
    (tmp_path / "b" / FILE).write_text((tmp_path / "a" / FILE).read_text().replace('"row": ', '"row": 9'))
    with pytest.raises(CheckpointError, match="are no training rows"):
        run_all(parse(values(made / "prepared", tmp_path / "b")))


def test_a_run_that_began_without_goes_on_without(made: Path, tmp_path: Path) -> None:
    run_all(parse(values(made / "prepared", tmp_path / "run"), ["validation.every_steps=0", "stages.steps=2"]))
    again = parse(values(made / "prepared", tmp_path / "run"), ["stages.steps=2"])
    with open_run(again, stop=StopSignal(), world=World()) as run:
        assert len(run.trainer.data.train_rows) == sum(NUM_PHOTOGRAPHS.values())
        assert ["validation is off" in note and "began without" in note for note in run.notes] == [True]
    assert not (tmp_path / "run" / FILE).exists()


def test_where_nothing_can_be_held_out_validation_is_off_in_one_line(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxadiffusion.run.held_out.MIN_PHOTOGRAPHS", 1000)
    result = trial(parse(values(made / "prepared", tmp_path / "run")), World())
    assert ["validation is off" in note for note in result.notes] == [True]
    assert result.num_images == sum(NUM_PHOTOGRAPHS.values())
    done = run_all(parse(values(made / "prepared", tmp_path / "run")))
    assert not [event for event in done if isinstance(event, events.Validated)]
    assert not (tmp_path / "run" / FILE).exists()


# ---- what is cheap to find


@dataclass
class Case:
    """A run that must fail before anything is encoded; faults change it."""

    folder: Path
    prepared: Path
    monkeypatch: pytest.MonkeyPatch
    assignments: list[str]
    hold: list[Any]

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def reprepared(self, **options: str) -> None:
        prepare(write_source(self.folder / "other", **options), self.folder / "other-prepared", num_workers=1)
        self.assignments.append(f"data.path={self.folder}/other-prepared")


def all_in_the_test_split(case: Case) -> None:
    case.reprepared(split="test")


def a_rank_that_no_image_names(case: Case) -> None:
    case.assignments.append("data.ranks=[order, species]")


def a_name_longer_than_the_text_encoder_takes(case: Case) -> None:
    case.reprepared(family="Pomacentri" + "pomacentri" * 8 + "dae")


def fewer_tokens_than_names_have(case: Case) -> None:
    case.assignments.append("base.num_tokens=12")


def a_disk_without_room(case: Case) -> None:
    usage = shutil.disk_usage(case.folder)
    case.monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))


def an_output_below_a_file(case: Case) -> None:
    case.run_dir.write_text("")


def a_cache_below_a_file(case: Case) -> None:
    (case.folder / "file").write_text("")
    case.assignments.append(f"data.cache_dir={case.folder}/file/cache")


def a_run_that_holds_the_directory(case: Case) -> None:
    case.hold.append(RunLock(case.run_dir))


def no_steps(case: Case) -> None:
    case.assignments.append("stages.steps=0")


def steps_of_a_rank_that_is_not_trained(case: Case) -> None:
    case.assignments.append("stages.steps={genus: 5}")


def more_steps_than_can_be_counted(case: Case) -> None:
    case.assignments.append(f"stages.steps={10**19}")


def more_preview_steps_than_the_base_has(case: Case) -> None:
    case.assignments += ["preview.num_taxa=2", "preview.num_steps=100000"]


def a_batch_that_does_not_divide(case: Case) -> None:
    case.assignments.append("training.micro_batch_size=3")


def a_seed_of_more_than_63_bits(case: Case) -> None:
    case.assignments.append("seed=99999999999999999999")


def a_size_that_the_base_cannot_make(case: Case) -> None:
    case.assignments.append("base.image_size_px=17")


def heads_that_do_not_divide(case: Case) -> None:
    case.assignments.append("conditioner.num_heads=5")


def a_lora_target_that_is_not_there(case: Case) -> None:
    case.assignments.append("lora.targets=[nowhere]")


def pictures_that_moved(case: Case) -> None:
    shutil.copytree(case.prepared.parent / "source", case.folder / "moving")
    prepare(case.folder / "moving", case.folder / "moved", num_workers=1)
    shutil.rmtree(case.folder / "moving")
    case.assignments.append(f"data.path={case.folder}/moved")


def an_image_folder_without_the_pictures(case: Case) -> None:
    (case.folder / "empty").mkdir()
    case.assignments.append(f"data.root={case.folder}/empty")


def no_data_set(case: Case) -> None:
    case.assignments.append(f"data.path={case.folder}/nowhere")


def no_base(case: Case) -> None:
    case.assignments.append(f"base.path={case.folder}/nowhere")


def other_settings_than_the_run_began_with(case: Case) -> None:
    run_all(parse(values(case.prepared, case.run_dir), ["stages.steps=1"]))
    case.assignments += ["stages.steps=1", "optimiser.learning_rate=0.5"]


def commits_of_which_none_verifies(case: Case) -> None:
    (case.run_dir / "step-1").mkdir(parents=True)


FAULTS: dict[Callable[[Case], None], tuple[int, str]] = {
    all_in_the_test_split: (3, "no image to train on: its training split is empty (0 val, 84 test)"),
    a_rank_that_no_image_names: (2, "no training image of"),
    a_name_longer_than_the_text_encoder_takes: (2, "names have more tokens than base.num_tokens allows (77)"),
    fewer_tokens_than_names_have: (2, "names have more tokens than base.num_tokens allows (12)"),
    a_disk_without_room: (4, "disk full: latents "),
    an_output_below_a_file: (4, "the output directory cannot be written"),
    a_cache_below_a_file: (4, "the cache cannot be written"),
    a_run_that_holds_the_directory: (4, "another run holds it"),
    no_steps: (2, "at least 1"),
    steps_of_a_rank_that_is_not_trained: (2, "steps must name every rank"),
    more_steps_than_can_be_counted: (2, "more than can be counted"),
    more_preview_steps_than_the_base_has: (2, "preview.num_steps = 100000"),
    a_batch_that_does_not_divide: (2, "training.batch_size = 4 is not a multiple"),
    a_seed_of_more_than_63_bits: (2, "seed = 99999999999999999999"),
    a_size_that_the_base_cannot_make: (2, "not 17"),
    heads_that_do_not_divide: (2, "num_heads 5"),
    a_lora_target_that_is_not_there: (2, "nowhere"),
    pictures_that_moved: (3, "--root FOLDER"),
    an_image_folder_without_the_pictures: (3, "images looked for is there"),
    no_data_set: (3, "not a prepared data set"),
    no_base: (4, "nowhere"),
    other_settings_than_the_run_began_with: (2, "optimiser.learning_rate: 0.0001 → 0.5"),
    commits_of_which_none_verifies: (4, "none verifies"),
}


def failed(config: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that must fail."""
    error = CliRunner().invoke(app, ["train", str(config), *arguments]).exception
    assert isinstance(error, TaxaDiffusionError), error
    return error.exit_code, str(error)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_dry_run_finds_what_the_run_finds_and_nothing_is_encoded(
    fault: Callable[[Case], None], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, made / "prepared", monkeypatch, [], [])
    fault(case)
    encoded: list[int] = []
    monkeypatch.setattr(Backbone, "encode", lambda _self, images: encoded.append(len(images)))
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values(case.prepared, case.run_dir)))
    arguments = [word for assignment in case.assignments for word in ("--set", assignment)]
    before = sorted(path for path in tmp_path.rglob("*") if path.name != "lock")
    code, dry = failed(config, *arguments, "--dry-run")
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "lock") == before
    again, real = failed(config, *arguments)
    for lock in case.hold:
        lock.release()
    assert (code, dry) == (again, real)
    expected, words = FAULTS[fault]
    assert code == expected, dry
    assert words in dry
    assert not encoded


def test_pictures_that_moved_are_found_where_they_are_now(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "source", tmp_path / "before")
    prepare(tmp_path / "before", tmp_path / "prepared", num_workers=1)
    (tmp_path / "before").rename(tmp_path / "now")
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values(tmp_path / "prepared", tmp_path / "run")))
    code, output = invoke(config, "--root", str(tmp_path / "now"))
    assert code == 0, output
    assert invoke(config, "--root", str(tmp_path / "now"), "--dry-run")[0] == 0


def test_check_and_export_are_told_where_moved_pictures_are_too(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "source", tmp_path / "before")
    prepare(tmp_path / "before", tmp_path / "prepared", num_workers=1)
    (tmp_path / "before").rename(tmp_path / "now")
    moved = ["--root", str(tmp_path / "now")]
    for words in (
        ["check", str(tmp_path / "prepared")],
        ["export", str(tmp_path / "prepared"), str(tmp_path / "x.csv")],
    ):
        more = ["--to", "csv"] if words[0] == "export" else []
        before = CliRunner().invoke(cli.app, [*words, *more]).exception
        assert isinstance(before, DataError)
        assert "--root FOLDER" in str(before)
        after = CliRunner().invoke(cli.app, [*words, *more, *moved])
        assert after.exit_code == 0, after.output


FIELD = {"m-one": 0, "m-onerank": 0, "m-holes": 0, "m-subsp": 0, "m-trinomial": 0, "m-alltest": 3}
"""Small sources as people really have them → the exit code of training on them."""


@pytest.mark.parametrize("source", FIELD)
def test_small_and_lopsided_sources_train_or_say_why_not(source: str, shared: Path, tmp_path: Path) -> None:
    prepare(shared / "cases/field" / source, tmp_path / "prepared", num_workers=1)
    chosen = values(tmp_path / "prepared", tmp_path / "run") | {"recipe": "best", "stages": {"steps": 1}}
    chosen["data"] = {"path": str(tmp_path / "prepared")}
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(chosen))
    small = ["--set", "lora.rank=2"]
    assert invoke(config, *small, "--dry-run")[0] == FIELD[source]
    code, output = invoke(config, *small)
    assert code == FIELD[source], output
    assert ("no image to train on" in output) == (code == 3)


def test_a_run_of_a_recipe_goes_on_under_another_name_of_the_same_values(made: Path, tmp_path: Path) -> None:
    run_all(parse(values(made / "prepared", tmp_path / "run"), ["stages.steps=1"]))
    same = parse(
        values(made / "prepared", tmp_path / "run") | {"recipe": "sd15"}, ["stages.steps=1", "base.dtype=float32"]
    )
    assert isinstance(run_all(same)[0], events.Resumed)
