"""The whole comparison, end to end, on a simulated clade with a base of a few thousand weights."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.cli.reproduce import _show_plan
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import DataError, NonFiniteError, PreemptedError, SettingsError
from taxadiffusion.evaluate.evaluation import Networks
from taxadiffusion.evaluate.traits import TraitJudge
from taxadiffusion.guidance import Guidance
from taxadiffusion.simulate import TraitMeter, read_clade, simulate
from taxadiffusion.tables import reproduction as run
from taxadiffusion.tables import row_images, search
from taxadiffusion.tables.experiments import EXPERIMENTS, experiments_named, rows_of, settings_by_strategy
from taxadiffusion.tables.leave_out import species_to_leave_out, thinned
from taxadiffusion.tables.reproduction import Options, Reproduction
from taxadiffusion.tables.sweeps import rare_blocks
from taxadiffusion.tables.tables_page import write_story
from taxadiffusion.tables.training import Model, model_of, trained
from taxadiffusion.trainer.signals import StopSignal
from tests.thumbnails import Thumbnails
from tests.tiny_run import tiny_base

RANKS = ("family", "genus", "species")


@pytest.fixture(scope="module")
def clade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five simulated species, ninety pictures."""
    folder = tmp_path_factory.mktemp("clade")
    simulate(folder / "source", seed=3, num_species=5, num_images=90, size_px=32, ranks=RANKS)
    prepare(folder / "source", folder / "clade", num_workers=1)
    return folder / "clade"


def settings(clade: Path) -> Settings:
    return parse(
        {
            "data": {"path": str(clade), "ranks": list(RANKS)},
            "base": {"path": str(tiny_base()), "image_size_px": 16},
            "conditioner": {"num_heads": 2, "num_layers": 1},
            "stages": {"steps": 1},
            "training": {"batch_size": 4},
            "output": {"path": str(clade.parent / "unused"), "tensorboard": False},
            "num_threads": 1,
        },
        source="test",
    )


def reproduction(clade: Path, out: Path, seeds: tuple[int, ...] = (0,)) -> Reproduction:
    options = Options(seeds=seeds, per_taxon=6, num_steps=1, keep=(0, 1, 4))
    return Reproduction(settings(clade), out, options)


