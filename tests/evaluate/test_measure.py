"""Laws of a measurement: every figure is the stated formula of the features, written out here once more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.evaluation import JudgeSettings, Networks, evaluate
from taxadiffusion.evaluate.measure import TaxonGroups
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.distribution import FrechetReference, KernelReference
from taxadiffusion.metrics.frequency import bucket_of
from taxadiffusion.metrics.intervals import mean_over_taxa
from taxadiffusion.names import Lineage
from tests.coloured_dataset import NUM_TRAIN, dataset
from tests.coloured_pictures import RANKS, SPECIES, Colours, fresh, paint, write_folder

__all__ = ["dataset"]

WHOLE = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=10_000)
PER_TAXON = (7, 7)  # pictures of each species in each run


@dataclass(frozen=True)
class Seen:
    """Features and names of pictures, as an evaluation should see them."""

    features: np.ndarray
    lineages: list[Lineage]
    files: list[str]

    @classmethod
    def of(cls, files: list[str], lineages: list[Lineage]) -> Seen:
        images = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
        return cls(Colours()(images).astype(np.float64), lineages, files)

    def rows(self, taxon: Lineage) -> np.ndarray:
        return np.flatnonzero([lineage == taxon for lineage in self.lineages])

    @property
    def unit(self) -> np.ndarray:
        return np.asarray(self.features / np.linalg.norm(self.features, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def train(dataset: PreparedDataset) -> Seen:
    rows = [int(row) for row in dataset.rows("train")]
    return Seen.of([str(dataset.record(row).path) for row in rows], [dataset.lineage(row).only(RANKS) for row in rows])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("made")
    return [fresh(root / str(run), run + 1, ("species",), per_taxon=n, swap=True) for run, n in enumerate(PER_TAXON)]


@pytest.fixture(scope="module")
def made(folders: list[Path]) -> list[Seen]:
    runs = [generated_folder(folder, RANKS) for folder in folders]
    return [Seen.of([str(file) for file in run.files], list(run.lineages)) for run in runs]


@pytest.fixture(scope="module")
def scores(dataset: PreparedDataset, folders: list[Path]) -> RankScores:
    methods = {"method": [generated_folder(folder, RANKS) for folder in folders]}
    (found,) = evaluate(dataset, methods, Networks(Colours()), WHOLE).methods["method"]
    return found


def over_taxa(values: list[np.ndarray], made: list[Seen]) -> float:
    """The mean over taxa and runs of (N,) values of each run."""
    return float(np.mean([values[r][run.rows(taxon)].mean() for r, run in enumerate(made) for taxon in SPECIES]))


def test_distances_are_of_each_run_to_all_of_the_reference(scores: RankScores, train: Seen, made: list[Seen]) -> None:
    frechet = [FrechetReference(train.features)(run.features) for run in made]
    kernel = [KernelReference(train.features)(run.features) for run in made]
    assert scores.metrics["frechet_distance"].mean == pytest.approx(np.mean(frechet), rel=1e-4)
    assert scores.metrics["kernel_distance"].mean == pytest.approx(np.mean(kernel), rel=1e-4)


def test_overlap_is_prdcs_with_five_neighbours_and_every_taxon_counts_once(
    scores: RankScores, train: Seen, made: list[Seen]
) -> None:
    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    radius = np.sort(between(train.features, train.features), axis=1)[:, 5]
    found: dict[str, list[float]] = {"precision": [], "density": [], "recall": [], "coverage": []}
    for run in made:
        own_radius = np.sort(between(run.features, run.features), axis=1)[:, 5]
        distances = between(train.features, run.features)
        density = (distances < radius[:, None]).sum(0) / 5
        recalled, covered = (distances < own_radius).any(1), distances.min(1) < radius
        for taxon in SPECIES:
            found["precision"].append((density[run.rows(taxon)] > 0).mean())
            found["density"].append(density[run.rows(taxon)].mean())
            found["recall"].append(recalled[train.rows(taxon)].mean())
            found["coverage"].append(covered[train.rows(taxon)].mean())
    for metric, values in found.items():
        assert scores.metrics[metric].mean == pytest.approx(np.mean(values), abs=1e-6), metric
    assert len({round(float(np.mean(values)), 6) for values in found.values()}) == 4


def test_likeness_is_the_mean_cosine_within_a_taxon(scores: RankScores, train: Seen, made: list[Seen]) -> None:
    to_real, diversity = [np.zeros(len(run.files)) for run in made], [np.zeros(len(run.files)) for run in made]
    for r, run in enumerate(made):
        for taxon in SPECIES:
            rows = run.rows(taxon)
            to_real[r][rows] = 1 - (run.unit[rows] @ train.unit[train.rows(taxon)].T).mean(1)
            among = run.unit[rows] @ run.unit[rows].T
            diversity[r][rows] = 1 - (among.sum(1) - 1) / (len(rows) - 1)
    assert scores.metrics["distance_to_real"].mean == pytest.approx(over_taxa(to_real, made), rel=1e-3)
    assert scores.metrics["diversity"].mean == pytest.approx(over_taxa(diversity, made), rel=1e-3)


def test_the_nearest_pairs_are_shown_with_their_distances_nearest_first(
    scores: RankScores, train: Seen, made: list[Seen]
) -> None:
    every = {
        (file, train.files[int(row.argmin())]): float(row.min())
        for run in made
        for file, row in zip(run.files, np.linalg.norm(run.unit[:, None] - train.unit[None], axis=2), strict=True)
    }
    expected = sorted(every.values())
    assert len(scores.nearest) == 24 < len(expected)
    assert [pair.distance for pair in scores.nearest] == pytest.approx(expected[:24], rel=1e-3, abs=1e-6)
    home = {file: lineage for run in made for file, lineage in zip(run.files, run.lineages, strict=True)}
    for pair in scores.nearest:
        assert every[pair.generated, pair.photograph] == pytest.approx(pair.distance, rel=1e-3, abs=1e-6)
        assert home[pair.generated] == pair.taxon


def test_taxa_and_buckets_hold_what_the_images_of_each_show(scores: RankScores, train: Seen) -> None:
    assert scores.num_images == sum(PER_TAXON) * len(SPECIES)
    counts = {taxon: len(train.rows(taxon)) for taxon in SPECIES}
    assert [(t.num_photographs, t.taxon.names) for t in scores.taxa] == sorted((counts[t], t.names) for t in SPECIES)
    for taxon in scores.taxa:
        assert taxon.num_images == sum(PER_TAXON)
        right = np.concatenate(scores.right[taxon.taxon])
        assert taxon.named_right == pytest.approx(right.mean())
        confused = [(c.count, c.of) for c in scores.confusions if c.true == taxon.taxon]
        assert sum(count for count, _ in confused) == round((1 - right.mean()) * sum(PER_TAXON))
        assert all(of == sum(PER_TAXON) for _, of in confused)
    for bucket, metrics in scores.buckets.items():
        mine = [taxon for taxon in SPECIES if bucket_of(counts[taxon]) == bucket]
        expected = mean_over_taxa([scores.right[taxon] for taxon in mine], share=True)
        assert metrics["rank_accuracy"].mean == pytest.approx(expected.mean)
        heights = [t.error_height for t in scores.taxa if t.taxon in mine]
        assert metrics["error_height"].mean == pytest.approx(np.mean(heights))
    assert set(scores.buckets) == {bucket_of(count) for count in counts.values()}
    assert {t.error_height for t in scores.taxa} != {0.0}


def test_what_a_method_never_saw_it_cannot_be_near_and_counts_for_no_bucket(
    dataset: PreparedDataset, folders: list[Path], train: Seen
) -> None:
    kept = [train.files[int(row)] for taxon in SPECIES for row in train.rows(taxon)[:3]]
    methods = {name: [generated_folder(folders[0], RANKS)] for name in ("some", "all")}
    results = evaluate(dataset, methods, Networks(Colours()), WHOLE, trained_on={"some": kept})
    some, every = results.methods["some"][0], results.methods["all"][0]
    assert [t.num_photographs for t in some.taxa] == [3] * 4
    assert [t.num_photographs for t in every.taxa] == sorted(NUM_TRAIN.values())
    assert set(some.buckets) == {"1–5"}
    assert {pair.photograph for pair in some.nearest} <= set(kept)
    assert some.nearest[-1].distance > every.nearest[-1].distance
    for metric in ("frechet_distance", "rank_accuracy", "coverage", "distance_to_real"):
        assert some.metrics[metric] == every.metrics[metric]


def test_distances_of_the_reference_to_itself_end_at_zero_where_they_cannot_be_less(
    dataset: PreparedDataset, train: Seen, tmp_path: Path
) -> None:
    pictures = [(t, Image.open(file), {"seed": "0"}) for file, t in zip(train.files, train.lineages, strict=True)]
    run = generated_folder(write_folder(tmp_path / "copies", pictures), RANKS)
    (found,) = evaluate(dataset, {"m": [run]}, Networks(Colours()), WHOLE).methods["m"]
    frechet, kernel = found.metrics["frechet_distance"], found.metrics["kernel_distance"]
    assert frechet.mean == pytest.approx(0, abs=1e-3)
    assert frechet.low == pytest.approx(0, abs=1e-3)
    assert frechet.low >= 0
    assert kernel.low < 0


def test_a_run_needs_six_images_at_a_rank(dataset: PreparedDataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    species = list(SPECIES)

    def folder(number: int) -> Path:
        shown = [species[i % 4] for i in range(number)]
        return write_folder(tmp_path / str(number), [(s, paint(SPECIES[s][0], rng), {"seed": "0"}) for s in shown])

    def measured(number: int) -> RankScores:
        return evaluate(dataset, {"m": [generated_folder(folder(number), RANKS)]}, Networks(Colours()), WHOLE).methods[
            "m"
        ][0]

    assert measured(6).num_images == 6
    with pytest.raises(DataError, match="m: 5 images at rank species are too few for coverage with 5 neighbours"):
        measured(5)


def test_a_taxon_of_one_picture_has_no_diversity_and_two_have(dataset: PreparedDataset, tmp_path: Path) -> None:
    rng, species = np.random.default_rng(0), list(SPECIES)
    for name, shown in (("two", species * 2), ("one", [*species, *species[:3]])):
        pictures = [(s, paint(SPECIES[s][0], rng), {"seed": "0"}) for s in shown]
        run = generated_folder(write_folder(tmp_path / name, pictures), RANKS)
        (found,) = evaluate(dataset, {"m": [run]}, Networks(Colours()), WHOLE).methods["m"]
        assert ("diversity" in found.metrics) == (name == "two")


def test_of_a_single_taxon_images_are_left_out_in_ten_groups() -> None:
    taxon = next(iter(SPECIES))
    nothing = np.zeros((3, 1, 1), np.uint8)
    side = Side(np.zeros((25, 2), np.float32), (taxon,) * 25, ("",) * 25, (0,) * 25, lambda *_: nothing)
    groups = TaxonGroups.of(side, 0)
    assert np.bincount(groups(side)).tolist() == [3] * 5 + [2] * 5
    assert groups.shares.tolist() == [0.1] * 10
    pair = replace(side, lineages=(taxon,) * 12 + (list(SPECIES)[1],) * 13)
    of_taxa = TaxonGroups.of(pair, 0)(pair).tolist()
    assert of_taxa in ([0] * 12 + [1] * 13, [1] * 12 + [0] * 13)
