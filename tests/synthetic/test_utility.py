"""Laws of the comparison: nobody learns from what judges, a harm and a gain are told, and "no gain" is said."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.synthetic import utility
from taxadiffusion.synthetic.accept import MISNAMED
from taxadiffusion.synthetic.checks import sight
from taxadiffusion.synthetic.classifiers import (
    NETWORK,
    PROBE,
    NetworkSettings,
    Pack,
    named_by_network,
    named_by_probe,
)
from taxadiffusion.synthetic.folds import (
    EVEN,
    FILTERED,
    PASTED,
    REAL,
    RESAMPLED,
    UNFILTERED,
    Pool,
    copy_flags,
    deal,
    filtered,
    pasted_anew,
    resampled,
)
from taxadiffusion.synthetic.gain import Difference, gains, recommended
from taxadiffusion.synthetic.paste import background_of, pasted, subject_of
from taxadiffusion.synthetic.plan import counted_species, read_plan
from taxadiffusion.synthetic.sources import Sources, read_sources
from taxadiffusion.synthetic.utility import Cell, Comparison, Named, Trainings, rows_of
from tests.coloured_dataset import photographed
from tests.coloured_pictures import RANKS, SPECIES, Colours, fresh

TAXA = tuple(sorted(SPECIES, key=str))
SIZE = 32
ONE_FOLD_IN_TWO = Comparison(num_folds=2, num_seeds=1, classifiers=(PROBE,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and two synthetic sets: a perfect one, and one that takes two species for each other."""
    path = tmp_path_factory.mktemp("utility")
    photographed(path, 4)
    fresh(path / "good", 1, ("species",), 12)
    fresh(path / "swapped", 2, ("species",), 12, swap=True)
    return path


@pytest.fixture(scope="module")
def sources(folder: Path) -> Sources:
    by = sight(Colours(), folder / "features", SIZE)
    sets = [(name, folder / name) for name in ("good", "swapped")]
    return read_sources(PreparedDataset.open(folder / "prepared"), sets, by)


@pytest.fixture(scope="module")
def found(sources: Sources, folder: Path) -> dict[Cell, Named]:
    return Trainings(sources, ONE_FOLD_IN_TWO, Colours(), folder / "trainings").run()


def right(found: dict[Cell, Named], row: str) -> float:
    return float(np.mean([(one.named == one.true).mean() for cell, one in found.items() if cell.row == row]))


def test_published_splits_judge_and_every_row_is_trained(sources: Sources, found: dict[Cell, Named]) -> None:
    assert sources.judged_splits == ("test",)
    assert sources.judged is not None
    assert len(sources.judged) == 16
    drawn = [f"{kind}: {name}" for name in ("good", "swapped") for kind in (UNFILTERED, FILTERED)]
    assert rows_of(sources) == (REAL, EVEN, RESAMPLED, PASTED, *drawn)
    assert Counter(cell.row for cell in found) == dict.fromkeys(rows_of(sources), 2)
    sizes = {cell.row: one.num_learnt for cell, one in found.items() if cell.fold == 0}
    assert sizes[EVEN] == sizes[REAL]
    assert sizes[RESAMPLED] == sizes[PASTED] == sizes[f"{UNFILTERED}: good"] == sizes[REAL] + 48