def test_everything_runs_end_to_end_and_a_second_call_makes_nothing_again(
    clade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = reproduction(clade, tmp_path)
    work = asked.plan(EXPERIMENTS)
    traits = TraitJudge(read_clade(clade.parent / "source"), TraitMeter.calibrated(400))
    networks = Networks(Thumbnails(), traits=traits)
    story = asked.run(EXPERIMENTS, networks, StopSignal(), lambda _: None)
    report = write_story(story, tmp_path, command="taxadiffusion reproduce all", config=asked.config)

    trained = sorted(path.parent.parent.name for path in (tmp_path / "models").glob("*/adapter/adapter.json"))
    assert trained == sorted(model.run_dir.name for model in work.models)
    assert len(list((tmp_path / "images").rglob("*.png"))) <= work.num_images

    document = json.loads((tmp_path / "results.json").read_text())
    small = json.loads((tmp_path / "summary.json").read_text())
    assert small["table1"] == document["table1"]
    assert "details" in document["experiments"]["table1"]
    assert "details" not in small["experiments"]["table1"]
    details = document["experiments"]["table1"]["details"]
    assert small["experiments"]["table1"]["traits"]["lora"]["genus"] == details["lora"]["genus"]["traits"] != {}
    with Image.open(tmp_path / "generated.png") as sheet:
        assert sheet.width > 2 * 16 * 2
    methods = {"zero_shot", "lora", "full", "class_embedding", "taxon_adapter", "taxadiffusion"}
    assert methods <= set(document["table1"])
    for method in methods:
        assert list(document["table1"][method]) == list(RANKS)
        for rank in RANKS:
            accuracy = document["table1"][method][rank]["rank_accuracy"]
            assert 0 <= accuracy["low"] <= accuracy["mean"] <= accuracy["high"] <= 1
            assert document["table1"][method][rank]["trait_error"]["mean"] > 0
    assert set(document["experiments"]) == set(EXPERIMENTS)
    samples = {runs[0]["samples"] for strategy, runs in document["training"].items() if strategy != "zero_shot"}
    assert samples == {4 * len(RANKS)}  # every strategy saw as much
    assert document["training"]["zero_shot"][0]["samples"] == 0
    for number in ("0", "1", "4"):  # rarity and copies by what was left, not by the whole data set
        details = document["experiments"]["rare"]["details"][number]["species"]
        assert {taxon["num_photographs"] for taxon in details["taxa"]} == {int(number)}
        thin = PreparedDataset.open(tmp_path / "thinned" / f"keep{number}")
        left = {str(thin.record(int(row)).path) for row in thin.rows("train")}
        assert {pair["photograph"] for pair in [*details["nearest"], *details["most_alike"]]} <= left
        assert details["most_alike"]
        assert document["experiments"]["rare"]["copies"][number]["species"]["num_looked_at"] > 0
    assert "What the base saw is not recorded" in (tmp_path / "rare" / "tables.md").read_text()
    assert document["base_saw"].startswith("What the base saw is not recorded")
    taxa = document["experiments"]["rare"]["details"]["real_test_photographs"]["species"]["taxa"]
    assert {taxon["label"] for taxon in taxa} <= {lineage.label for lineage in story.thinned}  # beside them, the same
    page = report.read_text()
    for word in (
        "What the base saw is not recorded",
        "Strategies",
        "Guidance",
        "Fewer and fewer images",
        "taxadiffusion_random",
        "thumbnails",
        "Traits learned",
        "How far apart its encoders put names",
    ):
        assert word in page
    assert (tmp_path / "table1" / "tables.tex").is_file()
    drawn = "".join(rare_blocks(story.results["rare"], story)).split("Copies of training photographs")[0]
    # each species: three images of the models of each number, and three photographs
    assert drawn.count("<img") == len(story.thinned) * 3 * (3 + 1)

    rare = asked.run(("rare",), networks, StopSignal(), lambda _: None)
    write_story(rare, tmp_path / "rare-alone", command="", config=asked.config)
    with (
        Image.open(tmp_path / "rare-alone" / "generated.png") as alone,
        Image.open(tmp_path / "generated.png") as whole,
    ):
        assert round(alone.width / whole.width * 5) == len(rare.thinned)  # no columns without pictures

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    opened: list[str] = []

    def counted(path: str, *, base: str, device: str) -> Adapter:
        opened.append(path)
        return open_model(path, base=base, device=device)

    monkeypatch.setattr(row_images, "open_model", counted)
    again = reproduction(clade, tmp_path).run(("table1",), networks, StopSignal(), lambda _: None)
    assert len(opened) == len(set(opened)) == 7  # every strategy of the table, once for all of its rows
    assert again.results["table1"].to_json() == story.results["table1"].to_json()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")} == before


def test_rare_species_by_two_methods_stand_beside_one_another(clade: Path, tmp_path: Path) -> None:
    options = Options(
        seeds=(0,), per_taxon=6, num_steps=1, size_px=16, keep=(1, 2), methods=("class_embedding", "taxadiffusion")
    )
    asked = Reproduction(settings(clade), tmp_path, options)
    assert len(asked.plan(("rare",)).models) == 4
    story = asked.run(("rare",), Networks(Thumbnails()), StopSignal(), lambda _: None)
    results = story.results["rare"]
    assert set(results.methods) == {f"{m}, {n}" for m in ("class_embedding", "taxadiffusion") for n in (1, 2)}
    for number in (1, 2):
        ours, other = f"taxadiffusion, {number}", f"class_embedding, {number}"
        shares = [results.methods[name][-1].metrics["rank_accuracy"].mean for name in (ours, other)]
        assert results.differences[other]["species"].mean == pytest.approx(shares[0] - shares[1])
    report = write_story(story, tmp_path, command="", config=asked.config).read_text()
    assert "taxadiffusion, 2 above class_embedding, 2" in report
    document = json.loads((tmp_path / "summary.json").read_text())["experiments"]["rare"]["differences"]
    assert document["against"] == {f"class_embedding, {n}": f"taxadiffusion, {n}" for n in (1, 2)}


def test_an_interrupted_reproduction_leaves_with_its_code(clade: Path, tmp_path: Path) -> None:
    stop = StopSignal()
    stop.number = signal.SIGTERM  # as if it had come before the first step
    with pytest.raises(PreemptedError):
        reproduction(clade, tmp_path).run(("strategies",), Networks(Thumbnails()), stop, lambda _: None)
    assert not list(tmp_path.glob("images/**/*.png"))


def test_a_thinned_set_lacks_only_the_images_that_were_left_out(clade: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset.open(clade)
    species = species_to_leave_out(dataset, ())
    for number in (2, 5, 1000):
        thinned(dataset, species, number, RANKS, 0, tmp_path / f"keep{number}")
    few, more, every = (PreparedDataset.open(tmp_path / f"keep{number}") for number in (2, 5, 1000))

    def kept(prepared: PreparedDataset, split: str) -> dict[str, list[str]]:
        rows = [int(row) for row in prepared.rows(split)]
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(prepared.lineage(row).label, []).append(prepared.record(row).path.name)
        return {label: sorted(names) for label, names in sorted(found.items())}

    assert kept(few, "test") == kept(dataset, "test")
    for label, names in kept(dataset, "train").items():
        if label in {lineage.label for lineage in species}:
            assert len(kept(few, "train")[label]) == 2
            assert len(kept(more, "train")[label]) == 5
            assert set(kept(few, "train")[label]) < set(kept(more, "train")[label]) < set(names)
        else:
            assert kept(few, "train")[label] == names
    assert kept(every, "train") == kept(dataset, "train")  # no species has 1,000
    with pytest.raises(DataError):
        species_to_leave_out(dataset, ("Nonexistens nonexistens",))
    genus = species[0].truncated("genus").label
    for wrong in (genus, f"{genus} nonexistens"):  # an unknown species of a known genus is taken as the genus
        with pytest.raises(DataError, match=f"--leave-out '{wrong}' is of rank genus; name a species of"):
            species_to_leave_out(dataset, (wrong,))


def test_a_wrong_name_is_an_error_before_anything_is_trained(clade: Path, tmp_path: Path) -> None:
    for wrong in (
        Options(methods=("lora",)),
        Options(methods=("taxadiffusion", "loar")),  # one of them is a row
        Options(per_taxon=1),  # of the two families two images
        Options(leave_out=("Nonexistens nonexistens",)),
    ):
        asked = Reproduction(settings(clade), tmp_path, wrong)
        with pytest.raises((SettingsError, DataError)):
            asked.run(EXPERIMENTS, Networks(Thumbnails()), StopSignal(), lambda _: None)
    assert not list(tmp_path.iterdir())


def test_rows_share_models_and_differ_in_what_their_names_say() -> None:
    sweep = rows_of("guidance", RANKS, 2.0)
    assert {method.strategy for method in sweep} == {"progressive"}
    assert {method.guidance.rank for method in sweep} == {None, "family", "genus"}
    assert len({method.guidance for method in sweep}) == len(sweep) == len({method.name for method in sweep})
    table1 = rows_of("table1", RANKS, 2.0)
    assert {m.guidance for m in table1 if m.name in ("zero_shot", "lora", "full", "taxadiffusion")} == {Guidance(2.0)}
    assert [m.strategy for m in rows_of("strategies", RANKS, 2.0)] == ["progressive", "all", "random"]
    assert experiments_named("all") == EXPERIMENTS
    with pytest.raises(
        SettingsError, match="unknown experiment 'table2'; known: table1, strategies, guidance, rare, all"
    ):
        experiments_named("table2")


def searching(clade: Path, out: Path, *methods: str, **search: object) -> Reproduction:
    """A reproduction that first searches: two rates, names as they are or enlarged, half of two steps a stage."""
    grid = {"learning_rate_factors": [1.0, 10.0], "name_gains": [1.0, 6.0], "budget": 0.5, **search}
    written = json.loads(settings(clade).model_dump_json())
    config = parse(
        {**written, "stages": {**written["stages"], "steps": 2}, "validation": {"num_samples": 8}, "search": grid},
        source="test",
    )
    options = Options(seeds=(0,), per_taxon=3, num_steps=1, size_px=16, methods=methods, search=True)
    return Reproduction(config, out, options)


def test_every_strategy_gets_the_same_counted_search_and_trains_with_what_it_found(clade: Path, tmp_path: Path) -> None:
    rows = ("zero_shot", "lora", "class_embedding", "taxadiffusion")
    asked = searching(clade, tmp_path, *rows)
    work = asked.plan(("table1",))
    tried = Counter(candidate.model.strategy for candidate in work.search)
    # rates × gains; nothing is trained of the base, and a learned vector reads no name
    assert tried == {"zero_shot": 2, "lora": 4, "class_embedding": 2, "progressive": 4}
    per_training = 1 * len(RANKS) * 4  # half of two steps a stage
    assert sum(candidate.num_samples for candidate in work.search) == 10 * per_training
    assert not {candidate.model.seed for candidate in work.search} & set(asked.options.seeds)

    networks = Networks(Thumbnails())
    story = asked.run(("table1",), networks, StopSignal(), lambda _: None)
    write_story(story, tmp_path, command="", config=asked.config)
    document = json.loads((tmp_path / "results.json").read_text())
    found = document["search"]
    assert (found["trainings"], found["samples"]) == (10, 10 * per_training)
    for strategy, choice in found["strategies"].items():
        losses = [one["validation_loss"] for one in choice["tried"]]
        assert len(set(losses)) == len(losses) == tried[strategy]  # every setting is one that matters
        assert choice["chosen"]["validation_loss"] == min(losses)
        trained_with = asked._model(strategy, 0).settings
        if strategy != "zero_shot":
            assert trained_with.optimiser.learning_rate == choice["chosen"]["learning_rate"]
        gain = {"progressive": "name_gain", "class_embedding": None}.get(strategy, "prompt_name_gain")
        if gain:
            assert getattr(trained_with.conditioner, gain) == choice["chosen"]["name_gain"]
        assert trained_with.stages.steps == 2
    table = (tmp_path / "table1" / "tables.md").read_text()
    assert table.endswith(document["settings"]["table1"] + "\n")
    assert "10 trainings of one seed and 0.5 of the steps, 120 samples" in table
    assert r"\footnotesize Settings of every strategy were searched" in (tmp_path / "table1" / "tables.tex").read_text()

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "search").rglob("adapter.json")}
    assert len(before) == 10
    again = searching(clade, tmp_path, *rows).run(("table1",), networks, StopSignal(), lambda _: None)
    assert again.choices == story.choices
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "search").rglob("adapter.json")} == before


