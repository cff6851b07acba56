"""Laws of settings: every key counts, unknown ones fail with the nearest known, a recipe is a set of defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxadiffusion import config
from taxadiffusion.config import Settings, flattened, load, parse, to_yaml
from taxadiffusion.errors import SettingsError


def test_the_paper_is_the_default() -> None:
    settings = parse({})
    assert settings == parse({"recipe": "paper"}) == Settings()
    assert settings.optimiser.learning_rate == 1e-4
    assert settings.optimiser.schedule == "constant"
    assert settings.optimiser.betas == (0.9, 0.999)
    assert settings.optimiser.weight_decay == 1e-2
    assert settings.optimiser.clip_norm == 1.0
    assert settings.optimiser.ema_decay is None
    assert settings.training.rank_dropout == 5 / 21
    assert settings.training.min_snr_gamma is None
    assert settings.lora.rank == settings.lora.alpha == 4
    assert settings.stages.strategy == "progressive"
    assert not settings.stages.lora_in_every_stage


def test_a_file_overrides_the_recipe_and_an_assignment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("recipe: best\nlora: {rank: 8}\nstages: {steps: {order: 5, species: 7}}\n")
    settings = load(file, ["lora.alpha=2", "stages.strategy=all", "optimiser.ema_decay=null"])
    assert settings.lora.rank == 8
    assert settings.lora.alpha == 2
    assert settings.stages.strategy == "all"
    assert settings.stages.steps == {"order": 5, "species": 7}
    assert settings.stages.lora_in_every_stage  # still the recipe's
    assert settings.optimiser.ema_decay is None


def test_steps_by_rank_replace_each_other_whole() -> None:
    settings = parse({"stages": {"steps": {"order": 5, "species": 7}}}, ["stages.steps={family: 1}"])
    assert settings.stages.steps == {"family": 1}


@pytest.mark.parametrize(
    ("value", "assignments", "message"),
    [
        ({"optimizer": {}}, [], r"optimizer: unknown key; did you mean 'optimiser'"),
        ({"lora": {"rnak": 3}}, [], r"lora\.rnak: unknown key; did you mean 'rank'"),
        ({}, ["stages.stategy=all"], r"stages\.stategy: unknown key; did you mean 'strategy'"),
        ({"lora": {"rank": 0}}, [], r"lora\.rank = 0: "),
        ({"stages": {"strategy": "fast"}}, [], r"stages\.strategy = 'fast': .*progressive"),
        ({"recipe": "pape"}, [], r"recipe: unknown 'pape'; known: paper, best"),
        ({"data": {"ranks": ["species", "order"]}}, [], r"data\.ranks .*coarse to fine.*: order, species"),
        ({}, ["seed"], r"--set 'seed': write it as key=value"),
        ({}, ["seed=[1"], r"--set 'seed=\[1': the value is not readable"),
        ([1], [], r"must be a table of sections, got list"),
        ({"training": {"batch_size": "many"}}, [], r"training\.batch_size = 'many': "),
    ],
)
def test_bad_settings_are_named(value: object, assignments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(value, assignments)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.yaml: No such file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(SettingsError, match=r"broken\.yaml: not readable as YAML"):
        load(tmp_path / "broken.yaml")
    (tmp_path / "code.yaml").write_text("seed: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(SettingsError, match="not readable as YAML"):
        load(tmp_path / "code.yaml")


def test_settings_round_trip_and_have_a_schema(tmp_path: Path) -> None:
    settings = parse({"recipe": "best", "stages": {"steps": {"order": 3}}, "data": {"ranks": ["order", "species"]}})
    (tmp_path / "run.yaml").write_text(to_yaml(settings))
    assert load(tmp_path / "run.yaml") == settings
    assert set(Settings.model_json_schema()["properties"]) == set(Settings.model_fields)


def test_every_recipe_is_valid_and_only_known_keys_are_in_it() -> None:
    for recipe in config.RECIPES:
        assert parse({"recipe": recipe}).recipe == recipe


def test_only_what_touches_the_trajectory_is_compared() -> None:
    plain = flattened(parse({}), trajectory_only=True)
    free = parse(
        {
            "output": {"path": "elsewhere"},
            "num_workers": 2,
            "checkpoint": {"every_steps": 1},
            "preview": {"num_taxa": 0},
        }
    )
    assert flattened(free, trajectory_only=True) == plain
    other = flattened(parse({"optimiser": {"learning_rate": 1}}), trajectory_only=True)
    assert {key for key in plain if plain[key] != other[key]} == {"optimiser.learning_rate"}


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
RUNS = [path for path in CONFIGS if "stages:" in path.read_text()]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_run_is_valid(path: Path) -> None:
    assert load(path).recipe in config.RECIPES
