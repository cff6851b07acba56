"""Laws of the intervals: they hold the truth as often as they say, for few trainings and few taxa."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.coverage import Cell, cells, frechet

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.intervals import (
    MAX_GROUPS,
    Interval,
    Replicates,
    difference_of_means,
    difference_of_replicates,
    difference_over_taxa,
    groups_of_taxa,
    mean_of_means,
    mean_over_taxa,
    of_replicates,
)

# With a true coverage of 0.93, 200 trials show less than this once in a thousand times.
LEAST_OF_200 = 0.87


def overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


def replicates(means: np.ndarray, seed: int = 0) -> Replicates:
    """Of a statistic that is the mean of (K, R) values."""
    group = groups_of_taxa(len(means), seed)
    without = [means[group != g].mean(0) for g in range(group.max() + 1)]
    return Replicates(means.mean(0), np.array(without).T, np.bincount(group) / len(means))


@pytest.fixture(scope="module")
def simulated() -> list[Cell]:
    return list(cells(200, num_taxa=(6, 22), num_runs=(2, 3)))


def test_intervals_hold_the_truth_for_any_split_of_the_variance(simulated: list[Cell]) -> None:
    worst = min(simulated, key=lambda cell: cell.coverage)
    assert worst.coverage >= LEAST_OF_200, worst
    assert np.mean([cell.coverage for cell in simulated]) >= 0.95


def test_intervals_are_not_bought_with_boundless_width(simulated: list[Cell]) -> None:
    of_three = [cell for cell in simulated if cell.num_runs == 3 and cell.needed_width]
    assert np.median([cell.mean_width / cell.needed_width for cell in of_three]) < 2.5


def test_interval_of_a_frechet_distance_holds_its_mean() -> None:
    for split in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert frechet(6, 3, split, trials=60).coverage >= 0.85  # 0.93 or more shows less once in 100 times


def test_jackknife_of_a_mean_is_students_interval_over_taxa_and_trainings() -> None:
    means = np.random.default_rng(0).normal(size=(7, 3))
    values = [[np.array([value]) for value in taxon] for taxon in means]
    expected, found = mean_over_taxa(values), of_replicates(replicates(means))
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_one_training_has_students_interval_over_taxa() -> None:
    from scipy.stats import ttest_1samp

    means = np.random.default_rng(1).normal(size=(9, 1))
    interval = mean_over_taxa([[np.array([value])] for value in means[:, 0]])
    theirs = ttest_1samp(means[:, 0], 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))


def test_groups_of_unequal_size_count_by_their_taxa() -> None:
    means = np.random.default_rng(2).normal(size=(47, 1))  # 7 groups of five, 3 of four
    of_groups = of_replicates(replicates(means))
    of_taxa = mean_over_taxa([[np.array([value])] for value in means[:, 0]])
    assert of_groups.mean == pytest.approx(of_taxa.mean)
    assert 0.6 < (of_groups.high - of_groups.low) / (of_taxa.high - of_taxa.low) < 1.6
    assert np.bincount(groups_of_taxa(1000, 3)).tolist() == [100] * MAX_GROUPS
    assert groups_of_taxa(5, 3).tolist() == [0, 1, 2, 3, 4]


def test_trainings_that_disagree_widen_by_students_t() -> None:
    steady = [[np.full(5, 0.5) for _ in range(3)] for _ in range(4)]
    disagreeing = [[np.full(5, mean) for mean in (0.4, 0.5, 0.6)] for _ in range(4)]
    assert mean_over_taxa(steady) == Interval(0.5, 0.5, 0.5)
    interval = mean_over_taxa(disagreeing)
    assert interval.high - interval.mean == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)
    distance = of_replicates(replicates(np.array([[0.4, 0.5, 0.6]] * 4)))
    assert distance.high - distance.mean == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)


def test_a_share_stays_within_its_bounds_and_none_right_is_not_certainty() -> None:
    none = mean_over_taxa([[np.zeros(6)] for _ in range(22)], share=True)
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 22))  # Clopper and Pearson, a taxon as one image
    few = mean_over_taxa([[np.array([1.0] + [0.0] * 5)], *[[np.zeros(6)] for _ in range(21)]], share=True)
    assert 0 <= few.low < few.mean < few.high < 0.2
    every = mean_over_taxa([[np.ones(6)] for _ in range(22)], share=True)
    assert every.high == 1
    assert every.low == pytest.approx(0.025 ** (1 / 22))


def test_a_taxon_counts_once_however_many_images_it_has_and_an_empty_one_is_refused() -> None:
    assert mean_over_taxa([[np.zeros(1)], [np.ones(99)]]).mean == 0.5
    with pytest.raises(DataError, match="one or more values for every taxon in every run"):
        mean_over_taxa([[np.ones(3)], [np.array([])]])


def test_the_interval_of_one_taxon_is_over_its_images() -> None:
    from scipy.stats import binomtest, ttest_1samp

    values = np.random.default_rng(5).normal(size=12)
    interval, theirs = mean_over_taxa([[values]]), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))
    none, exact = mean_over_taxa([[np.zeros(9)]], share=True), binomtest(0, 9).proportion_ci()
    assert (none.low, none.high) == pytest.approx((exact.low, exact.high))
    alone = mean_over_taxa([[np.array([3.0])]])
    assert not alone.known
    assert alone.to_json() == {"mean": 3.0, "low": None, "high": None}


def test_a_difference_over_the_same_taxa_is_surer_than_two_intervals_apart() -> None:
    rng = np.random.default_rng(0)
    ease = rng.uniform(0, 0.8, size=20)  # some taxa are hard for both
    better = [[(rng.random(40) < e + 0.15).astype(float)] for e in ease]
    worse = [[(rng.random(40) < e).astype(float)] for e in ease]
    difference = difference_over_taxa(better, worse, share=True)
    assert overlap(mean_over_taxa(better, share=True), mean_over_taxa(worse, share=True))
    assert 0 < difference.low < difference.mean < difference.high
    assert difference.mean == pytest.approx(np.mean(better) - np.mean(worse))
    with pytest.raises(DataError, match="the same taxa on both sides; there are 20 and 19"):
        difference_over_taxa(better, worse[1:])


def test_two_methods_that_are_never_right_may_differ_all_the_same() -> None:
    none = [[np.zeros(6)] for _ in range(22)]
    difference = difference_over_taxa(none, none, share=True)
    assert difference.mean == 0
    assert difference.low == pytest.approx(-(1 - 0.025 ** (1 / 22)))
    assert difference.high == pytest.approx(1 - 0.025 ** (1 / 22))


def test_a_difference_of_distances_pairs_taxa_and_not_trainings() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 5, (12, 1))
    ours, theirs = (hard + shift + rng.normal(0, 0.1, (12, 3)) for shift in (0.0, 1.0))
    difference = difference_of_replicates(replicates(ours), replicates(theirs))
    assert difference.mean == pytest.approx(-1, abs=0.1)
    assert difference.high < -0.7
    assert overlap(of_replicates(replicates(ours)), of_replicates(replicates(theirs)))
    with pytest.raises(DataError, match="same taxa"):
        difference_of_replicates(replicates(ours), replicates(theirs[:11]))


# The formulas themselves, written out once more


def t(degrees: int, confidence: float = 0.95) -> float:
    from scipy.stats import t as students

    return float(students.ppf((1 + confidence) / 2, degrees))


def margin_of(interval: Interval) -> float:
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low)
    return interval.high - interval.mean


def tables(seed: int, num_taxa: int, num_runs: int, shares: bool = False) -> list[list[np.ndarray]]:
    """Values of taxon k in run r, of one to four images."""
    rng = np.random.default_rng(seed)
    values = [[rng.normal(k + r / 2, 1, size=1 + (k + r) % 4) for r in range(num_runs)] for k in range(num_taxa)]
    return [[(run > num_taxa / 2).astype(float) for run in runs] for runs in values] if shares else values


def means_of(values: list[list[np.ndarray]]) -> np.ndarray:
    return np.array([[run.mean() for run in runs] for runs in values])


@pytest.mark.parametrize("num_runs", [2, 3])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_half_width_joins_students_over_taxa_and_over_trainings(confidence: float, num_runs: int) -> None:
    values = tables(0, 6, num_runs)
    means = means_of(values)
    taxa, runs = means.mean(1), means.mean(0)
    expected = np.hypot(
        t(5, confidence) * taxa.std(ddof=1) / np.sqrt(6),
        t(num_runs - 1, confidence) * runs.std(ddof=1) / np.sqrt(num_runs),
    )
    found = mean_over_taxa(values, confidence=confidence)
    assert found.mean == pytest.approx(means.mean())
    assert margin_of(found) == pytest.approx(expected)


@pytest.mark.parametrize("num_runs", [1, 2, 3])
def test_the_interval_of_one_taxon_joins_images_and_trainings(num_runs: int) -> None:
    rng = np.random.default_rng(7)
    runs = [rng.normal(r, 1, size=5 + r) for r in range(num_runs)]
    number = sum(map(len, runs))
    images = np.sqrt(sum(run.var(ddof=1) / len(run) for run in runs)) / num_runs
    margin = t(number - num_runs) * images
    if num_runs > 1:
        margin = np.hypot(margin, t(num_runs - 1) * np.std([r.mean() for r in runs], ddof=1) / np.sqrt(num_runs))
    found = mean_over_taxa([runs])
    assert found.mean == pytest.approx(np.mean([run.mean() for run in runs]))
    assert margin_of(found) == pytest.approx(margin)


def test_two_images_of_one_taxon_have_an_interval_and_one_in_each_training_has_none() -> None:
    pair = mean_over_taxa([[np.array([1.0, 3.0])]])
    assert margin_of(pair) == pytest.approx(t(1))  # s/√2 = 1
    assert not mean_over_taxa([[np.array([1.0]), np.array([2.0])]]).known
    assert not mean_over_taxa([[np.array([1.0]), np.array([2.0, 3.0])]]).known


@pytest.mark.parametrize("num_runs", [1, 3])
def test_limits_of_a_share_are_clopper_and_pearsons_for_the_images_it_is_worth(num_runs: int) -> None:
    """Korn & Graubard 1998; trainings enter at 98 %."""
    from scipy.stats import beta, norm

    values = tables(3, 8, num_runs, shares=True)
    means = means_of(values)
    margin = t(7) * means.mean(1).std(ddof=1) / np.sqrt(8)
    if num_runs > 1:
        margin = np.hypot(margin, t(num_runs - 1, 0.98) * means.mean(0).std(ddof=1) / np.sqrt(num_runs))
    mean, number = means.mean(), sum(len(run) for runs in values for run in runs)
    worth = min(number, mean * (1 - mean) * (norm.ppf(0.975) / margin) ** 2)
    assert worth < number
    found = mean_over_taxa(values, share=True)
    right = worth * mean
    assert found.low == pytest.approx(beta.ppf(0.025, right, worth - right + 1))
    assert found.high == pytest.approx(beta.ppf(0.975, right + 1, worth - right))


def test_a_share_that_does_not_vary_is_worth_its_images_and_no_more() -> None:
    from scipy.stats import binomtest

    halves = [[np.array([1.0, 0.0, 1.0, 0.0])] for _ in range(5)]
    nearly = [*halves, [np.array([1.0, 0.0, 1.0, 0.0, 0.999, 0.001])]]  # varies by less than chance among its images
    for values, right, number in ((halves, 10, 20), (nearly, 13, 26)):
        found, exact = mean_over_taxa(values, share=True), binomtest(right, number).proportion_ci()
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-3)


def test_a_share_of_one_taxon_over_trainings_stays_within_its_bounds() -> None:
    found = mean_over_taxa([[np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])]], share=True)
    narrow = mean_over_taxa([[np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])]], share=True)
    assert 0 <= found.low < narrow.low < 0.5 < narrow.high < found.high <= 1


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_difference_joins_students_over_pairs_of_taxa_and_over_each_sides_trainings(confidence: float) -> None:
    ours, theirs = tables(1, 6, 3), tables(2, 6, 2)
    a, b = means_of(ours), means_of(theirs)
    parts = [
        t(5, confidence) * (a.mean(1) - b.mean(1)).std(ddof=1) / np.sqrt(6),
        t(2, confidence) * a.mean(0).std(ddof=1) / np.sqrt(3),
        t(1, confidence) * b.mean(0).std(ddof=1) / np.sqrt(2),
    ]
    found = difference_over_taxa(ours, theirs, confidence=confidence)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert margin_of(found) == pytest.approx(np.sqrt(np.square(parts).sum()))


def test_a_difference_of_shares_ends_at_one() -> None:
    right, mixed = [[np.ones(2)] for _ in range(3)], [[np.array([float(k)])] for k in (0, 0, 1)]
    plain = difference_over_taxa(right, mixed)
    assert plain.high > 1
    assert difference_over_taxa(right, mixed, share=True) == Interval(plain.mean, plain.low, 1.0)
    assert difference_over_taxa(mixed, right, share=True) == Interval(-plain.mean, -1.0, -plain.low)
    assert difference_of_means(means_of(right), means_of(mixed), 6, 3) == plain
    alone = mean_over_taxa(mixed)
    assert mean_of_means(means_of(mixed), 3) == alone
    assert alone.low < 0


def test_shares_that_differ_alike_in_every_taxon_have_newcombes_limits() -> None:
    ours, theirs = ([[np.array([1.0, last])] for _ in range(4)] for last in (1.0, 0.0))
    a, b = mean_over_taxa(ours, share=True), mean_over_taxa(theirs, share=True)
    found = difference_over_taxa(ours, theirs, share=True)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.5 - np.hypot(a.mean - a.low, b.high - b.mean))
    assert found.high == pytest.approx(0.5 + np.hypot(a.high - a.mean, b.mean - b.low))


def test_a_jackknife_of_unequal_groups_is_busings() -> None:
    """Busing et al. 1999, eq. 4: pseudo-values by each group's size, their squares weighted by 1/(h − 1)."""
    means = np.random.default_rng(9).normal(size=(23, 2))
    group = groups_of_taxa(23, 0)
    sizes = np.bincount(group)
    assert sorted(sizes.tolist()) == [2] * 7 + [3] * 3
    h, whole = 23 / sizes, means.mean()
    without = np.array([means[group != g].mean() for g in range(10)])
    centre = 10 * whole - ((1 - sizes / 23) * without).sum()
    variance = np.mean((h * whole - (h - 1) * without - centre) ** 2 / (h - 1))
    over_runs = t(1) * means.mean(0).std(ddof=1) / np.sqrt(2)
    found = of_replicates(replicates(means))
    assert found.mean == pytest.approx(whole)
    assert margin_of(found) == pytest.approx(np.hypot(t(9) * np.sqrt(variance), over_runs))


