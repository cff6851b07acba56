"""Laws of guidance away from an earlier state: the rows are what `generate --guide-with` draws, or they are told of."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from taxadiffusion import checkpoint
from taxadiffusion.cli import app
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.evaluation import Networks
from taxadiffusion.images import load_image
from taxadiffusion.simulate import simulate
from taxadiffusion.tables.reproduction import Options, Reproduction
from taxadiffusion.tables.story import TablesStory
from taxadiffusion.tables.tables_page import write_story
from taxadiffusion.trainer.signals import StopSignal
from tests.thumbnails import Thumbnails
from tests.tiny_run import tiny_base

RANKS = ("family", "genus", "species")
ROWS = ("none", "genus ×3", "sister ×3", "earlier ×2", "earlier ×3")
EARLIER = {"earlier ×2", "earlier ×3"}
NONE = "scale1-unconditional-0-1-2steps-torch"
STEP = 4  # two stages of two steps come before the last


@pytest.fixture(scope="module")
def clade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clade")
    simulate(folder / "source", seed=3, num_species=5, num_images=60, size_px=32, ranks=RANKS)
    prepare(folder / "source", folder / "clade", num_workers=1)
    return folder / "clade"


def settings(clade: Path, **stages: object) -> Settings:
    return parse(
        {
            "data": {"path": str(clade), "ranks": list(RANKS)},
            "base": {"path": str(tiny_base()), "image_size_px": 16},
            "conditioner": {"num_heads": 2, "num_layers": 1, "name_gain": 50},
            "stages": {"steps": 2, **stages},
            "training": {"batch_size": 4},
            "optimiser": {"learning_rate": 0.02},
            "checkpoint": {"every_steps": 1, "keep_last": 1},
            "output": {"path": str(clade.parent / "unused"), "tensorboard": False},
            "num_threads": 1,
        },
        source="test",
    )


def asked(config: Settings, out: Path, rows: tuple[str, ...] = ROWS, seeds: tuple[int, ...] = (0,)) -> Reproduction:
    return Reproduction(config, out, Options(seeds=seeds, per_taxon=2, num_steps=2, size_px=16, methods=rows))


def written(reproduction: Reproduction) -> TablesStory:
    story = reproduction.run(("guidance",), Networks(Thumbnails()), StopSignal(), lambda _: None)
    write_story(story, reproduction.out, command="", config=reproduction.config)
    return story


@pytest.fixture(scope="module")
def reproduced(clade: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduced")
    written(asked(settings(clade, lora_in_every_stage=True), out))
    return out


def test_of_the_commits_before_the_last_stage_one_is_kept(reproduced: Path) -> None:
    run_dir = reproduced / "models" / "progressive-seed0"
    assert [path.name for path in checkpoint.candidates(run_dir)] == ["step-6", f"step-{STEP}"]


def test_its_rows_are_measured_beside_the_others_by_the_same_protocol(reproduced: Path) -> None:
    document = json.loads((reproduced / "results.json").read_text())
    found = document["experiments"]["guidance"]
    assert list(found["table1"]) == [*ROWS, *(name for name in found["table1"] if name not in ROWS)]
    figures = [found["table1"][name]["species"] for name in ROWS]
    assert all(figure.keys() == figures[0].keys() and "rank_accuracy" in figure for figure in figures)
    assert document["left_out"] == {}
    tables = (reproduced / "guidance" / "tables.md").read_text() + (reproduced / "guidance" / "tables.tex").read_text()
    page = (reproduced / "report.html").read_text()
    for name in ROWS:
        assert name in page
        assert tables.count(f"{name} ") > 2
    assert "Rows left out" not in page + tables
    seeds = {
        name: sorted(path.name.rsplit("-", 1)[0] for path in folder.rglob("*.png"))
        for name, folder in folders(reproduced).items()
    }
    assert len(seeds) == len(ROWS)
    assert len({tuple(found) for found in seeds.values()}) == 1


def folders(out: Path) -> dict[str, Path]:
    """Recipe → where its pictures lie."""
    return {path.name: path for path in (out / "images" / "progressive-seed0").iterdir()}


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("scale2-weaker-0-1-2steps-torch", ("--guidance-scale", "2", "--guide-with")),
        ("scale3-weaker-0-1-2steps-torch", ("--guidance-scale", "3", "--guide-with")),
        ("scale3-sister-0-1-2steps-torch", ("--guidance-scale", "3", "--guidance-rank", "sister")),
    ],
)
def test_a_rows_pictures_are_those_that_generate_draws(
    reproduced: Path, tmp_path: Path, recipe: str, options: tuple[str, ...]
) -> None:
    run_dir = reproduced / "models" / "progressive-seed0"
    folder = folders(reproduced)[recipe]
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:3]
    plain = {path.name.rsplit("-", 1)[0]: path for path in folders(reproduced)[NONE].rglob("*.png")}
    for row in rows:
        commit = [str(run_dir / f"step-{STEP}")] if options[-1] == "--guide-with" else []
        asked_for = ["generate", str(run_dir), row["scientific_name"], "--seed", row["seed"], "-n", "1", "--steps", "2"]
        asked_for += ["--base", str(tiny_base()), "--device", "cpu", "--out", str(tmp_path), *options, *commit]
        result = CliRunner().invoke(app, asked_for)
        assert result.exit_code == 0, result.exception
        name = Path(row["file_name"]).name  # a hash of the recipe, the weaker model's own hash in it
        (drawn,) = tmp_path.rglob(name)
        mine = load_image(folder / row["file_name"], 16).astype(int)
        assert np.abs(mine - load_image(drawn, 16)).max() <= 2  # another batch: rounding
        assert np.abs(mine - load_image(plain[name.rsplit("-", 1)[0]], 16)).max() > 2


def test_a_training_without_the_commit_leaves_the_rows_out_and_says_so(
    reproduced: Path, clade: Path, tmp_path: Path
) -> None:
    out = tmp_path / "old"
    shutil.copytree(reproduced, out)
    run_dir = out / "models" / "progressive-seed0"
    shutil.rmtree(run_dir / f"step-{STEP}")  # as an earlier version left it
    again = asked(settings(clade, lora_in_every_stage=True), out)
    assert again.left_out("guidance").keys() == EARLIER
    assert again.plan(("guidance",)).num_images == 5 * 2 * (len(ROWS) - len(EARLIER))
    written(again)
    document = json.loads((out / "results.json").read_text())
    assert set(document["experiments"]["guidance"]["table1"]) & set(ROWS) == set(ROWS) - EARLIER
    assert document["left_out"]["guidance"].keys() == EARLIER
    for told in ((out / "guidance" / "tables.md").read_text(), (out / "report.html").read_text()):
        assert "Rows left out, 2: earlier ×2, earlier ×3 (1 of 1 trainings: " in told
        assert "delete it to train it again" in told
    alone = asked(settings(clade, lora_in_every_stage=True), out, ("earlier ×2",))
    with pytest.raises(SettingsError, match=r"guidance has nothing to draw\. Rows left out, 1: earlier ×2 \(1 of 1 .*"):
        alone.plan(("guidance",))
    two = asked(settings(clade, lora_in_every_stage=True), out, seeds=(0, 1))  # the second is not trained yet
    assert two.left_out("guidance")["earlier ×2"].startswith("1 of 2 trainings: ")
    shutil.rmtree(run_dir)
    assert not again.left_out("guidance")


def test_the_command_says_what_it_leaves_out_before_it_begins(
    clade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxadiffusion.tables.reproduction.seconds_to_train", lambda *_: {"progressive-seed0": 1.0})
    config = tmp_path / "config.json"  # JSON is YAML
    config.write_text(settings(clade).model_dump_json())
    command = ["reproduce", "guidance", "--config", str(config), "--out", str(tmp_path / "out"), "--seeds", "1"]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "--plan"])
    assert result.exit_code == 0, result.exception
    assert "guidance: Rows left out, 2: earlier ×2, earlier ×3 (1 of 1 trainings: " in result.output


def test_where_the_last_stage_trains_its_encoder_alone_the_stage_before_is_guidance_from_the_parent(
    clade: Path, tmp_path: Path
) -> None:
    """The paper's stages: nothing but that encoder is another model's."""
    told = asked(settings(clade), tmp_path).left_out("guidance")
    assert told.keys() == EARLIER
    assert "is the model itself asked for the genus" in told["earlier ×2"]
    written(asked(settings(clade), tmp_path, ("none", "genus ×3")))
    run_dir = tmp_path / "models" / "progressive-seed0"
    folder = folders(tmp_path)["scale3-genus-0-1-2steps-torch"]
    picture = next(folder.rglob("*.png"))
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["file_name"].endswith(picture.name))
    command = ["generate", str(run_dir), row["scientific_name"], "--seed", row["seed"], "-n", "1", "--steps", "2"]
    command += ["--base", str(tiny_base()), "--device", "cpu", "--out", str(tmp_path / "drawn")]
    command += ["--guidance-scale", "3", "--guide-with", str(run_dir / f"step-{STEP}")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    (drawn,) = (tmp_path / "drawn").rglob("*.png")
    assert np.abs(load_image(picture, 16).astype(int) - load_image(drawn, 16)).max() <= 2


def test_one_stage_or_another_adapters_leave_nothing_to_guide_away_from(clade: Path, tmp_path: Path) -> None:
    for changes, why in (
        ({"data": {"ranks": ["species"]}}, "its training has a single stage"),
        ({"start": {"adapter": "reef-fish"}}, "goes on from an adapter"),
    ):
        config = settings(clade, lora_in_every_stage=True)
        for section, values in changes.items():
            config = config.model_copy(update={section: getattr(config, section).model_copy(update=values)})
        told = asked(config, tmp_path, ()).left_out("guidance")
        assert told.keys() == EARLIER
        assert why in told["earlier ×3"]
