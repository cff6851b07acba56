"""Laws of results: who is best and compared with whom, and that JSON says what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.evaluation import JudgeSettings, Networks, evaluate
from taxadiffusion.evaluate.pick import differences, distance_differences, pick
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.evaluate.scores import RankScores, TaxonScores
from taxadiffusion.metrics.frequency import bucket_of
from taxadiffusion.metrics.intervals import (
    Interval,
    Replicates,
    difference_of_replicates,
    difference_over_taxa,
    mean_over_taxa,
)
from taxadiffusion.names import Lineage
from tests.coloured_dataset import dataset
from tests.coloured_pictures import RANKS, Colours, fresh

__all__ = ["dataset"]

UNSAID = [one.name for one in fields(TaxonScores)]
A, B, C = (Lineage.of({"genus": "Ruber", "species": name}) for name in "abc")
Right = Mapping[Lineage, Sequence[Sequence[float]]]


def scores(right: Right, rank: str = "species", distance: float | None = None) -> RankScores:
    runs = {taxon: tuple(np.array(run) for run in of_runs) for taxon, of_runs in right.items()}
    frechet = None
    if distance is not None:
        frechet = Replicates(np.array([distance]), distance + np.array([[0.5, -0.25, 0.0]]), np.full(3, 1 / 3))
    return RankScores(
        rank=rank,
        num_images=sum(len(run) for of_runs in runs.values() for run in of_runs),
        metrics={"rank_accuracy": mean_over_taxa(list(runs.values()), share=True)},
        buckets={},
        taxa=tuple(TaxonScores(**dict.fromkeys(UNSAID, 0) | {"taxon": taxon}) for taxon in runs),  # type: ignore[arg-type]
        confusions=(),
        nearest=(),
        right=runs,
        frechet=frechet,
    )


GOOD: Right = {A: [[1, 1]], B: [[1, 0]], C: [[1, 1]]}
POOR: Right = {C: [[0, 1]], A: [[1, 0]], B: [[0, 0]]}  # the same taxa, met in another order


def test_methods_are_compared_at_ranks_and_taxa_that_both_show() -> None:
    methods = {
        "coarse": (scores({A: [[1, 1]], B: [[1, 1]]}, "genus"),),
        "poor": (scores(POOR, "genus"), scores(POOR)),
        "good": (scores(GOOD),),
    }
    picked = pick(methods, "good")
    assert picked.compared_at == pytest.approx(5 / 6)
    found = differences(methods, picked)
    assert list(found) == ["poor"]  # "coarse" is easier, and the best has no genera
    assert list(found["poor"]) == ["species"]
    pairs = [[np.array(run) for run in side[taxon]] for side in (GOOD, POOR) for taxon in (A, B, C)]
    expected = difference_over_taxa([[run] for (run,) in pairs[:3]], [[run] for (run,) in pairs[3:]], share=True)
    assert found["poor"]["species"] == expected
    assert expected.mean == pytest.approx(5 / 6 - 1 / 3)


def test_methods_that_show_other_taxa_are_not_compared() -> None:
    for other in ({A: [[0, 0]], B: [[0, 0]]}, {**POOR, A.truncated("genus"): [[0, 0]]}):
        methods = {"good": (scores(GOOD, distance=1.0),), "other": (scores(other, distance=2.0),)}
        assert differences(methods, pick(methods, "good")) == {}
        assert distance_differences(methods, pick(methods, "good")) == {}


def test_a_difference_of_distances_is_the_bests_minus_the_others() -> None:
    good, poor = scores(GOOD, distance=3.0), scores(POOR, distance=5.0)
    both = {"poor": (poor,), "good": (good,)}
    found = distance_differences(both, pick(both, "good"))
    assert good.frechet is not None
    assert poor.frechet is not None
    assert found == {"poor": {"species": difference_of_replicates(good.frechet, poor.frechet)}}
    assert found["poor"]["species"].mean == -2
    for methods in ({"good": (scores(GOOD),), "poor": (poor,)}, {"good": (good,), "poor": (scores(POOR),)}):
        assert distance_differences(methods, pick(methods, "good")) == {}


def test_json_holds_every_figure_and_what_lies_behind_it(dataset: PreparedDataset, tmp_path: Path) -> None:
    methods = {
        name: [generated_folder(fresh(tmp_path / name, 1, RANKS[1:], swap=name == "swapped"), RANKS)]
        for name in ("right", "swapped")
    }
    results = evaluate(
        dataset, methods, Networks(Colours()), JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=7)
    )
    document = json.loads(json.dumps(results.to_json()))
    assert document["schema"] == 1
    assert document["left_out"] == dict(results.left_out)
    assert document["protocol"]["ranks"] == list(RANKS)
    assert document["protocol"]["max_reference_per_taxon"] == 7
    assert document["protocol"]["dataset_hash"] == dataset.content_hash
    named = {**results.methods, "real_test_photographs": results.real}
    assert set(document["table1"]) == set(document["details"]) == set(named)
    for method, ranks in named.items():
        assert list(document["table1"][method]) == [found.rank for found in ranks]
        for found in ranks:
            table, details = document["table1"][method][found.rank], document["details"][method][found.rank]
            assert table == {name: interval.to_json() for name, interval in found.metrics.items()}
            assert details["num_images"] == found.num_images
            assert {b: set(of) for b, of in details["buckets"].items()} == {
                b: set(of) for b, of in found.buckets.items()
            }
            for row, taxon in zip(details["taxa"], found.taxa, strict=True):
                assert row["taxon"] == dict(taxon.taxon.names)
                assert (row["label"], row["num_images"]) == (taxon.taxon.label, taxon.num_images)
                assert row["bucket"] == bucket_of(taxon.num_photographs)
            shown = [(c["true"], c["predicted"], c["count"], c["of"]) for c in details["confusions"]]
            assert shown == [(c.true.label, c.predicted.label, c.count, c.of) for c in found.confusions]
            assert [p["label"] for p in details["nearest"]] == [p.taxon.label for p in found.nearest]
    compared = document["differences"]
    assert compared["from"] == results.best() == "right"
    for name, found_in in (("rank_accuracy", results.differences), ("frechet_distance", results.distance_differences)):
        assert set(compared[name]) == {"swapped"}
        assert set(compared[name]["swapped"]) == {"genus", "species"}
        for rank, interval in found_in["swapped"].items():
            assert compared[name]["swapped"][rank] == interval.to_json()
    assert results.methods["swapped"][-1].confusions
    assert set(results.at_finest()) == {"right", "swapped"}
    unjudged = replace(results.methods["right"][-1], metrics={})  # of taxa that no judge knows
    none_right = replace(results.methods["right"][-1], metrics={"rank_accuracy": Interval(0.0, 0.0, 0.5)})
    assert replace(results, methods={"unjudged": (unjudged,), "none right": (none_right,)}).best() == "none right"