def test_a_single_group_shows_no_spread_and_a_distance_has_a_least_value() -> None:
    alone = of_replicates(Replicates(np.array([2.0]), np.array([[2.0]]), np.array([1.0])))
    assert (alone.mean, alone.known) == (2.0, False)
    two = Replicates(np.array([1.0]), np.array([[0.0, 2.0]]), np.array([0.5, 0.5]))
    assert of_replicates(two).low < 0
    assert of_replicates(two, least=0.25).low == 0.25
    assert of_replicates(two, least=-1e9) == of_replicates(two)


def test_groups_are_ten_at_most_as_even_as_can_be_and_drawn_by_the_seed() -> None:
    assert groups_of_taxa(10, 0).tolist() == list(range(10))
    assert sorted(np.bincount(groups_of_taxa(11, 0)).tolist()) == [1] * 9 + [2]
    assert groups_of_taxa(40, 1).tolist() != groups_of_taxa(40, 2).tolist()
    assert groups_of_taxa(40, 1).tolist() == groups_of_taxa(40, 1).tolist()


def test_what_is_not_known_on_one_side_is_not_known() -> None:
    assert not Interval(0.0, -np.inf, 1.0).known
    assert not Interval(0.0, -1.0, np.inf).known
    assert Interval(0.5, 0.0, 1.0).to_json() == {"mean": 0.5, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize("values", [[], [[]], [[np.ones(2), np.ones(2)], [np.ones(2)]], [[np.array([])]]])
def test_a_taxon_without_a_value_in_a_run_is_refused(values: list[list[np.ndarray]]) -> None:
    with pytest.raises(DataError, match="one or more values for every taxon in every run"):
        mean_over_taxa(values)