def test_a_set_of_a_model_that_knows_fewer_ranks_shows_the_species_of_the_data(
    sources: Sources, folder: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer"
    shutil.copytree(folder / "good", fewer)
    table = fewer / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [name for name in rows[0] if name != "family"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    by = sight(Colours(), folder / "features", SIZE)
    pool = read_sources(PreparedDataset.open(folder / "prepared"), [("good", fewer)], by).pools[0]
    assert np.array_equal(pool.pack.labels, sources.pools[0].pack.labels)


def test_wrong_pictures_harm_and_the_filter_leaves_them_out(sources: Sources, found: dict[Cell, Named]) -> None:
    assert right(found, f"{UNFILTERED}: swapped") < right(found, REAL)
    assert right(found, f"{FILTERED}: swapped") >= right(found, REAL)
    out = sources.learnt.labels % 2 == 1  # any part
    chosen = filtered(sources.pools[1], sources.learnt, sources.learnt.select(np.flatnonzero(out)), TAXA, 0.1, 0)
    wrong = [i for i, taxon in enumerate(TAXA) if taxon.get("genus") == "Ruber"]
    assert chosen.refused[MISNAMED] >= 20
    assert np.isin(chosen.pack.labels, wrong).mean() < 0.2


@pytest.mark.parametrize("classifier", [PROBE, NETWORK])
def test_even_odds_name_a_rare_class_as_often_as_a_common_one(classifier: str) -> None:
    """Two greys that overlap, of which one is twenty times as frequent."""
    rng = np.random.default_rng(0)

    def shades(number: int, label: int) -> Pack:
        grey = rng.normal(110 + 36 * label, 24, number)
        images = np.broadcast_to(grey[:, None, None, None], (number, 3, 16, 16)).clip(0, 255).astype(np.uint8)
        return Pack(images, grey[:, None].astype(np.float32), np.full(number, label))

    learnt, shown = shades(400, 0).with_(shades(20, 1)), shades(400, 0).with_(shades(400, 1))

    def recalls(*, even: bool) -> tuple[float, float]:
        if classifier == PROBE:
            named, sure = named_by_probe(learnt, ("0", "1"), 1.0, shown, even=even)
        else:  # a third class that was not learnt is never named
            settings = NetworkSettings(num_steps=120, batch_size=32, width=4, learning_rate=1e-2)
            named, sure = named_by_network(learnt, 3, settings, 0, shown, even=even)
        assert set(named.tolist()) <= {0, 1}
        assert ((sure > 1 / 3) & (sure <= 1)).all()
        return float((named[:400] == 0).mean()), float((named[400:] == 1).mean())

    assert recalls(even=False)[1] < 0.45
    common, rare = recalls(even=True)
    assert min(common, rare) > 0.6
    assert abs(common - rare) < 0.3


def test_nobody_learns_from_what_judges(sources: Sources, found: dict[Cell, Named], tmp_path: Path) -> None:
    """With other labels on the photographs that judge, every classifier names the same."""
    assert sources.judged is not None
    other = replace(sources, judged=replace(sources.judged, labels=sources.judged.labels[::-1].copy()))
    again = Trainings(other, ONE_FOLD_IN_TWO, Colours(), tmp_path).run()
    for cell, one in found.items():
        assert np.array_equal(again[cell].named, one.named)
        assert np.array_equal(again[cell].confidence, one.confidence)


def test_a_filter_does_not_see_what_the_fold_leaves_out(sources: Sources) -> None:
    fold_of = deal(sources.learnt.labels, sources.groups, 2, 0)
    learnt, left_out = (sources.learnt.select(np.flatnonzero(rows)) for rows in (fold_of != 0, fold_of == 0))
    few = left_out.select(np.arange(5))  # too few to set a threshold by
    chosen = filtered(sources.pools[1], learnt, few, TAXA, 0.01, 0)
    other = filtered(sources.pools[1], learnt, replace(few, labels=few.labels[::-1].copy()), TAXA, 0.01, 0)
    assert chosen.remark == "copies were not looked for: 5 photographs are too few for 1.0% false alarms"
    assert np.array_equal(chosen.pack.images, other.pack.images)
    assert chosen.refused == other.refused


def test_without_a_published_split_each_fold_is_judged_by_what_it_leaves_out(sources: Sources, tmp_path: Path) -> None:
    alone = replace(sources, judged=None, judged_splits=(), pools=sources.pools[:1], content_hash="other")
    found = Trainings(alone, ONE_FOLD_IN_TWO, Colours(), tmp_path).run()
    labels = [one.true for cell, one in found.items() if cell.row == REAL]
    assert sorted(np.concatenate(labels).tolist()) == sorted(sources.learnt.labels.tolist())


def test_a_training_that_lies_there_is_not_made_again(
    sources: Sources, found: dict[Cell, Named], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(utility, "named_by_probe", never)
    again = Trainings(sources, ONE_FOLD_IN_TWO, Colours(), folder / "trainings").run()
    assert {cell: one.named.tolist() for cell, one in again.items()} == {
        cell: one.named.tolist() for cell, one in found.items()
    }
    with pytest.raises(AssertionError, match="it was there"):
        Trainings(sources, replace(ONE_FOLD_IN_TWO, seed=1), Colours(), folder / "trainings").run()


def test_folds_leave_each_photograph_out_once_groups_whole_and_no_species_alone() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 3 + [3])
    groups = [f"{label}-{i // 2}" for i, label in enumerate(labels)]
    groups[15:18] = ["one"] * 3
    fold_of = deal(labels, groups, 3, 0)
    for group in set(groups):
        assert len({fold_of[i] for i, name in enumerate(groups) if name == group}) == 1
    assert set(fold_of[labels == 2]) == set(fold_of[labels == 3]) == {-1}, "a single group is always learnt from"
    assert set(fold_of[:15]) == {0, 1, 2}
    for fold in range(3):
        assert set(labels[fold_of != fold]) == {0, 1, 2, 3}


def test_copies_of_what_is_learnt_from_are_flagged() -> None:
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(0, 256, (60, 3, 8, 8)), np.ones((1, 1, 4, 4))).astype(np.uint8)
    pack = Pack(images, images.reshape(60, -1)[:, ::97].astype(float), np.arange(60) % 2)
    learnt, left_out = pack.select(np.arange(30)), pack.select(np.arange(30, 50))
    original, _ = copy_flags(learnt, left_out, 0.1)
    assert original is not None
    asked = Pack(
        np.concatenate([images[:4, ..., ::-1], images[50:54]]),
        np.concatenate([pack.features[:4]] * 2),
        learnt.labels[:8],
    )
    assert original.flags(asked.images, asked.features).tolist() == [True] * 4 + [False] * 4


def test_resampled_and_pasted_pictures_are_as_many_as_asked_for_and_of_their_species(sources: Sources) -> None:
    counts = np.array([3, 0, 2, 1])
    for extra in (resampled(sources.learnt, counts, 0), pasted_anew(sources.learnt, counts, Colours(), 0)):
        assert np.bincount(extra.labels, minlength=4).tolist() == counts.tolist()
        assert extra.features.shape == (6, sources.learnt.features.shape[1])
    for image in resampled(sources.learnt, counts, 0).images:
        assert (sources.learnt.images == image).all((1, 2, 3)).any()
    assert not len(pasted_anew(sources.learnt, counts * 0, Colours(), 0))


def test_a_subject_is_pasted_onto_another_background_without_its_own() -> None:
    def scene(animal: int, ground: int) -> np.ndarray:
        image = np.full((3, 48, 48), ground, np.uint8)
        image[0] = ground // 2
        image[:, 16:32, 14:34] = animal
        return image

    subject, other = scene(250, 60), scene(10, 160)
    mask = subject_of(subject)
    assert mask[20:28, 18:30].min() > 0.95 > 0.05 > mask[:6].max()
    filled = background_of(other)
    assert np.abs(filled[1] - 160).max() < 12, "the other animal is gone"
    joined = pasted(subject, other).astype(int)
    assert np.abs(joined[:, 20:28, 18:30] - 250).max() < 12
    assert np.abs(joined[1, :6] - 160).max() < 12
    assert np.array_equal(pasted(subject, other, mirrored=True), pasted(subject[..., ::-1], other))


def test_a_network_learns_and_follows_from_its_seed(sources: Sources, tmp_path: Path) -> None:
    small = NetworkSettings(num_steps=30, batch_size=16, width=4)
    comparison = Comparison(num_folds=2, num_seeds=1, classifiers=(NETWORK,), network=small)
    alone = replace(sources, pools=sources.pools[:1])
    one, again = (Trainings(alone, comparison, Colours(), tmp_path / name) for name in "ab")
    cell = one.cells[0]
    first, second = (trainings._trained(cell) for trainings in (one, again))
    assert np.array_equal(first.confidence, second.confidence)
    assert (first.named == first.true).mean() > 0.5, "four species: a quarter by chance"


def planted(helped: dict[int, float], rows: tuple[str, ...]) -> dict[Cell, Named]:
    """Trainings in which a third of each species is named wrong, in filtered rows more or less by `helped`."""
    true = np.repeat(np.arange(4), 60)
    found = {}
    for fold in range(4):
        rng = np.random.default_rng(fold)
        for row in rows:
            filtered_row = row.startswith(FILTERED)
            wrong = np.array([rng.random() < 1 / 3 - (helped.get(k, 0.0) if filtered_row else 0.0) for k in true])
            named = np.where(wrong, (true + 1) % 4, true)
            found[Cell(row, PROBE, fold, 0)] = Named(true, named, np.full(len(true), 2 / 3), 10)
    return found


@pytest.mark.parametrize(
    ("helped", "verdict"),
    [(dict.fromkeys(range(4), 0.3), "gain"), ({}, "no gain"), (dict.fromkeys(range(4), -0.3), "harm")],
)
def test_a_planted_gain_is_found_and_no_gain_is_said(sources: Sources, helped: dict[int, float], verdict: str) -> None:
    alone = replace(sources, pools=sources.pools[:1])
    comparison = replace(ONE_FOLD_IN_TWO, num_folds=4)
    gained = gains(alone, comparison, planted(helped, rows_of(alone)), rare=12)
    assert gained.verdict(PROBE, rare=False) == verdict
    assert gained.num_rare == 2  # of ten and twelve photographs
    figures = {one.row: one for one in gained.rows}
    assert figures[REAL].calibration_error == pytest.approx(abs(2 / 3 - figures[REAL].named_right), abs=0.03)


def test_the_plan_leaves_out_the_species_that_lost(sources: Sources, tmp_path: Path, folder: Path) -> None:
    alone = replace(sources, pools=sources.pools[:1])
    comparison = replace(ONE_FOLD_IN_TWO, num_folds=4)
    gained = gains(alone, comparison, planted({0: 0.33, 1: 0.33, 2: -0.5}, rows_of(alone)))
    effects = {one.taxon: one.effect for one in gained.species}
    assert effects[TAXA[1]] == "helps"
    assert effects[TAXA[2]] == "hurts"
    plan = recommended(gained, alone)
    assert plan is not None
    plan.write(tmp_path / "plan.csv")
    dataset = PreparedDataset.open(folder / "prepared")
    again = read_plan(tmp_path / "plan.csv", counted_species(dataset, RANKS), RANKS)
    asked = {one.taxon: one.pictures for one in again.wanted}
    assert asked[TAXA[1]] == 12
    assert asked[TAXA[2]] == 0
    nobody = gains(alone, comparison, planted(dict.fromkeys(range(4), -0.6), rows_of(alone)))
    assert recommended(nobody, alone) is None


def test_only_an_interval_without_zero_is_a_gain_or_a_harm() -> None:
    def sign(low: float, high: float) -> str:
        return Difference("a", "b", PROBE, False, Interval((low + high) / 2, low, high)).sign

    assert [sign(0.01, 0.2), sign(-0.01, 0.2), sign(-0.2, -0.01), sign(-np.inf, np.inf)] == [
        "gain", "no gain", "harm", "no gain"
    ]  # fmt: skip


def test_the_command_writes_a_report_that_says_no_gain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real photographs of one colour a species are all that a classifier needs."""
    monkeypatch.setattr("taxadiffusion.features.open_extractor", lambda *_: Colours())
    out = folder / "report"
    sets = ("--synthetic", str(folder / "good"), "--classifier", "probe", "--folds", "2", "--seeds", "1")
    arguments = ["utility", "--real", str(folder / "prepared"), *sets, "--size-px", str(SIZE), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    document = json.loads((out / "results.json").read_text())
    assert set(document["verdicts"].values()) == {"no gain"}
    for told in (result.output, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert "No gain: nowhere do the filtered pictures beat" in " ".join(told.split())
    assert {one["row"] for one in document["rows"]} >= {REAL, RESAMPLED, PASTED, "unfiltered: good", "filtered: good"}
    assert len(document["filters"]["good"]) == 2


def test_what_is_no_synthetic_set_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset, by = PreparedDataset.open(folder / "prepared"), sight(Colours(), folder / "features", SIZE)
    with pytest.raises(DataError, match=r"no metadata\.csv"):
        read_sources(dataset, [("x", tmp_path)], by)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "asked.json").write_text("{}")
    accepted = fresh(tmp_path / "set" / "pictures", 3, ("species",), 1)
    with pytest.raises(DataError, match="chosen by photographs that judge here too; give the set itself"):
        read_sources(dataset, [("x", accepted)], by)
    with pytest.raises(SettingsError, match="two folds"):
        Comparison(num_folds=1)


def test_a_pool_gives_the_first_of_each_species(sources: Sources) -> None:
    pool = Pool("x", sources.pools[0].pack, np.array([2, 0, 20, 1]))
    assert pool.counts().tolist() == [2, 0, 12, 1]
    assert np.array_equal(
        pool.first().images[0], pool.pack.images[np.flatnonzero(pool.pack.labels == pool.first().labels[0])[0]]
    )
