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
        ({"conditioner": {"warm_start": True}}, [], r"conditioner\.warm_start is gone: it showed no gain"),
        ({}, ["conditioner.zero_init=true"], r"conditioner\.zero_init is gone: it showed no gain"),
        ({"recipe": "pape"}, [], r"recipe: unknown 'pape'; known: paper, sd15, best"),
        ({"recipe": ["paper"]}, [], r"recipe: unknown \['paper'\]; known"),
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
    # A run of a version without the setting goes on; one with it is told from that.
    assert "conditioner.prompt_name_gain" not in plain
    assert "conditioner.vector_gain" not in plain, "runs of before it go on"
    later = flattened(parse({"conditioner": {"prompt_name_gain": 6.0}}), trajectory_only=True)
    assert later == plain | {"conditioner.prompt_name_gain": 6.0}
    assert flattened(parse({}))["conditioner.prompt_name_gain"] == 1.0


@pytest.mark.parametrize("key", ["data.path", "data.root", "data.cache_dir", "base.path", "output.path"])
def test_a_path_is_what_was_written_with_the_home_folder_for_a_tilde(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    assert flattened(parse({}, [f"{key}=~/fish"]))[key] == "/home/ana/fish"
    assert flattened(parse({}, [f"{key}=2026-11-27"]))[key] == "2026-11-27"
    assert flattened(parse({}, [f"{key}=./a~b"]))[key].endswith("a~b")
    with pytest.raises(SettingsError, match=rf"{key} = '~no.user/x': no home folder is known for '~no.user'.* \./~no"):
        parse({}, [f"{key}=~no.user/x"])
    with pytest.raises(SettingsError, match=rf"{key} = 'n{{199}}….*has 300 bytes, files have at most 255"):
        parse({}, [f"{key}={'n' * 300}"])
    with pytest.raises(SettingsError, match=rf"{key} = 2026: .*(in quotes|valid string)"):
        parse({}, [f"{key}=2026"])


def test_a_date_in_a_file_is_the_name_of_a_folder_and_a_bad_one_too(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("output: {path: 2026-11-27}\ndata: {path: 2026-13-45}\n")
    settings = load(tmp_path / "run.yaml")
    assert (settings.output.path, settings.data.path) == (Path("2026-11-27"), Path("2026-13-45"))


@pytest.mark.parametrize("seed", ["99999999999999999999", "-1", "9223372036854775808"])
def test_a_seed_that_no_generator_takes_is_refused(seed: str) -> None:
    with pytest.raises(SettingsError, match=rf"seed = {seed}: "):
        parse({}, [f"seed={seed}"])


def test_the_published_recipe_on_its_base_is_the_papers_with_sizes() -> None:
    """What `sd15` adds to `paper` says how large and how often, and where the base is; never how it is trained."""
    paper, sd15 = flattened(parse({})), flattened(parse({"recipe": "sd15"}))
    assert {key for key in paper if paper[key] != sd15[key]} == {
        "recipe", "base.path", "base.dtype", "base.image_size_px", "stages.steps", "training.batch_size",
        "checkpoint.every_steps", "validation.every_steps", "num_workers",
    }  # fmt: skip


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
RUNS = [path for path in CONFIGS if "stages:" in path.read_text()]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_run_is_valid(path: Path) -> None:
    assert load(path).recipe in config.RECIPES


def test_a_file_of_before_that_holds_settings_that_are_gone_as_off_is_read() -> None:
    value = {"conditioner": {"zero_init": False, "warm_start": False, "dropout": 0.2}}
    assert parse(value) == parse({"conditioner": {"dropout": 0.2}})
    assert value["conditioner"]["zero_init"] is False  # the caller's own is left alone
