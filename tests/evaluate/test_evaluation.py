"""Laws of an evaluation, on taxa that are colours: wrong taxa are counted, copies lie nearest, fresh draws at par."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.evaluate import extraction, measure, naming
from taxadiffusion.evaluate.evaluation import Networks, evaluate, extract
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.judges import JudgeSettings
from taxadiffusion.evaluate.pictures import generated_folder, photographs
from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side, spread
from taxadiffusion.evaluate.traits import TraitJudge
from taxadiffusion.metrics.frequency import BUCKETS, bucket_of
from taxadiffusion.metrics.intervals import difference_of_replicates
from taxadiffusion.metrics.naming import error_height
from taxadiffusion.metrics.traits import trait_error
from taxadiffusion.names import Lineage
from taxadiffusion.report import evaluation as report
from taxadiffusion.report.command import write_results
from taxadiffusion.report.evaluation import confusion_block
from taxadiffusion.report.judges import named_right_by_judge
from taxadiffusion.simulate import Clade, TraitMeter, photograph, read_clade, simulate
from tests.coloured_pictures import RANKS, SPECIES, ColourNames, Colours, fresh, paint, write_folder
from tests.faults.harness import fork

NUM_TEST = 8
NUM_JUDGE = 10  # so that every species is judged, however rare in training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    pictures = [
        (lineage, paint(colour, rng), {"split": split})
        for lineage, (colour, number) in SPECIES.items()
        for split, count in (("train", number), ("test", NUM_TEST), ("judge", NUM_JUDGE))
        for _ in range(count)
    ]
    prepare(write_folder(folder / "source", pictures), folder / "prepared")
    return PreparedDataset.open(folder / "prepared")


def scored(dataset: PreparedDataset, *folders: Path) -> Results:
    methods = {"method": [generated_folder(folder, RANKS) for folder in folders]}
    return evaluate(dataset, methods, Networks(Colours()), JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8))


@pytest.fixture(scope="module")
def perfect(dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("perfect")
    return scored(dataset, fresh(folder / "0", 1), fresh(folder / "1", 2), fresh(folder / "2", 3))


def test_a_perfect_generator_is_at_par_with_unseen_photographs(perfect: Results) -> None:
    assert [s.rank for s in perfect.methods["method"]] == list(RANKS)
    for scores, real in zip(perfect.methods["method"], perfect.real, strict=True):
        metrics = scores.metrics
        assert metrics["rank_accuracy"].mean > 0.95
        ours, theirs = metrics["rank_accuracy"], real.metrics["rank_accuracy"]
        assert ours.low <= theirs.high
        assert theirs.low <= ours.high
        assert metrics["error_height"].mean < 0.1
        assert 0.35 < metrics["nearer_than_real"].mean < 0.65
        assert metrics["coverage"].mean > 0.7
        assert metrics["precision"].mean > 0.7
        for interval in metrics.values():
            assert interval.low <= interval.mean <= interval.high


def test_copies_are_nearest_to_their_originals_but_without_a_base_nobody_says_copied(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    rows = dataset.rows("train")
    pictures = [
        (dataset.lineage(int(row)).only(RANKS), Image.open(dataset.record(int(row)).path), {"seed": "0"})
        for row in rows
    ]
    results = scored(dataset, write_folder(tmp_path / "copies", pictures))
    scores = results.methods["method"][-1]
    assert scores.metrics["nearer_than_real"].mean > 0.99
    originals = {i: str(dataset.record(int(row)).path) for i, row in enumerate(rows)}
    assert all(pair.photograph == originals[int(Path(pair.generated).stem)] for pair in scores.nearest)
    assert scores.copies is not None
    assert "base" in str(scores.copies.cannot_tell())
    assert {taxon.copies for taxon in scores.taxa} == {None}
    write_results(results, tmp_path / "out", command="evaluate", size_px=32)
    for file in ("report.html", "tables.md", "tables.tex"):
        assert "cannot tell" in (tmp_path / "out" / file).read_text().lower()
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "base" in document["copies"]["method"]["species"]["cannot_tell"]
    assert "copies" not in document["table1"]["method"]["species"]


def test_species_swapped_within_a_genus_are_wrong_at_species_and_right_above(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    scores = scored(dataset, fresh(tmp_path / "swapped", 4, swap=True)).methods["method"]
    family, genus, species = (s.metrics["rank_accuracy"].mean for s in scores)
    assert family > 0.95
    assert genus > 0.95
    assert species == pytest.approx(0.5, abs=0.05)  # two of four species
    assert scores[-1].metrics["error_height"].mean == pytest.approx(0.5, abs=0.06)
    worst = scores[-1].confusions[:2]
    assert {(c.true.label, c.predicted.label) for c in worst} == {
        ("Ruber clarus", "Ruber obscurus"),
        ("Ruber obscurus", "Ruber clarus"),
    }
    right = {taxon.taxon.label: taxon.named_right for taxon in scores[-1].taxa}
    assert right["Ruber clarus"] < 0.2
    assert right["Viridis clarus"] > 0.9


def test_diversity_and_coverage_see_a_generator_that_repeats_one_picture(
    dataset: PreparedDataset, perfect: Results, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    one_each = {lineage: paint(colour, rng) for lineage, (colour, _) in SPECIES.items()}
    pictures = [(lineage, picture, {"seed": str(i)}) for lineage, picture in one_each.items() for i in range(10)]
    collapsed = scored(dataset, write_folder(tmp_path / "one", pictures)).methods["method"][-1].metrics
    honest = perfect.methods["method"][-1].metrics
    assert collapsed["diversity"].mean < 1e-6 < honest["diversity"].mean
    assert collapsed["coverage"].mean < honest["coverage"].mean


def test_images_are_named_by_the_nearest_name_without_training(dataset: PreparedDataset, tmp_path: Path) -> None:
    networks = Networks(Colours(), alignment=ColourNames())  # type: ignore[arg-type]
    methods = {
        "right": [generated_folder(fresh(tmp_path / "right", 1, ("species",)), RANKS)],
        "swapped": [generated_folder(fresh(tmp_path / "swapped", 1, ("species",), swap=True), RANKS)],
    }
    found = evaluate(dataset, methods, networks, JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8)).methods
    right, swapped = found["right"][0].metrics, found["swapped"][0].metrics
    assert right["zero_shot_accuracy"].mean > 0.9
    assert swapped["zero_shot_accuracy"].mean == pytest.approx(0.5, abs=0.1)  # the two species of Ruber are swapped
    assert right["alignment"].mean > swapped["alignment"].mean


def test_distances_see_pictures_that_are_too_bright(dataset: PreparedDataset, perfect: Results, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    pictures = [
        (lineage, paint((red + 25, green + 25, blue + 25), rng), {"seed": str(i)})
        for lineage, ((red, green, blue), _) in SPECIES.items()
        for i in range(10)
    ]
    bright = scored(dataset, write_folder(tmp_path / "bright", pictures)).methods["method"][-1]
    honest = perfect.methods["method"][-1]
    assert bright.frechet is not None
    assert honest.frechet is not None
    assert difference_of_replicates(bright.frechet, honest.frechet).low > 0
    assert bright.metrics["frechet_distance"].low >= 0
    assert bright.metrics["kernel_distance"].mean > honest.metrics["kernel_distance"].mean
    assert bright.metrics["density"].mean < honest.metrics["density"].mean


def test_pictures_of_some_taxa_are_compared_with_photographs_of_these_taxa(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    two = [lineage for lineage in SPECIES if lineage.get("genus") == "Ruber"]
    shown = photographs(dataset, "train", RANKS)
    copies = shown.select([i for i, lineage in enumerate(shown.lineages) if lineage in two])
    settings = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=100)
    results = evaluate(dataset, {"copies": [copies]}, Networks(Colours()), settings)
    (scores,) = results.methods["copies"]
    assert scores.metrics["frechet_distance"].mean == pytest.approx(0, abs=1e-2)  # the very photographs
    assert scores.metrics["recall"].mean == scores.metrics["coverage"].mean == 1
    assert {taxon.taxon for taxon in scores.taxa} == set(two)
    at_species = results.real[-1]
    assert {taxon.taxon for taxon in at_species.taxa} == set(two)  # what stands beside them shows the same
    assert [found.rank for found in results.real] == list(RANKS)

    every = evaluate(dataset, {"copies": [shown]}, Networks(Colours()), settings)
    assert {taxon.taxon for taxon in every.real[-1].taxa} == set(SPECIES)

    (rarest,) = [lineage for lineage, (_, number) in SPECIES.items() if number == 4]
    rng = np.random.default_rng(0)
    pictures = [(rarest, paint(SPECIES[rarest][0], rng), {"seed": str(i)}) for i in range(6)]
    results = scored(dataset, write_folder(tmp_path / "rarest", pictures))
    metrics = results.methods["method"][-1].metrics  # four photographs: no neighbours to look for among them
    assert "frechet_distance" not in metrics
    assert "rank_accuracy" in metrics
    write_results(results, tmp_path / "out", command="", size_px=32)


def test_what_one_image_a_taxon_cannot_tell_is_absent(dataset: PreparedDataset, tmp_path: Path) -> None:
    scores = scored(dataset, fresh(tmp_path / "pairs", 8, ("species",), per_taxon=2)).methods["method"]
    assert "diversity" in scores[-1].metrics
    rng = np.random.default_rng(9)
    one_each = [(lineage, paint(colour, rng), {}) for lineage, (colour, _) in SPECIES.items()]
    two_of_one = [(next(iter(SPECIES)), paint((220, 60, 60), rng), {"seed": str(i)}) for i in range(2)]
    single = scored(dataset, write_folder(tmp_path / "single", one_each + two_of_one)).methods["method"][-1]
    assert "diversity" not in single.metrics
    assert "rank_accuracy" in single.metrics


def test_every_taxon_falls_in_the_bucket_of_its_training_photographs(perfect: Results) -> None:
    assert [bucket_of(n) for n in (0, 0, 1, 5, 6, 20, 21, 100, 101, 10**6)] == [b.name for b in BUCKETS for _ in (0, 1)]
    species = perfect.methods["method"][-1]
    assert set(species.buckets) == {"1–5", "6–20", "21–100"}
    assert [t.num_photographs for t in species.taxa] == [4, 8, 12, 30]
    mean = np.average([species.buckets[b]["rank_accuracy"].mean for b in species.buckets], weights=[1, 2, 1])
    assert mean == pytest.approx(species.metrics["rank_accuracy"].mean)


def test_training_runs_are_measured_apart(dataset: PreparedDataset, tmp_path: Path, perfect: Results) -> None:
    single = scored(dataset, fresh(tmp_path / "0", 1)).methods["method"][-1]
    pooled = perfect.methods["method"][-1]
    assert pooled.num_images == 3 * single.num_images
    # thrice the images in one heap would have a smaller Fréchet bias; runs apart keep it
    assert pooled.metrics["frechet_distance"].mean == pytest.approx(single.metrics["frechet_distance"].mean, rel=0.5)


def test_a_method_is_told_from_the_best_by_the_difference(dataset: PreparedDataset, tmp_path: Path) -> None:
    methods = {
        name: [generated_folder(fresh(tmp_path / name, 1, swap=name == "swapped"), RANKS)]
        for name in ("right", "swapped")
    }
    results = evaluate(
        dataset, methods, Networks(Colours()), JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8)
    )
    assert results.best() == "right"
    differences = results.differences
    assert list(differences) == ["swapped"]
    assert differences["swapped"]["species"].mean == pytest.approx(
        results.methods["right"][-1].metrics["rank_accuracy"].mean
        - results.methods["swapped"][-1].metrics["rank_accuracy"].mean
    )
    assert differences["swapped"]["genus"].low <= 0 <= differences["swapped"]["genus"].high
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    assert "Named right: right above each method" in (tmp_path / "out" / "tables.md").read_text()
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["differences"]["from"] == "right"
    assert document["models"] == {}  # their tables do not say who drew


def test_bad_input_gets_one_clear_message(dataset: PreparedDataset, tmp_path: Path) -> None:
    few = fresh(tmp_path / "few", 0, ("family",), per_taxon=2)
    with pytest.raises(DataError, match=r"4 images at rank family are too few .* generate 6 or more"):
        scored(dataset, few)
    strange = Lineage.of({"family": "Rubridae", "genus": "Ruber", "species": "novus"})
    unknown = write_folder(tmp_path / "unknown", [(strange, Image.new("RGB", (32, 32)), {})] * 8)
    with pytest.raises(DataError, match=r"no training photograph shows .*novus at rank species"):
        scored(dataset, unknown)
    with pytest.raises(SettingsError, match=r"'tribe' is not in .*family, genus, species"):
        evaluate(dataset, {}, Networks(Colours()), JudgeSettings(("tribe",)))
    with pytest.raises(DataError, match=r"no metadata\.csv"):
        generated_folder(tmp_path, RANKS)
    with pytest.raises(DataError, match="its images are of rank family, none of species; choose other --ranks"):
        generated_folder(few, ("species",))
    both = fresh(tmp_path / "both", 0, ("family", "species"), per_taxon=2)
    part = generated_folder(both, ("genus", "species"))
    assert {lineage.rank for lineage in part.lineages} == {"species"}
    assert (len(part), part.left_out) == (2 * len(SPECIES), 2 * 2)
    (few / "metadata.csv").write_text("file_name,species\n../../etc/passwd,clarus\n")
    with pytest.raises(DataError, match=r"row 2: file_name '\.\./\.\./etc/passwd' is no file below"):
        generated_folder(few, RANKS)


def test_results_are_written_as_json_tables_and_report(perfect: Results, tmp_path: Path) -> None:
    write_results(perfect, tmp_path, command="taxadiffusion evaluate x", size_px=32)
    document = json.loads((tmp_path / "results.json").read_text())
    accuracy = document["table1"]["method"]["species"]["rank_accuracy"]
    assert set(accuracy) == {"mean", "low", "high"}
    assert accuracy["mean"] == perfect.methods["method"][-1].metrics["rank_accuracy"].mean
    assert document["protocol"]["extractor"] == "colours"
    assert document["protocol"]["extractor_sha256"] == "c" * 64
    assert document["protocol"]["dataset_hash"]
    shown = f"{accuracy['mean']:.3f}"
    for name in ("tables.md", "tables.tex", "report.html"):
        written = (tmp_path / name).read_text()
        assert shown in written
        assert "FID" not in written.replace("no FID", "").replace("published FID", "")
    assert "LPIPS" not in (tmp_path / "tables.md").read_text()  # not measured, so not named


def test_confusions_of_many_taxa_are_a_list_of_the_largest(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = scored(dataset, fresh(tmp_path / "swapped", 4, swap=True))
    finest = swapped.methods["method"][-1]
    assert "<svg" in confusion_block(finest, "method")[0]
    monkeypatch.setattr(report, "MOST_IN_MATRIX", 3)
    monkeypatch.setattr(report, "NUM_CONFUSIONS", 1)
    (block,) = confusion_block(finest, "method")
    worst = finest.confusions[0]
    assert "<svg" not in block
    assert f"the 1 largest of {len(finest.confusions)} confusions" in block
    assert f"{worst.count} of {worst.of}" in block


def test_the_best_method_is_sought_where_the_finest_names_were_asked_for(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    methods = {
        "families": [generated_folder(fresh(tmp_path / "families", 1, ("family",)), RANKS)],
        "swapped": [generated_folder(fresh(tmp_path / "swapped", 1, swap=True), RANKS)],
    }
    results = evaluate(
        dataset, methods, Networks(Colours()), JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8)
    )
    assert results.methods["families"][-1].metrics["rank_accuracy"].mean > 0.95  # easier, so not comparable
    assert results.best() == "swapped"
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    by_number = (tmp_path / "out" / "tables.md").read_text().split("Named right at rank species, by")[1].split("###")[0]
    assert "| 1–5 | 6–20 | 21–100 |" in by_number
    assert "| swapped (of this model: one training) |" in by_number
    assert "families" not in by_number


def test_equal_epithets_of_different_genera_stay_different_species_whatever_ranks_are_asked_for(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    folder = fresh(tmp_path / "species", 1, ("species",), swap=True)
    networks = Networks(Colours())

    def at_species(ranks: tuple[str, ...]) -> RankScores:
        settings = JudgeSettings(ranks, size_px=32, max_reference_per_taxon=8)
        return evaluate(dataset, {"method": [generated_folder(folder, ranks)]}, networks, settings).methods["method"][
            -1
        ]

    whole = at_species(RANKS)
    for ranks in (("species",), ("family", "species")):
        alone = at_species(ranks)
        assert {taxon.taxon for taxon in alone.taxa} == set(SPECIES)
        assert alone.metrics["rank_accuracy"] == whole.metrics["rank_accuracy"]
        assert alone.metrics["frechet_distance"].mean == pytest.approx(whole.metrics["frechet_distance"].mean)
    assert error_height(*wrong_homonym(), ("species",)) == 1


def wrong_homonym() -> tuple[Lineage, Lineage]:
    species = [lineage for lineage in SPECIES if lineage.get("species") == "clarus"]
    return species[0], species[1]


def test_a_table_with_fewer_ranks_names_the_data_sets_taxa_or_is_told_that_it_cannot(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)

    def scores(names: Callable[[Lineage], Lineage]) -> RankScores:
        pictures = [(names(s), paint(colour, rng), {}) for s, (colour, _) in SPECIES.items() for _ in range(4)]
        folder = write_folder(tmp_path / f"{len(list(tmp_path.iterdir()))}", pictures)
        settings = JudgeSettings(("species",), size_px=32, max_reference_per_taxon=8)
        methods = {"method": [generated_folder(folder, ("species",))]}
        return evaluate(dataset, methods, Networks(Colours()), settings).methods["method"][0]

    assert {taxon.taxon for taxon in scores(lambda s: s.without("family")).taxa} == set(SPECIES)
    with pytest.raises(DataError, match=r"method: species: clarus is .*Ruber.*, or .*; name the coarser ranks"):
        scores(lambda s: s.without("family").without("genus"))


def test_images_that_are_not_measured_are_counted(dataset: PreparedDataset, perfect: Results, tmp_path: Path) -> None:
    folder = fresh(tmp_path / "all", 1)
    num_families = 10 * len({lineage.get("family") for lineage in SPECIES})
    ranks = ("genus", "species")
    networks, settings = Networks(Colours()), JudgeSettings(ranks, size_px=32, max_reference_per_taxon=8)
    results = evaluate(dataset, {"method": [generated_folder(folder, ranks)]}, networks, settings)
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["left_out"] == {"method": num_families}
    for name in ("tables.md", "report.html"):
        assert f"no taxon of genus, species: {num_families} of method." in (tmp_path / "out" / name).read_text()
    assert perfect.left_out == {}


# Who judges


class Brightness:
    """A network that sees no colour: it cannot tell species of one brightness apart."""

    name = "brightness"
    content_hash = "b" * 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1).astype(np.float32)


def test_a_judge_learns_from_the_splits_train_and_judge_and_nothing_else_does(
    dataset: PreparedDataset, perfect: Results
) -> None:
    (judge,) = perfect.protocol.judges
    assert judge.splits == ("train", "judge")
    assert judge.num_photographs == sum(number for _, number in SPECIES.values()) + len(SPECIES) * NUM_JUDGE
    assert judge.inverse_penalty in judge.candidates
    assert judge.inverse_penalty == judge.candidates[int(np.argmin(judge.losses))]
    assert judge.num_searched == judge.num_photographs
    in_training = {str(dataset.record(int(row)).path) for row in dataset.rows("train")}
    for scores in perfect.methods["method"]:
        assert {pair.photograph for pair in scores.nearest} <= in_training
    counts = {one.taxon: one.num_photographs for one in perfect.methods["method"][-1].taxa}
    assert counts == {taxon: number for taxon, (_, number) in SPECIES.items()}
    assert perfect.not_judged == {}


@pytest.fixture(scope="module")
def without_judge_split(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder, rng = tmp_path_factory.mktemp("rare"), np.random.default_rng(0)
    pictures = [
        (lineage, paint(colour, rng), {"split": split})
        for lineage, (colour, number) in SPECIES.items()
        for split, count in (("train", number), ("test", NUM_TEST))
        for _ in range(count)
    ]
    prepare(write_folder(folder / "source", pictures), folder / "prepared", num_workers=1)
    return PreparedDataset.open(folder / "prepared")


def test_taxa_of_which_judges_have_too_few_photographs_are_left_out_of_the_judging_and_counted(
    without_judge_split: PreparedDataset, tmp_path: Path
) -> None:
    """Of four species two have eight and four photographs; one of these is alone in its genus."""
    results = scored(without_judge_split, fresh(tmp_path / "made", 1))
    assert results.protocol.judges[0].splits == ("train",)
    assert results.not_judged == {"genus": (1, 3), "species": (2, 4)}
    family, genus, species = results.methods["method"]
    rare = {"Ruber obscurus", "Caeruleus clarus"}
    for one in species.taxa:
        judged = one.taxon.label not in rare
        assert (one.named_right is not None) == (one.error_height is not None) == judged
        assert one.num_images == 10
    assert species.metrics["rank_accuracy"].mean == np.mean(
        [one.named_right for one in species.taxa if one.named_right is not None]
    )
    assert not {pair.true.label for pair in species.confusions} & rare
    assert "rank_accuracy" not in species.buckets["1–5"]
    assert "distance_to_real" in species.buckets["1–5"]  # nothing else is lost
    assert {one.taxon.label for one in family.taxa if one.named_right is None} == set()
    assert {one.taxon.label for one in genus.taxa if one.named_right is None} == {"Caeruleus"}
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["not_judged"] == {"genus": {"taxa": 1, "of": 3}, "species": {"taxa": 2, "of": 4}}
    assert document["protocol"]["judges"][0]["fewest_photographs"] == naming.FEWEST_PHOTOGRAPHS == 10
    words = "judges have fewer than 10 photographs of them: 1 of 3 at rank genus, 2 of 4 at rank species."
    for name in ("tables.md", "report.html"):
        assert words in (tmp_path / "out" / name).read_text()


def test_images_of_taxa_that_are_not_judged_are_measured_by_all_else(
    without_judge_split: PreparedDataset, tmp_path: Path
) -> None:
    rare = [lineage for lineage, (_, number) in SPECIES.items() if number < naming.FEWEST_PHOTOGRAPHS]
    rng = np.random.default_rng(0)
    made = [(lineage, paint(SPECIES[lineage][0], rng), {}) for lineage in rare for _ in range(8)]
    results = scored(without_judge_split, write_folder(tmp_path / "made", made))
    (scores,) = results.methods["method"]
    assert {"rank_accuracy", "error_height"}.isdisjoint(scores.metrics)
    assert {"frechet_distance", "coverage", "nearer_than_real", "diversity"} <= set(scores.metrics)
    assert scores.confusions == ()
    assert results.best() == "method"
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    assert "not judged" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("enough", [0, 1])
def test_where_fewer_than_two_taxa_have_enough_photographs_nothing_is_named_and_all_else_measured(
    enough: int, tmp_path: Path
) -> None:
    """An evaluation of a small set goes on, with either network, and says how many taxa are not judged."""
    rng = np.random.default_rng(0)
    pictures = [
        (lineage, paint(colour, rng), {"split": split})
        for i, (lineage, (colour, _)) in enumerate(SPECIES.items())
        for split, count in (("train", 10 if i < enough else 9), ("test", 6))
        for _ in range(count)
    ]
    prepare(write_folder(tmp_path / "source", pictures), tmp_path / "prepared", num_workers=1)
    dataset = PreparedDataset.open(tmp_path / "prepared")
    methods = {
        name: [generated_folder(fresh(tmp_path / name, seed, ("species",)), RANKS)]
        for name, seed in (("first", 1), ("second", 2))
    }
    results = evaluate(
        dataset, methods, Networks(Colours(), second=Brightness()), JudgeSettings(("species",), size_px=32)
    )
    assert results.not_judged == {"species": (len(SPECIES), len(SPECIES))}
    assert [judge.num_taxa for judge in results.protocol.judges] == [0, 0]
    for scores in (results.methods["first"][0], results.real[0]):
        assert {"rank_accuracy", "rank_accuracy_second", "error_height"}.isdisjoint(scores.metrics)
        assert {"frechet_distance", "coverage", "nearer_than_real", "diversity"} <= set(scores.metrics)
        assert {one.named_right for one in scores.taxa} == {None}
        assert scores.confusions == ()
    assert (results.compared.name, results.compared.how) == ("first", "first")
    assert results.differences == {}
    assert results.distance_differences["second"]["species"].known
    assert named_right_by_judge(results, "unseen")[1] == []
    write_results(results, tmp_path / "out", command="taxadiffusion evaluate x", size_px=32)
    for name in ("tables.md", "report.html"):
        words = (tmp_path / "out" / name).read_text()
        assert "fewer than two taxa have 10 photographs (split train)" in words
        assert "Taxa not judged: 4 of 4 at rank species." in words
        assert "most often" not in words


def test_every_table_shows_both_judges_side_by_side(dataset: PreparedDataset, tmp_path: Path) -> None:
    methods = {
        "right": [generated_folder(fresh(tmp_path / f"right{i}", i), RANKS) for i in (1, 2)],
        "swapped": [generated_folder(fresh(tmp_path / "swapped", 3, swap=True), RANKS)],
    }
    settings = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8)
    one = evaluate(dataset, methods, Networks(Colours()), settings)
    two = evaluate(dataset, methods, Networks(Colours(), second=Brightness()), settings)
    for alone, beside in zip(one.methods["right"], two.methods["right"], strict=True):
        first, second = (beside.metrics[key] for key in ("rank_accuracy", "rank_accuracy_second"))
        assert {k: v for k, v in beside.metrics.items() if k != "rank_accuracy_second"} == alone.metrics
        assert second.mean < first.mean
    other_way = evaluate(dataset, methods, Networks(Brightness(), second=Colours()), settings)
    for first, second in zip(two.methods["swapped"], other_way.methods["swapped"], strict=True):
        assert first.metrics["rank_accuracy_second"] == second.metrics["rank_accuracy"]
        assert first.metrics["rank_accuracy"] == second.metrics["rank_accuracy_second"]
    out = tmp_path / "out"
    write_results(two, out, command="taxadiffusion evaluate x", size_px=32)
    document = json.loads((out / "results.json").read_text())
    assert [judge["extractor"] for judge in document["protocol"]["judges"]] == ["colours", "brightness"]
    assert document["table1"]["right"]["species"]["rank_accuracy_second"]["mean"] < 1
    assert set(document["differences"]) == {
        "from",
        "picked",
        "rank_accuracy",
        "rank_accuracy_second",
        "frechet_distance",
    }
    heads = " | ".join(f"{rank} · {judge}" for rank in RANKS for judge in ("colours", "brightness"))
    markdown, latex, page = ((out / name).read_text() for name in ("tables.md", "tables.tex", "report.html"))
    assert markdown.count(f"| method | {heads} |") == 2  # named right, and its differences
    assert "| method | 1–5 · colours | 1–5 · brightness | 6–20 · colours |" in markdown
    assert latex.count(heads.replace(" | ", " & ")) == 2
    assert page.count("species · brightness") >= 3  # a chart and two tables
    assert "named right · brightness" in page  # best and worst taxa
    for text in (markdown, latex):
        assert text.count("right (of this model") == 0  # trained twice
        assert "swapped (of this model: one training)" in text
    assert "of this model: one training" in page
    header, rows = named_right_by_judge(two, "unseen")  # on a screen ranks follow one another, so that figures fit
    assert header == ["method", "rank", "colours", "brightness"]
    assert [(row[0].value, row[1].value) for row in rows] == [
        (name, rank) for name in ("right", "swapped", "unseen") for rank in RANKS
    ]
    shown = two.methods["swapped"][-1].metrics
    assert [cell.value for cell in rows[5][2:]] == [
        f"{shown[metric].mean:.3f}" for metric in ("rank_accuracy", "rank_accuracy_second")
    ]


def test_a_second_judge_is_another_network() -> None:
    with pytest.raises(SettingsError, match="colours is given twice; a second judge is another network"):
        Networks(Colours(), second=Colours())


def network(path: Path, channels: Sequence[int]) -> Path:
    """A network file whose features are the means of some channels."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(channels)])
    picked = helper.make_tensor("channels", TensorProto.INT64, [len(channels)], list(channels))
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    nodes = [
        helper.make_node("Gather", ["images", "channels"], ["some"], axis=1),
        helper.make_node("ReduceMean", ["some", "axes"], ["features"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "means", [image], [features], [picked, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def test_evaluate_takes_two_networks(dataset: PreparedDataset, tmp_path: Path) -> None:
    asked = [f"onnx:{network(tmp_path / f'{name}.onnx', c)}" for name, c in (("all", (0, 1, 2)), ("red", (0,)))]
    folder = fresh(tmp_path / "made", 1)
    head, *rows = (folder / "metadata.csv").read_text().splitlines()
    table = [f"{head},model_sha256", *(f"{row},{'a' * 64}" for row in rows)]
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    arguments = [
        "evaluate",
        str(folder),
        "--data",
        str(dataset.path),
        "--out",
        str(tmp_path / "out"),
        "--size-px",
        "32",
    ]
    ran = CliRunner().invoke(app, [*arguments, "--extractor", asked[0], "--extractor", asked[1]])
    assert ran.exit_code == 0, ran.output
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["models"] == {"made": ["a" * 64]}
    judges = document["protocol"]["judges"]
    assert [judge["extractor"] for judge in judges] == ["onnx:all", "onnx:red"]
    assert document["protocol"]["extractor_sha256"] == judges[0]["extractor_sha256"] != judges[1]["extractor_sha256"]
    first, second = (
        document["table1"]["made"]["species"][key]["mean"] for key in ("rank_accuracy", "rank_accuracy_second")
    )
    assert first > 0.95 > second
    told = " ".join(ran.output.split())
    assert "Named right by onnx:all: logistic regression" in told
    three = CliRunner().invoke(
        app, [*arguments, *(word for name in (*asked, asked[0]) for word in ("--extractor", name))]
    )
    assert isinstance(three.exception, SettingsError)
    assert "given 3 times" in str(three.exception)


# As many images as the paper's


def test_images_whose_pairs_are_formed_are_spread_over_all_taxa() -> None:
    taxa, rng = list(SPECIES), np.random.default_rng(0)
    sizes = ((9, 7), (1, 2), (3, 3), (30, 40))
    rows, start = {}, 0
    for taxon, numbers in zip(taxa, sizes, strict=True):
        rows[taxon] = tuple(np.arange(start + 100 * r, start + 100 * r + n) for r, n in enumerate(numbers))
        start += 200
    everything = [np.concatenate([rows[taxon][r] for taxon in taxa]) for r in range(2)]
    for found, whole in zip(spread(52, rows, rng), everything, strict=True):
        assert np.array_equal(found, whole)
    few = spread(12, rows, rng)
    for r, found in enumerate(few):
        assert len(found) <= 12
        assert np.array_equal(found, np.sort(found))
        kept = [len(set(rows[taxon][r].tolist()) & set(found.tolist())) for taxon in taxa]
        assert kept == [min(n[r], 3) for n in sizes]  # four of each would be more than twelve
    one_each = spread(2, rows, rng)  # fewer than there are taxa
    shown = [{k for k, taxon in enumerate(taxa) if set(rows[taxon][r].tolist()) & set(one_each[r])} for r in range(2)]
    assert shown[0] == shown[1]
    assert [len(found) for found in one_each] == [2, 2]


def test_a_large_evaluation_measures_pairs_of_some_images_and_all_else_of_all(
    dataset: PreparedDataset, perfect: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MAX_PAIRED", 16)
    folders = [fresh(tmp_path / str(i), i + 1) for i in range(3)]
    few, all_of_them = scored(dataset, *folders).methods["method"][-1], perfect.methods["method"][-1]
    assert set(few.metrics) == set(all_of_them.metrics)
    pairs = {"kernel_distance", "precision", "recall", "density", "coverage"}
    for metric, interval in few.metrics.items():
        assert metric in pairs or interval == all_of_them.metrics[metric], metric
        assert interval.low <= interval.mean <= interval.high
    assert few.metrics["kernel_distance"] != all_of_them.metrics["kernel_distance"]
    assert few.taxa == all_of_them.taxa
    assert few.right.keys() == all_of_them.right.keys()


def test_so_many_taxa_that_a_regression_would_take_days_are_named_by_a_discriminant_and_the_results_say_so(
    dataset: PreparedDataset, perfect: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert perfect.protocol.judges[0].namer == "logistic regression"
    monkeypatch.setattr(naming, "LARGEST_REGRESSION", 0)
    right, swapped = fresh(tmp_path / "right", 1), fresh(tmp_path / "swapped", 4, swap=True)
    results = scored(dataset, right)
    assert results.protocol.judges[0].namer == "linear discriminant"
    assert results.methods["method"][-1].metrics["rank_accuracy"].mean > 0.95
    wrong = scored(dataset, swapped).methods["method"][-1].metrics["rank_accuracy"]
    assert wrong.mean == pytest.approx(0.5, abs=0.05)  # two of four species
    assert json.loads(json.dumps(results.to_json()))["protocol"]["judges"][0]["namer"] == "linear discriminant"


# Features of many pictures, shared and kept


class CountedColours(Colours):
    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.images, self.before = 0, before

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.before(self.images)
        self.images += len(images)
        return super().__call__(images)


def test_the_store_gives_the_features_of_the_pictures_and_computes_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_BLOCK", 64)
    pictures = generated_folder(fresh(tmp_path / "made", 1), RANKS)
    plain, network = pictures.features(Colours(), 32), CountedColours()
    store = FeatureStore(tmp_path / "store")
    counted: list[int] = []
    found = store.features(pictures, network, 32, lambda done, _: counted.append(done))
    assert len(pictures) == 90
    assert np.array_equal(found, plain)
    assert counted == [64, 90]
    FeatureStore(tmp_path / "store").features(pictures, network, 32)
    assert network.images == 90
    changed = Image.open(pictures.files[3]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda v: 255 - v)
    changed.save(pictures.files[3])
    again = store.features(pictures, network, 32)
    assert network.images == 90 + 64  # the other block stays
    assert np.array_equal(again, pictures.features(Colours(), 32))
    Path(pictures.files[3]).unlink()
    with pytest.raises(DataError, match=r"0003\.png: the picture cannot be read"):
        store.features(pictures, network, 32)


def test_photographs_of_other_boxes_have_other_features(dataset: PreparedDataset, tmp_path: Path) -> None:
    pictures, network = photographs(dataset, "test", RANKS), CountedColours()
    store = FeatureStore(tmp_path)
    store.features(pictures, network, 32)
    store.features(replace(pictures, cut=lambda i: f"{pictures.cut(i)} another box"), network, 32)
    assert network.images == 2 * len(pictures)


def test_photographs_features_lie_with_their_data_for_every_command(dataset: PreparedDataset, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(dataset.path, data, ignore=shutil.ignore_patterns("features"))
    pictures, made = (
        photographs(PreparedDataset.open(data), "test", RANKS),
        generated_folder(fresh(tmp_path / "made", 1), RANKS),
    )
    network = CountedColours()
    first = FeatureStore(tmp_path / "one", with_data=True)
    found = first.features(pictures, network, 32)
    first.features(made, network, 32)
    looked_at = network.images
    for folder in (tmp_path / "another", None):
        store = FeatureStore(folder, with_data=True)
        assert np.array_equal(store.features(pictures.select(range(len(pictures))), network, 32), found)
        assert network.images == looked_at
    assert len(list((data / "features").glob("*.npy"))) == 1
    assert len(list((tmp_path / "one").glob("*.npy"))) == 1  # of the generated ones


def test_data_that_cannot_be_written_are_told_of_and_features_kept_elsewhere(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(dataset.path, data, ignore=shutil.ignore_patterns("features"))
    (data / "features").write_text("in the way")
    pictures, network = photographs(PreparedDataset.open(data), "test", RANKS), CountedColours()
    with pytest.warns(UserWarning, match="features cannot be written: features of photographs are kept in"):
        FeatureStore(tmp_path / "one", with_data=True).features(pictures, network, 32)
    assert list((tmp_path / "one").glob("*.npy"))
    with pytest.warns(UserWarning, match="computed anew"):
        found = FeatureStore(None, with_data=True).features(pictures, network, 32)
    assert np.array_equal(found, pictures.features(Colours(), 32))


@pytest.mark.parametrize("damage", ["no features", "cut short", "empty", "no word"])
def test_damaged_features_are_computed_again(dataset: PreparedDataset, tmp_path: Path, damage: str) -> None:
    pictures = photographs(dataset, "test", RANKS)
    right = FeatureStore(tmp_path).features(pictures, Colours(), 32)
    (block,) = tmp_path.glob("*.npy")
    if damage == "no features":
        block.unlink()
    elif damage == "no word":
        block.with_suffix(".json").write_text("{}")
    else:
        block.write_bytes(block.read_bytes()[: 200 if damage == "cut short" else 0])
    network = CountedColours()
    assert np.array_equal(FeatureStore(tmp_path).features(pictures, network, 32), right)
    assert network.images == len(pictures)


def test_a_folder_that_is_deleted_meanwhile_is_one_error(dataset: PreparedDataset, tmp_path: Path) -> None:
    pictures, folder = photographs(dataset, "test", RANKS), tmp_path / "store"
    with pytest.raises(DataError, match="was deleted while features were put there"):
        FeatureStore(folder).features(pictures, CountedColours(lambda _: shutil.rmtree(folder)), 32)
    again = FeatureStore(folder).features(pictures, Colours(), 32)
    assert np.array_equal(again, pictures.features(Colours(), 32))


def test_data_that_cannot_be_written_still_give_what_is_there(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, network = tmp_path / "data", CountedColours()
    shutil.copytree(dataset.path, data, ignore=shutil.ignore_patterns("features"))
    pictures = photographs(PreparedDataset.open(data), "test", RANKS)
    found = FeatureStore(None, with_data=True).features(pictures, network, 32)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert np.array_equal(FeatureStore(None, with_data=True).features(pictures, network, 32), found)
    assert network.images == len(pictures)


def test_processes_share_the_features_and_one_that_is_killed_loses_only_its_block(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_BLOCK", 16)
    methods = {"method": [generated_folder(fresh(tmp_path / "made", 1), RANKS)]}
    settings = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=8)
    alone = evaluate(dataset, methods, Networks(Colours()), settings)

    def die(done: int) -> None:
        if done == 54:  # all training photographs are done
            os.kill(os.getpid(), signal.SIGKILL)

    store = tmp_path / "store"
    network = CountedColours(die)
    child = fork(lambda: extract(dataset, methods, Networks(network, store=FeatureStore(store)), settings), tmp_path)
    assert child.wait(60) == -signal.SIGKILL
    assert len(list(store.glob("*.npy"))) == 4
    met = threading.Barrier(2, timeout=60)
    shares = [CountedColours(lambda done: None if done else waited()) for _ in range(2)]  # both begin, then go on

    def waited() -> None:
        met.wait()

    def share(number: int) -> None:
        networks = Networks(shares[number], store=FeatureStore(store, Shard(number, 2)))
        extract(dataset, methods, networks, settings)

    both = [threading.Thread(target=share, args=(number,)) for number in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert all(one.images for one in shares)
    assert sum(one.images for one in shares) == 32 + 4 * NUM_JUDGE + 90
    first = CountedColours()
    together = evaluate(dataset, methods, Networks(first, store=FeatureStore(store, Shard(0, 2))), settings)
    assert first.images == 0
    assert json.dumps(together.to_json()) == json.dumps(alone.to_json())


# Traits of a simulated clade


@pytest.fixture(scope="module")
def clade_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traits") / "clade"
    simulate(folder, seed=7, num_species=5, num_images=40)
    return folder


def drawn(clade: Clade, asked: Sequence[Lineage], shown: Sequence[int]) -> Side:
    """Eight pictures of species `shown[k]`, as if each had been asked to show `asked[k]`."""
    pictures = [photograph(clade.traits[s], 1, s, i)[1] for s in shown for i in range(8)]
    lineages = tuple(lineage for lineage in asked for _ in range(8))
    files = tuple(str(i) for i in range(len(pictures)))
    return Side(np.zeros((len(pictures), 2), np.float32), lineages, files, (0,) * len(files), lambda i, _: pictures[i])


def test_true_pictures_have_less_trait_error_than_those_of_another_species(clade_folder: Path) -> None:
    judge = TraitJudge(read_clade(clade_folder), TraitMeter.calibrated(600))
    clade, numbers = judge.clade, list(range(5))
    sides = [drawn(clade, clade.species, shown) for shown in (numbers, numbers[1:] + numbers[:1])]
    read = [judge(side, "species", clade.ranks) for side in sides]
    right, wrong = (trait_error(r, side.cells()) for (r, _), side in zip(read, sides, strict=True))
    assert right.mean < wrong.mean
    assert right.low <= right.mean <= right.high
    assert np.mean(list(read[0][1].values())) == pytest.approx(right.mean)


def test_a_taxon_that_the_clade_lacks_is_named(clade_folder: Path) -> None:
    judge = TraitJudge(read_clade(clade_folder), TraitMeter.calibrated(200))
    stranger = Lineage.of({"genus": "Amphiprion", "species": "clarkii"})
    with pytest.raises(DataError, match=r"clarkii is no species of the simulated clade"):
        judge(drawn(judge.clade, [stranger], [0]), "species", judge.clade.ranks)


def test_a_folder_without_a_clade_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clade\.json: no recipe of a simulated clade"):
        read_clade(tmp_path)
