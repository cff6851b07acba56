"""Laws of what is measured in pairs: which pictures LPIPS is asked about, what an alignment is, and of references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.evaluation import JudgeSettings, Networks, evaluate
from taxadiffusion.evaluate.pictures import generated_folder
from tests.coloured_dataset import NUM_TEST, dataset, photographed
from tests.coloured_pictures import RANKS, SPECIES, ColourNames, Colours, fresh

__all__ = ["dataset"]

OF_SETS = {"frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"}


class Difference:
    """Instead of LPIPS: how far two pictures differ, and which were asked about."""

    name = "difference"
    content_hash = "d" * 64

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []

    def __call__(self, images: np.ndarray, others: np.ndarray) -> np.ndarray:
        self.asked += [(one.tobytes(), other.tobytes()) for one, other in zip(images, others, strict=True)]
        return np.abs(images.astype(np.float64) - others).mean((1, 2, 3))


def pixels(file: str | Path) -> np.ndarray:
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def test_pictures_are_paired_with_another_of_their_taxon_and_run_and_with_a_photograph_of_it(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    """Each picture with the next, the last with the first, so each is seen twice; never with itself."""
    folders = [fresh(tmp_path / str(run), run + 1, ("species",), per_taxon=4) for run in range(2)]
    runs = [generated_folder(folder, RANKS) for folder in folders]
    difference = Difference()
    networks = Networks(Colours(), perceptual=difference)  # type: ignore[arg-type]
    found = evaluate(dataset, {"method": runs}, networks, JudgeSettings(RANKS, size_px=32)).methods["method"][0].metrics
    home = {
        pixels(file).tobytes(): (run, lineage)
        for run, pictures in enumerate(runs)
        for file, lineage in zip(pictures.files, pictures.lineages, strict=True)
    }
    photographs = {
        pixels(dataset.record(int(row)).path).tobytes(): dataset.lineage(int(row)).only(RANKS)
        for row in dataset.rows("train")
    }
    to_real = [(one, other) for one, other in difference.asked if one in home and other in photographs]
    among = [(one, other) for one, other in difference.asked if one in home and other in home]
    assert len(to_real) == len(among) == len(home) == 2 * 4 * len(SPECIES)
    assert all(photographs[other] == home[one][1] for one, other in to_real)
    assert all(home[one] == home[other] and one != other for one, other in among)
    assert {one for one, _ in among} == {other for _, other in among} == set(home)
    distances = [
        np.abs(np.frombuffer(a, np.uint8).astype(np.float64) - np.frombuffer(b, np.uint8)).mean() for a, b in among
    ]
    assert found["lpips_diversity"].mean == pytest.approx(np.mean(distances))
    assert found["lpips_diversity"].mean > 5


@pytest.mark.parametrize("content_hash", ["a" * 64, "n" * 64])
def test_alignment_is_a_hundred_times_the_cosine_of_picture_and_own_name(
    dataset: PreparedDataset, tmp_path: Path, content_hash: str
) -> None:
    """By its own network's features, whichever hash that has."""
    names, pictures = ColourNames(), generated_folder(fresh(tmp_path / "made", 1, ("species",)), RANKS)
    names.content_hash = content_hash
    networks = Networks(Colours(), alignment=names)  # type: ignore[arg-type]
    found = evaluate(dataset, {"method": [pictures]}, networks, JudgeSettings(RANKS, size_px=32)).methods["method"][0]
    images = names(np.stack([pixels(file) for file in pictures.files]))
    cosines = (images * names.texts(pictures.lineages)).sum(1)
    assert found.metrics["alignment"].mean == pytest.approx(100 * cosines.mean(), rel=1e-4)
    assert found.metrics["alignment"].mean > 60


@pytest.mark.parametrize("most", [7, 8, 9, 50])
def test_unseen_photographs_are_measured_up_to_as_many_of_a_taxon_as_the_reference_holds(
    dataset: PreparedDataset, tmp_path: Path, most: int
) -> None:
    pictures = generated_folder(fresh(tmp_path / "made", 1, ("species",)), RANKS)
    settings = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=most)
    real = evaluate(dataset, {"method": [pictures]}, Networks(Colours()), settings).real
    for scores, rank in zip(real, RANKS, strict=True):
        assert set(scores.metrics) >= OF_SETS
        taxa = {species.truncated(rank): 0 for species in SPECIES}
        for species in SPECIES:
            taxa[species.truncated(rank)] += NUM_TEST
        assert {s.taxon: s.num_images for s in scores.taxa} == {taxon: min(most, n) for taxon, n in taxa.items()}


def test_unseen_photographs_that_are_too_few_have_no_figures_of_sets(tmp_path: Path) -> None:
    pictures = generated_folder(fresh(tmp_path / "made", 1, ("species",)), RANKS)
    for number, enough in ((1, False), (2, True)):  # four photographs, of which five neighbours cannot be told; eight
        few = photographed(tmp_path / str(number), number)
        (*_, real) = evaluate(few, {"method": [pictures]}, Networks(Colours()), JudgeSettings(RANKS, size_px=32)).real
        assert real.num_images == 4 * number
        assert "rank_accuracy" in real.metrics
        assert (set(real.metrics) & OF_SETS == OF_SETS) == enough
        assert enough or not set(real.metrics) & OF_SETS


def test_the_reference_shows_every_taxon_as_often_as_its_bound_allows(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Of 30, 16, 12 and 10 photographs, bounded by 10, the mixture is that of pictures that show all alike, else not.
    Measured on one set of pictures, so only the reference differs."""
    pictures = generated_folder(fresh(tmp_path / "made", 1, ("species",), per_taxon=40), RANKS)

    def distance(most: int) -> float:
        settings = JudgeSettings(RANKS, size_px=32, max_reference_per_taxon=most)
        found = evaluate(dataset, {"method": [pictures]}, Networks(Colours()), settings)
        return found.methods["method"][0].metrics["frechet_distance"].mean

    assert 2 * distance(10) < distance(10_000) == distance(30)
