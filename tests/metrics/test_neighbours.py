"""Laws of nearest neighbours: what float32 can tell it tells, and float64 is asked about the rest alone."""

from __future__ import annotations

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.metrics import neighbours
from taxadiffusion.metrics.neighbours import nearest, overlap, radius


def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None].astype(np.float64) - y[None].astype(np.float64), axis=2)


def asked_of_float64(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The queries that `nearest` gives to float64."""
    asked: list[np.ndarray] = []
    distances = neighbours._distances

    def noting(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        asked.extend(x)
        return distances(x, y)

    monkeypatch.setattr(neighbours, "_distances", noting)
    return asked


@pytest.mark.parametrize("tile", [(7, 13), (1024, 4096)])
def test_of_features_that_lie_apart_float32_finds_the_nearest_alone(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]
) -> None:
    monkeypatch.setattr(neighbours, "_TILE", tile)
    asked = asked_of_float64(monkeypatch)
    rng = np.random.default_rng(0)
    queries, references = (rng.normal(size=(n, 24)).astype(np.float32) for n in (60, 90))
    positions, distances = nearest(queries, references)
    expected = apart(queries, references)
    assert positions.tolist() == expected.argmin(1).tolist()
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-12)
    assert asked == []


@pytest.mark.parametrize("tile", [(7, 13), (1024, 4096)])
@pytest.mark.parametrize("twin", [1, 60])  # in the same tile as its double, or in a later one
def test_queries_between_all_but_equal_references_are_asked_of_float64_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int], twin: int
) -> None:
    """Both ways round: the nearer double may come first or last."""
    monkeypatch.setattr(neighbours, "_TILE", tile)
    rng = np.random.default_rng(1)
    references = rng.normal(size=(90, 24)).astype(np.float32)
    queries = references[:60] + rng.normal(0, 0.05, (60, 24)).astype(np.float32)
    doubled = (13, 26, 3) if twin == 1 else (5, 17, 29)
    for place in doubled:
        references[place + twin] = references[place] * np.float32(1 + 2e-7)
    gaps = np.diff(np.sort(apart(queries, references), axis=1)[:, :2])[:, 0]
    crowded = set(np.flatnonzero(gaps < 1e-5).tolist())
    assert crowded >= set(doubled)
    asked = asked_of_float64(monkeypatch)
    positions, distances = nearest(queries, references)
    expected = apart(queries, references)
    assert positions.tolist() == expected.argmin(1).tolist()
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-12)
    assert len(asked) == len(crowded)


def test_float64_features_are_searched_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    queries, references = rng.normal(size=(5, 4)), rng.normal(size=(9, 4))
    for one, other in ((queries, references), (queries.astype(np.float32), references)):
        asked = asked_of_float64(monkeypatch)
        assert nearest(one, other)[0].tolist() == apart(one, other).argmin(1).tolist()
        assert len(asked) == 5
        monkeypatch.undo()


def test_an_equal_reference_is_at_distance_zero_exactly_and_none_is_an_error() -> None:
    x = np.random.default_rng(3).normal(size=(30, 64)).astype(np.float32)
    assert nearest(x, x)[1].tolist() == [0.0] * 30
    assert [len(found) for found in nearest(x[:0], x)] == [0, 0]
    with pytest.raises(DataError, match="no reference image"):
        nearest(x, x[:0])


def test_a_radius_reaches_the_kth_neighbour_itself_not_counted() -> None:
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert radius(line, 1).tolist() == [1, 1, 2, 4]
    assert radius(line, 3).tolist() == [7, 6, 4, 7]
    twins = np.array([[0.0], [0.0], [5.0]])
    assert radius(twins, 1).tolist() == [0, 0, 5]


def test_overlap_counts_pictures_within_balls_and_not_on_their_edge() -> None:
    real, generated = np.array([[0.0], [2.0], [10.0]]), np.array([[1.0], [2.0], [30.0]])
    found = overlap(real, generated, 1)  # real radii 2, 2, 8; generated 1, 1, 28
    assert found.densities.tolist() == [2, 1, 0]  # 2 lies on the edge of the first ball and of the third
    assert found.recalled.tolist() == [False, True, True]
    assert found.covered.tolist() == [True, True, False]
    known = overlap(real, generated, 1, np.array([0.5, 0.5, 100.0]))
    assert known.densities.tolist() == [1, 2, 1]


@pytest.mark.parametrize("side", ["real", "generated"])
def test_as_many_images_as_neighbours_are_too_few_and_one_more_is_enough(side: str) -> None:
    x = np.random.default_rng(4).normal(size=(9, 3))
    few = {"real": x, "generated": x, side: x[:4]}
    assert overlap(**few, num_neighbours=3).densities.shape == (len(few["generated"]),)
    with pytest.raises(DataError, match=rf"with 4 neighbours need 5 or more {side} images, got 4"):
        overlap(**few, num_neighbours=4)