def test_a_plan_counts_the_search(
    clade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "seconds_to_train", lambda models, *_: {model.run_dir.name: 60.0 for model in models})
    asked = searching(clade, tmp_path, "zero_shot", "lora", "taxadiffusion")
    work = asked.plan(("table1",))
    seconds = asked.seconds(work)
    assert {seconds[candidate.model.run_dir.name] for candidate in work.search} == {30.0}  # half of the steps
    assert {seconds[model.run_dir.name] for model in work.models} == {60.0}
    _show_plan(asked, work)
    told = " ".join(capsys.readouterr().out.split())
    assert "of these 8 for the search, 96 samples; 10 settings are tried" in told
    assert "11 trainings" in told
    assert "search/lora-rate0.001-names6" in told


def test_a_plan_is_told_after_models_were_trained_with_what_a_search_chose(clade: Path, tmp_path: Path) -> None:
    grid = {"learning_rate_factors": [10.0], "name_gains": [6.0]}
    (only,) = searching(clade, tmp_path, "lora", **grid).plan(("table1",)).search
    asked = searching(clade, tmp_path, "lora", **grid)
    trained(model_of(asked.config, "lora", 0, tmp_path, own={"lora": only.assignments}), StopSignal())
    seconds = asked.seconds(asked.plan(("table1",)))
    assert set(seconds) == {"lora-seed0", only.model.run_dir.name}
    assert seconds["lora-seed0"] > 0
    assert not (tmp_path / "measured").exists()


