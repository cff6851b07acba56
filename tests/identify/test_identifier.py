"""Laws of what is made of walks: probabilities, doubts, placements; on photographs whose best denoiser is known."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.identify.calibration import Calibration, fit_calibration
from taxadiffusion.identify.doubts import doubts, write_doubts
from taxadiffusion.identify.held_out import calibrated, drawn_rows, judged, right_at
from taxadiffusion.identify.identifier import Identifier
from taxadiffusion.identify.placements import moves, preferences, read_classification
from taxadiffusion.identify.walk import Evidence, WalkSettings
from taxadiffusion.names import Lineage
from tests.identify.analytic import Photographs, adapter_of, species
from tests.taxa import taxonomy_of

RANKS = ("order", "family", "genus", "species")
SPECIES = species((1, 2, 2, 3))
QUICK = WalkSettings(draws=(4, 12), beam=2)


def identifier_of(settings: WalkSettings = QUICK, step: float = 0.5) -> Identifier:
    return Identifier(adapter_of(SPECIES, taxonomy_of(SPECIES, RANKS), step), settings)


def photographs(identifier: Identifier, num_each: int, labels: Any = None) -> Any:
    world = identifier.adapter.denoiser.world  # type: ignore[attr-defined]
    return Photographs(world, SPECIES * num_each, labels)


def test_probabilities_are_as_often_right_as_they_say(tmp_path: Path) -> None:
    """Fitted on some photographs, read on others."""
    identifier = identifier_of(step=0.1)
    dataset = photographs(identifier, 14)
    found = list(judged(identifier, dataset, drawn_rows(dataset, "test", None), tmp_path / "walks.jsonl"))
    half = len(found) // 2
    calibration = calibrated(identifier, found[:half], "half of them")
    said, right = [], []
    for one in found[half:]:
        evidence = list(zip(RANKS, one.evidence, strict=True))
        probabilities = calibration.probabilities(evidence)
        assert probabilities == sorted(probabilities, reverse=True), "a finer name is never the surer one"
        said.append(probabilities[-1])
        right.append(right_at(identifier, one)["species"])
    said_, right_ = np.array(said), np.array(right)
    assert 0.3 < right_.mean() < 0.98, "a set where nothing is wrong shows nothing"
    error = np.sqrt((said_ * (1 - said_)).sum()) / len(said_)
    assert abs(said_.mean() - right_.mean()) < 4 * error + 0.05
    assert said_[right_].mean() > said_[~right_].mean() + 0.05


def test_evidence_that_never_differs_has_no_weight() -> None:
    """All walks begin among the same orders, so their number is a constant; its deviation is not exactly 0."""
    rng = np.random.default_rng(0)
    seen = [Evidence(1, float(errors), float(errors) / 5, 32, 6) for errors in rng.normal(2, 2, 60)]
    found = fit_calibration({"order": [(one, one.standard_errors > rng.normal()) for one in seen]})["order"]
    assert abs(found.intercept) < 100
    assert np.abs(found.coefficients).max() < 100
    assert found.probability(seen[0]) == pytest.approx(found.probability(replace(seen[0], num_candidates=7)), abs=0.05)


def test_an_interrupted_run_goes_on_and_results_of_another_are_refused(tmp_path: Path) -> None:
    identifier, journal = identifier_of(), tmp_path / "walks.jsonl"
    dataset = photographs(identifier, 1)
    rows = drawn_rows(dataset, "test", None)
    first = [one for one, _ in zip(judged(identifier, dataset, rows, journal), range(3), strict=False)]
    with journal.open("a") as stream:
        stream.write('{"row": 7, "na')  # killed while it wrote
    seen = len(dataset.looked_at)
    again = list(judged(identifier, dataset, rows, journal))
    assert again[:3] == first
    assert len(dataset.looked_at) == len(rows) + (seen - 4), "three or four were there already"
    assert sorted(one.row for one in again) == sorted(rows)
    assert list(judged(identifier, dataset, rows, journal)) == again
    other = identifier_of(WalkSettings(draws=(4, 16), beam=2))
    with pytest.raises(SettingsError, match="draws: 4-12 there, 4-16 now"):
        list(judged(other, dataset, rows, journal))
    assert drawn_rows(dataset, "test", 5) == rows[:5], "a larger number adds to a smaller"


def test_a_calibration_is_of_its_model_and_its_options(tmp_path: Path) -> None:
    identifier, file = identifier_of(), tmp_path / "identify.json"
    dataset = photographs(identifier, 2)
    found = list(judged(identifier, dataset, drawn_rows(dataset, "test", None), tmp_path / "walks.jsonl"))
    calibration = calibrated(identifier, found, "all")
    assert "order" not in calibration.ranks, "the only order has no rival: nothing is asked there"
    calibration.write(file)
    assert Calibration.read(file) == calibration
    calibration.require(file, "a" * 64, identifier.way)
    with pytest.raises(CheckpointError, match="another model"):
        calibration.require(file, "b" * 64, identifier.way)
    with pytest.raises(CheckpointError, match="beam: 2 there, 3 now"):
        calibration.require(file, "a" * 64, {**identifier.way, "beam": "3"})
    file.write_text(file.read_text().replace('"family"', '"famly"'))
    with pytest.raises(CheckpointError, match="no calibration"):
        Calibration.read(file)
    answer = Identifier(identifier.adapter, QUICK, calibration=calibration)(dataset.pictures[0])
    for least in (0.0, 0.5, 1.0):
        carried = answer.carried(least, 3.0)
        assert answer.lineage.truncated(carried.rank or "order").names[: len(carried.names)] == carried.names
        assert all((named.probability or 0) >= least for named in answer.names[: len(carried.names)])
    assert answer.carried(0.0, 3.0) == answer.lineage


def test_planted_label_errors_are_found(tmp_path: Path) -> None:
    identifier = identifier_of()
    dataset = photographs(identifier, 10)
    rows = drawn_rows(dataset, "test", None)
    rng = np.random.default_rng(0)
    tips = identifier.adapter.taxonomy.at_rank("species")
    planted = {}
    for row in rows[:6]:  # 5 %
        others = [tip for tip in tips if identifier.tree.lineage(tip) != dataset.lineage(row)]
        planted[row] = int(rng.choice(others))
    found = list(doubts(identifier, dataset, rows, tmp_path / "doubts.jsonl", labels=planted))
    doubted = {one.row for one in found if one.standard_errors > 3}
    assert len(found) == len(rows)
    assert len(doubted & set(planted)) >= 0.5 * len(planted)
    assert len(doubted & set(planted)) >= 0.8 * len(doubted)
    write_doubts(tmp_path / "doubts.csv", identifier, dataset, found)
    with (tmp_path / "doubts.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == len(rows)
    errors = [float(row["standard_errors"]) for row in table]
    assert errors == sorted(errors, reverse=True)
    assert {f"{row}.png" for row in doubted} == {row["file"] for row in table[: len(doubted)]}


def moved_genus() -> tuple[list[Lineage], Lineage]:
    """The species with one genus in the other family, and that genus in its true place."""
    genus = SPECIES[0].truncated("genus")
    elsewhere = next(one.get("family") for one in SPECIES if one.get("family") != genus.get("family"))
    wrong = [
        Lineage.of({**dict(one.names), "family": elsewhere}) if one.truncated("genus") == genus else one
        for one in SPECIES
    ]
    return wrong, genus


@pytest.mark.parametrize("labels_are_true", [True, False])
def test_a_genus_moved_to_another_family_is_preferred_where_it_belongs(tmp_path: Path, labels_are_true: bool) -> None:
    wrong, genus = moved_genus()
    own, other = (SPECIES, wrong) if labels_are_true else (wrong, SPECIES)
    table = tmp_path / "other.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, RANKS)
        writer.writeheader()
        writer.writerows([dict(one.names) for one in other])
    identifier = identifier_of()
    dataset = photographs(identifier, 6, own * 6)
    moved = moves(own, read_classification(table), RANKS)
    assert set(moved) == {one for one in own if one.get("genus") == genus.get("genus")}
    left_out: Counter[str] = Counter()
    (found,) = preferences(identifier, dataset, dataset.rows("test").tolist(), moved, left_out=left_out)
    assert found.move.taxon == genus.get("genus")
    assert (found.num_images, found.num_species) == (18, 3)
    assert found.verdict == ("own" if labels_are_true else "other")
    assert found.learnt == labels_are_true
    assert not left_out


def test_a_genus_moved_to_a_family_of_another_order_is_what_moved() -> None:
    """Not its old family, which stays where it was; and a family that moved with all in it is."""
    trees = species((2, 2, 2, 2))
    genus, order = trees[0].truncated("genus"), trees[-1].truncated("family")
    elsewhere = [
        Lineage((*order.names, *one.only(("genus", "species")).names)) if one.truncated("genus") == genus else one
        for one in trees
    ]
    found = moves(trees, elsewhere, RANKS)
    assert {move.taxon for move in found.values()} == {genus.label}
    assert {(move.own, move.other) for move in found.values()} == {(genus.truncated("order"), order.truncated("order"))}
    family = trees[0].truncated("family")
    elsewhere = [
        Lineage((*order.truncated("order").names, *one.names[1:])) if one.truncated("family") == family else one
        for one in trees
    ]
    assert {move.taxon for move in moves(trees, elsewhere, RANKS).values()} == {family.label}

    identifier = Identifier(adapter_of(trees, taxonomy_of(trees, RANKS)), QUICK)
    dataset = Photographs(identifier.adapter.denoiser.world, trees)  # type: ignore[attr-defined]
    (preferred,) = preferences(identifier, dataset, dataset.rows("test").tolist(), found)  # type: ignore[arg-type]
    assert preferred.learnt, "the model learnt the genus two ranks below the place that was asked for"
