"""Laws of reconstructed ancestors: they are generalised least squares, and draws scatter as the variance says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy.brownian import Descent, between, posterior, unit_descent

RANKS = ("family", "genus", "species")


def tip(number: int) -> Lineage:
    return Lineage.of({"family": "F", "genus": f"G{number}"})


def random_descent(rng: np.random.Generator, size: int) -> Descent:
    """Any tree of so many tips, some nodes with three branches or one."""
    parents, lengths = [-1], [0.0]
    open_nodes = [0]
    while len(open_nodes) < size:
        node = open_nodes.pop(int(rng.integers(len(open_nodes))))
        for _ in range(int(rng.integers(1 if len(parents) > 1 else 2, 4))):
            open_nodes.append(len(parents))
            parents.append(node)
            lengths.append(float(rng.uniform(0.1, 2.0)))
    nodes = sorted(open_nodes)
    return Descent(tuple(parents), tuple(lengths), tuple(nodes), tuple(tip(number) for number in range(len(nodes))))


def covariance(descent: Descent) -> np.ndarray:
    """(S, S): how long two tips have a way in common, from the ancestor down."""

    def way(node: int) -> set[int]:
        return set() if node == 0 else {node} | way(descent.parents[node])

    ways = [way(node) for node in descent.tip_nodes]
    return np.array([[sum(descent.lengths[n] for n in one & other) for other in ways] for one in ways])


@pytest.mark.parametrize("seed", range(12))
def test_mean_and_variance_are_those_of_generalised_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    descent = random_descent(rng, 3 + seed)
    found = posterior(descent)
    inverse = np.linalg.inv(covariance(descent))
    ones = np.ones(len(descent.tips))
    assert found.variance == pytest.approx(1 / (ones @ inverse @ ones))
    assert np.allclose(found.weights, inverse @ ones / (ones @ inverse @ ones))
    # the contrasts whiten: their sum of squares is the residual of least squares, whatever the values
    values = rng.normal(size=(len(ones), 3))
    residual = values - found.weights @ values
    assert np.allclose((found.contrasts @ values).T @ (found.contrasts @ values), residual.T @ inverse @ residual)


def test_draws_scatter_about_the_mean_as_the_variance_says() -> None:
    rng = np.random.default_rng(0)
    found = posterior(random_descent(rng, 6))
    values = rng.normal(size=len(found.weights))
    draws = np.array([found.draw(rng) @ values for _ in range(20_000)])
    rate = np.mean((found.contrasts @ values) ** 2)
    assert draws.mean() == pytest.approx(found.weights @ values, abs=4 * draws.std() / np.sqrt(len(draws)))
    assert draws.var() == pytest.approx(found.variance * rate, rel=0.05)
    assert found.draw(rng).sum() == pytest.approx(1.0)


def test_a_unit_tree_has_a_branch_for_each_rank_it_crosses() -> None:
    names = [("A", "a"), ("A", "b"), ("A", "c"), ("B", "d")]
    species = [Lineage.of({"family": "F", "genus": genus, "species": one}) for genus, one in names]
    other = Lineage.of({"family": "X", "genus": "Y", "species": "z"})
    inner = [one.truncated(rank) for one in species for rank in ("family", "genus")]
    found = posterior(unit_descent(species[0].truncated("family"), [*species, *inner, other], RANKS))
    # genus A: mean of three at 1/3 + 1; genus B: one at 2
    share = (1 / (4 / 3)) / (1 / (4 / 3) + 1 / 2)
    assert np.allclose(found.weights, [share / 3] * 3 + [1 - share])
    holed = Lineage.of({"family": "F", "species": "lost"})
    descent = unit_descent(Lineage.of({"family": "F"}), [*species, holed], RANKS)
    assert descent.lengths[descent.tip_nodes[descent.tips.index(holed)]] == 2.0
    with pytest.raises(DataError, match="has no descendants"):
        unit_descent(species[0], species, RANKS)


def test_memory_of_a_large_tree_is_a_matrix_and_not_one_for_each_tip() -> None:
    size = 400
    star = Descent((-1, *[0] * size), (0.0, *[1.0] * size), tuple(range(1, size + 1)), tuple(map(tip, range(size))))
    tracemalloc.start()
    found = posterior(star)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.allclose(found.weights, 1 / size)
    assert peak < 6 * size * size * 8


def test_one_descendant_leaves_no_doubt_and_no_distance_is_an_error() -> None:
    alone = posterior(Descent((-1, 0), (0.0, 1.0), (1,), (tip(0),)))
    assert np.array_equal(alone.draw(np.random.default_rng(0)), [1.0])
    for lengths, message in (
        ((0.0, 0.0, 0.0), "no length"),
        ((0.0, -1.0, 1.0), "negative"),
        ((0.0, np.nan, 1.0), "no n"),
    ):
        with pytest.raises(DataError, match=message):
            posterior(Descent((-1, 0, 0), lengths, (1, 2), (tip(0), tip(1))))


def test_the_way_between_two_taxa_leads_through_their_ancestor() -> None:
    a, b, c = tip(0), tip(1), tip(2)
    ancestor = ((a, 0.5), (b, 0.25), (c, 0.25))
    way = between(a, b, ancestor, 5)
    assert way[0] == ((a, 1.0),)
    assert way[2] == ancestor
    assert way[4] == ((b, 1.0),)
    assert dict(way[1]) == {a: 0.75, b: 0.125, c: 0.125}
    assert all(sum(weight for _, weight in one) == pytest.approx(1.0) for one in way)