def test_a_search_needs_validation_photographs_and_survives_a_rate_that_is_too_high(
    clade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = searching(clade, tmp_path, "lora", name_gains=[1.0])
    tries = asked.plan(("table1",)).search

    def diverging(model: Model, *_: object) -> float:
        rate = model.settings.optimiser.learning_rate
        if rate > tries[0].model.settings.optimiser.learning_rate:
            raise NonFiniteError("too high")
        return 0.5

    monkeypatch.setattr(search, "_loss", diverging)
    choice = search.searched(tries, StopSignal(), lambda _: None)
    assert [one.loss for one in choice.tried] == [0.5, None]
    assert choice.chosen.learning_rate == tries[0].learning_rate
    assert choice.at_edge
    with pytest.raises(NonFiniteError, match="too high"):
        search.searched(tries[1:], StopSignal(), lambda _: None)

    monkeypatch.setattr(PreparedDataset, "rows", lambda _self, _split=None: np.array([], dtype=np.int64))
    with pytest.raises(SettingsError, match=r"--search chooses on validation photographs .* --val-fraction"):
        search.candidates(asked.config, "lora", tmp_path, {})


def test_chosen_rows_need_only_their_own_models(clade: Path, tmp_path: Path) -> None:
    chosen = Reproduction(settings(clade), tmp_path, Options(seeds=(0, 1), methods=("lora", "taxadiffusion")))
    work = chosen.plan(("table1",))
    assert sorted(m.run_dir.name for m in work.models) == [
        "lora-seed0", "lora-seed1", "progressive-seed0", "progressive-seed1",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="strategies has no row named lora; its rows: taxadiffusion, taxadiff"):
        Reproduction(settings(clade), tmp_path, Options(methods=("lora",))).plan(("strategies",))


def test_a_strategy_may_have_settings_of_its_own(clade: Path, tmp_path: Path) -> None:
    own = settings_by_strategy(["full:optimiser.learning_rate=0.0002", "full:seed=5", "lora:lora.rank=2"])
    asked = Reproduction(settings(clade), tmp_path, Options(seeds=(0, 1), settings_for=own))
    rates = {(m.strategy, m.seed): m.settings.optimiser.learning_rate for m in asked.plan(("table1",)).models}
    assert {strategy for (strategy, _), rate in rates.items() if rate == 0.0002} == {"full"}
    models = {m.strategy: m.settings for m in asked.plan(("table1",)).models if m.seed == 1}
    assert models["full"].seed == 1  # the seed of a training is the comparison's
    assert models["lora"].lora.rank == 2
    assert models["progressive"].model_copy(update={"output": None, "stages": None}) == models["all"].model_copy(
        update={"output": None, "stages": None}
    )
    for wrong in ("full=1", "whole:seed=1", "full:"):
        with pytest.raises(SettingsError, match="STRATEGY:key=value"):
            settings_by_strategy([wrong])
    unknown = Options(settings_for=settings_by_strategy(["full:optimiser.learning_rat=1"]))
    asked = Reproduction(settings(clade), tmp_path, unknown)
    with pytest.raises(SettingsError, match=r"--set-for full: optimiser.learning_rat: unknown key"):
        asked.plan(("table1",))
