"""Laws of the formulas: zero on equal sets, and equal to SciPy, torch-fidelity, prdc and scikit-learn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.metrics import probe
from taxadiffusion.metrics.discriminant import SHRINKAGE, fit_discriminant
from taxadiffusion.metrics.distribution import FrechetReference, KernelReference
from taxadiffusion.metrics.naming import confusions, correct_at, error_height
from taxadiffusion.metrics.neighbours import NearestSearch, nearest, overlap
from taxadiffusion.metrics.probe import INVERSE_PENALTIES, Probe, choose_penalty, fit_probe
from taxadiffusion.names import Lineage

RANKS = ("family", "genus", "species")


def draws(seed: int, num_images: int, width: int = 6, shift: float = 0.0) -> np.ndarray:
    """Correlated features (N, D), so that no formula can pass by treating the covariance as diagonal."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return rng.normal(size=(num_images, width)) @ mixing + shift


def fish(family: str, genus: str | None = None, species: str | None = None) -> Lineage:
    return Lineage.of({"family": family, "genus": genus, "species": species})


def straightforward_frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The formula as it is printed, by SciPy's root of a product that is not symmetric."""
    from scipy.linalg import sqrtm

    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(a @ b))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


def test_frechet_distance_of_a_set_to_itself_is_zero_and_equals_scipys_formula() -> None:
    x, y = draws(0, 50), draws(1, 70, shift=0.5)
    assert FrechetReference(x)(x) == pytest.approx(0, abs=1e-9)
    expected = straightforward_frechet_distance(x, y)
    assert FrechetReference(x)(y) == pytest.approx(expected, rel=1e-9)
    assert FrechetReference(y)(x) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_equals_torch_fidelitys_also_with_fewer_images_than_features() -> None:
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    for num_images in (200, 10):
        x, y = draws(2, num_images, 12), draws(3, num_images, 12, shift=0.3)
        theirs = fid_statistics_to_metric(
            fid_features_to_statistics(torch.from_numpy(x)), fid_features_to_statistics(torch.from_numpy(y)), False
        )["frechet_inception_distance"]
        # torch-fidelity takes the root of a singular product; ours stays exact, theirs is good to its own tolerance
        assert FrechetReference(x)(y) == pytest.approx(theirs, rel=1e-4)


def test_kernel_distance_equals_torch_fidelitys() -> None:
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    x, y = draws(4, 60), draws(5, 60, shift=0.4)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=60, verbose=False
    )[KEY_METRIC_KID_MEAN]
    assert KernelReference(x)(y) == pytest.approx(theirs, rel=1e-9)


def test_kernel_distance_is_unbiased_for_sides_of_different_sizes() -> None:
    pool = draws(20, 7)
    splits = [list(chosen) for chosen in combinations(range(7), 3)]
    distances = [KernelReference(pool[chosen])(np.delete(pool, chosen, 0)) for chosen in splits]
    assert min(distances) < 0  # not clipped
    assert np.mean(distances) == pytest.approx(0, abs=1e-9 * np.abs(distances).max())


@pytest.mark.parametrize(("num_real", "num_images"), [(50, 4), (50, 60), (6, 60), (7, 7)])
def test_references_give_the_distances_without_each_group_as_if_it_had_never_been(
    num_real: int, num_images: int
) -> None:
    x, y = draws(21, num_real, 8), draws(22, num_images, 8, shift=0.4)
    of_x, of_y = np.arange(num_real) % 3, np.arange(num_images)[::-1] % 3
    if num_images == 4:
        of_y = np.array([0, 1, 1, 0])  # group 2 is not shown at all
    frechet, without = FrechetReference(x, of_x).replicates(y, of_y)
    kernel, kernel_without = KernelReference(x, of_x).replicates(y, of_y)
    assert len(without) == len(kernel_without) == 3
    assert frechet == pytest.approx(straightforward_frechet_distance(x, y), rel=1e-6)
    assert kernel == pytest.approx(straightforward_kernel_distance(x, y), rel=1e-9)
    for group in range(3):
        a, b = x[of_x != group], y[of_y != group]
        assert without[group] == pytest.approx(straightforward_frechet_distance(a, b), rel=1e-6)
        assert kernel_without[group] == pytest.approx(straightforward_kernel_distance(a, b), rel=1e-9)
    assert FrechetReference(x)(y) == pytest.approx(frechet, rel=1e-6)
    assert KernelReference(x)(y) == pytest.approx(kernel, rel=1e-9)


def test_two_images_a_side_are_enough_for_a_distance_and_one_is_not() -> None:
    x, y = draws(25, 2, 4), draws(26, 2, 4)
    expected = straightforward_frechet_distance(x, y)
    assert FrechetReference(x)(y) == pytest.approx(expected, rel=1e-6)
    assert KernelReference(x)(y) == pytest.approx(straightforward_kernel_distance(x, y))
    for reference in (FrechetReference, KernelReference):
        for real, features in ((x[:1], y), (x, y[:1])):
            with pytest.raises(DataError, match="2 or more images on each side, got 1"):
                reference(real)(features)


def test_a_side_of_a_single_group_cannot_be_left_out() -> None:
    x = draws(23, 9, 4)
    for reference in (FrechetReference(x, np.zeros(9, dtype=np.intp)), KernelReference(x, np.zeros(9, dtype=np.intp))):
        with pytest.raises(DataError, match="2 or more images on each side, got 0"):
            reference.replicates(x, np.zeros(9, dtype=np.intp))


def straightforward_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate, every pair written out at once."""
    within_x, within_y, across = (
        (a.astype(float) @ b.astype(float).T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))
    )
    means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (within_x, within_y)]
    return float(sum(means) - 2 * across.mean())


def test_figures_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from taxadiffusion.metrics import blocks, neighbours

    x, y = (draws(seed, number, 5, shift).astype(np.float32) for seed, number, shift in ((0, 83, 0), (1, 61, 0.5)))
    of_x, of_y = np.arange(83) % 4, np.arange(61) % 4

    def figures() -> list[np.ndarray]:
        met, copied = overlap(x, y), NearestSearch(x, x[:40] + 1)(y)
        return [
            FrechetReference(x, of_x).replicates(y, of_y)[1], KernelReference(x, of_x).replicates(y, of_y)[1],
            met.densities, met.recalled, met.covered, copied.positions, copied.distances, copied.nearer,
        ]  # fmt: skip

    whole = figures()
    defaults = blocks.row_blocks.__defaults__
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (defaults[0], 1000))
    monkeypatch.setattr(neighbours, "_TILE", (8, 16))
    assert len(list(blocks.row_blocks(61, 83))) == 61
    for few, all_at_once in zip(figures(), whole, strict=True):
        np.testing.assert_allclose(few, all_at_once, rtol=1e-9)


def test_nearest_in_float32_answers_as_float64_does_also_between_all_but_equal_references() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 512)).astype(np.float32)
    references = np.concatenate([base, base * np.float32(1 + 1e-6), base + rng.normal(0, 1e-5, base.shape)])
    references = references.astype(np.float32)
    queries = np.concatenate([references[rng.permutation(120)], rng.normal(size=(30, 512)).astype(np.float32)])
    positions, distances = nearest(queries, references)
    exact = np.linalg.norm(queries[:, None].astype(float) - references[None].astype(float), axis=2)
    np.testing.assert_allclose(distances, exact.min(1), rtol=1e-6, atol=1e-6)
    assert (exact[np.arange(150), positions] <= exact.min(1) + 1e-6).all()
    assert (distances[:120] < 1e-6).all()


@pytest.mark.parametrize("num_neighbours", [3, 5])
def test_overlap_equals_prdc(num_neighbours: int) -> None:
    from prdc import compute_prdc

    real, generated = draws(8, 90, 4), draws(9, 60, 4, shift=0.8)
    ours = overlap(real, generated, num_neighbours)
    theirs = compute_prdc(real, generated, nearest_k=num_neighbours)
    figures = {
        "precision": ours.densities > 0, "recall": ours.recalled, "density": ours.densities, "coverage": ours.covered,
    }  # fmt: skip
    for name, values in figures.items():
        assert values.mean() == pytest.approx(theirs[name], abs=1e-12), name


def test_precision_and_recall_equal_torch_fidelitys() -> None:
    import torch
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    real, generated = draws(10, 80, 4), draws(11, 70, 4, shift=0.8)
    theirs = prc_features_to_metric(
        torch.from_numpy(generated), torch.from_numpy(real), prc_neighborhood=3, prc_batch_size=64, verbose=False
    )
    ours = overlap(real, generated, 3)
    shares = ((ours.densities > 0).mean(), ours.recalled.mean())
    assert shares == pytest.approx((theirs[KEY_METRIC_PRECISION], theirs[KEY_METRIC_RECALL]))


def test_overlap_of_a_set_with_itself_is_complete_and_of_distant_sets_empty() -> None:
    x = draws(12, 40)
    same, apart = overlap(x, x), overlap(x, x + 1e4)
    assert (same.densities > 0).all()
    assert same.recalled.all()
    assert same.covered.all()
    for found in (apart.densities, apart.recalled, apart.covered):
        assert not found.any()


def test_too_few_images_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="Fréchet distance needs 2 or more images on each side, got 1"):
        FrechetReference(draws(0, 1))(draws(1, 9))
    with pytest.raises(DataError, match="5 neighbours need 6 or more generated images, got 5"):
        overlap(draws(0, 20), draws(1, 5))


@pytest.mark.parametrize("balanced", [False, True])
def test_probe_finds_scikit_learns_solution(balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    labels = np.array([0] * 60 + [1] * 25 + [2] * 8)
    features = draws(13, len(labels)) + labels[:, None] * np.arange(6) * 0.3
    ours = fit_probe(features, labels, ("a", "b", "c"), balanced=balanced)
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000, class_weight="balanced" if balanced else None)
    standard = StandardScaler().fit_transform(features)
    theirs = model.fit(standard, labels).predict_log_proba(standard)
    np.testing.assert_allclose(ours.log_probabilities(features), theirs, atol=1e-4)


def test_probe_refuses_one_class_and_empty_classes() -> None:
    with pytest.raises(DataError, match="without images: b"):
        fit_probe(draws(0, 4), np.array([0, 0, 2, 2]), ("a", "b", "c"))
    with pytest.raises(DataError, match="got 1 classes"):
        fit_probe(draws(0, 4), np.zeros(4, dtype=int), ("a",))


def gradient(fitted: Probe, features: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> np.ndarray:
    """(D + 1, K) of the mean objective that `fit_probe` states, written out."""
    standard = (features - features.mean(0)) / features.std(0)
    residual = np.exp(fitted.log_probabilities(features))
    residual[np.arange(len(labels)), labels] -= 1
    weight = standard.T @ residual + fitted.weight / inverse_penalty
    return np.vstack([weight, residual.sum(0)]) / len(labels)


@pytest.mark.parametrize("inverse_penalty", [1e-3, 1.0])
def test_the_probe_has_converged(inverse_penalty: float) -> None:
    """Features of few directions and many columns, as a network's: the optimum is far along flat ones."""
    rng = np.random.default_rng(3)
    labels = np.arange(150) % 5
    features = rng.normal(size=(150, 4)) @ rng.normal(size=(4, 60)) + 0.05 * rng.normal(size=(150, 60))
    features += 0.3 * rng.normal(size=(5, 60))[labels]
    fitted = fit_probe(features, labels, tuple("abcde"), inverse_penalty=inverse_penalty)
    assert np.abs(gradient(fitted, features, labels, inverse_penalty)).max() < 3e-6


def test_two_classes_are_two_columns() -> None:
    labels = np.arange(40) % 2
    features = draws(5, 40) + labels[:, None]
    fitted = fit_probe(features, labels, ("a", "b"))
    assert fitted.weight.shape == (6, 2)
    assert (fitted.predict(features) == labels).mean() > 0.8


def test_two_unequal_classes_have_scikit_learns_probabilities() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    labels = np.array([0] * 50 + [1] * 10)
    features = draws(6, 60) + labels[:, None]
    standard = StandardScaler().fit_transform(features)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(standard, labels).predict_log_proba(standard)
    ours = fit_probe(features, labels, ("a", "b")).log_probabilities(features)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert ours[:, 0].mean() != pytest.approx(ours[:, 1].mean(), abs=0.5)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_regularisation_of_two_classes_is_chosen_by_the_mean_loss_of_what_was_held_out(balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    labels = np.array([0] * 36 + [1] * 9)
    features = draws(7, 45) + labels[:, None]
    found = choose_penalty(features, labels, balanced=balanced) if balanced else choose_penalty(features, labels)
    assert found.num_images == 45
    losses = np.zeros(len(INVERSE_PENALTIES))
    for learnt, held_out in StratifiedGroupKFold(3, shuffle=True, random_state=0).split(
        features, labels, np.arange(45)
    ):
        scaler = StandardScaler().fit(features[learnt])
        for i, penalty in enumerate(INVERSE_PENALTIES):
            model = LogisticRegression(C=penalty, class_weight="balanced" if balanced else None, tol=1e-8)
            model.fit(scaler.transform(features[learnt]), labels[learnt])
            said = model.predict_log_proba(scaler.transform(features[held_out]))
            losses[i] -= said[np.arange(len(held_out)), labels[held_out]].sum()
    assert found.losses == pytest.approx(losses / 45, rel=1e-2)
    assert found.inverse_penalty == INVERSE_PENALTIES[int(losses.argmin())]


def test_a_probe_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_MAX_STEPS", 3)
    with pytest.raises(DataError, match="a probe of 40 images did not converge in 3 steps"):
        fit_probe(draws(5, 40), np.arange(40) % 4, tuple("abcd"))


def test_regularisation_is_chosen_among_photographs_held_out_by_group() -> None:
    """Photographs of one trajectory are alike: held out one by one, they say that no regularisation is needed."""
    rng = np.random.default_rng(0)
    labels, trajectories = np.repeat(np.arange(3), 80), np.repeat(np.arange(24), 10)
    features = rng.normal(size=(24, 40))[trajectories] + 0.02 * rng.normal(size=(240, 40))
    names = [f"trajectory {i}" for i in trajectories]
    apart, together = choose_penalty(features, labels), choose_penalty(features, labels, names)
    assert apart.inverse_penalty > 10 * together.inverse_penalty
    assert together.inverse_penalty == INVERSE_PENALTIES[int(np.argmin(together.losses))]
    assert together.num_images == 240
    assert choose_penalty(features, labels, names, seed=1) == choose_penalty(features, labels, names, seed=1)


def test_regularisation_is_chosen_by_a_part_of_many_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_SEARCHED", 30)
    monkeypatch.setattr(probe, "MAX_SEARCHED_CLASSES", 4)
    labels = np.concatenate([np.arange(120) % 6, [6, 6]])  # of the last class there is too little to hold out
    rows = probe._searched(labels, np.arange(len(labels)), np.random.default_rng(0))
    counts = np.bincount(labels[rows], minlength=7)
    assert len(rows) == 30
    assert sorted(counts.tolist()) == [0, 0, 0, 7, 7, 8, 8]
    assert counts[6] == 0
    few = choose_penalty(draws(0, 4), np.array([0, 0, 1, 1]))
    assert few == probe.PenaltyChoice(probe.DEFAULT_INVERSE_PENALTY, (), 0)


def test_the_discriminant_is_scikit_learns() -> None:
    from sklearn.covariance import shrunk_covariance
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    labels = np.random.default_rng(0).integers(3, size=200)
    features = draws(13, 200) + labels[:, None] * np.arange(6) * 0.3
    ours = fit_discriminant(features, labels, ("a", "b", "c"))
    standard = StandardScaler().fit_transform(features)
    within = standard - np.stack([standard[labels == k].mean(0) for k in range(3)])[labels]

    class Shrunk:
        def fit(self, _: np.ndarray) -> Shrunk:
            self.covariance_ = shrunk_covariance(within.T @ within / 197, SHRINKAGE)
            return self

    model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunk(), priors=[1 / 3] * 3)
    theirs = model.fit(standard, labels)
    fresh = draws(14, 500) + np.random.default_rng(1).integers(3, size=500)[:, None] * np.arange(6) * 0.3
    expected = theirs.predict((fresh - features.mean(0)) / features.std(0))
    assert (ours.predict(fresh) == expected).mean() > 0.99
    scores, reference = standard @ ours.weight + ours.bias, theirs.decision_function(standard)
    np.testing.assert_allclose(scores - scores[:, :1], reference - reference[:, :1], atol=1e-3)


@pytest.mark.parametrize("constant", [7.0, 0.1, np.log(6)])  # of the last two the deviation is not exactly 0
def test_a_constant_feature_says_nothing_to_a_discriminant(constant: float) -> None:
    labels = np.arange(60) % 3
    features = draws(24, 60) + labels[:, None]
    plain = fit_discriminant(features, labels, ("a", "b", "c"))
    more = fit_discriminant(np.hstack([features, np.full((60, 1), constant)]), labels, ("a", "b", "c"))
    assert np.isfinite(more.weight).all()
    assert np.abs(more.weight[-1]).max() < 1e-9
    assert np.array_equal(
        more.predict(np.hstack([features, np.full((60, 1), constant + 2.0)])), plain.predict(features)
    )


def test_a_discriminant_tells_classes_apart_however_alike_the_images_of_each_are() -> None:
    labels = np.arange(60) % 3
    features = 10.0 * labels[:, None] * np.array([1.0, -1.0, 0.5]) + 1e-3 * np.random.default_rng(25).normal(
        size=(60, 3)
    )
    assert np.array_equal(fit_discriminant(features, labels, ("a", "b", "c")).predict(features), labels)


def test_a_discriminant_refuses_what_it_cannot_be_fitted_on() -> None:
    with pytest.raises(DataError, match="got 1 classes"):
        fit_discriminant(draws(0, 4), np.zeros(4, dtype=int), ("a",))
    with pytest.raises(DataError, match="a class with two different images"):
        fit_discriminant(draws(0, 2), np.array([0, 1]), ("a", "b"))


def test_a_homonym_in_another_genus_is_a_wrong_name() -> None:
    true, homonym = fish("Labridae", "Hemigymnus", "fasciatus"), fish("Labridae", "Thalassoma", "fasciatus")
    assert correct_at("family", [homonym], [true]).tolist() == [True]
    assert correct_at("genus", [homonym], [true]).tolist() == [False]
    assert correct_at("species", [homonym], [true]).tolist() == [False]


def test_an_image_known_to_its_family_alone_is_judged_there() -> None:
    family, species = fish("Scaridae"), fish("Scaridae", "Scarus", "a")
    assert correct_at("family", [species, family], [family, species]).tolist() == [True, True]
    assert correct_at("species", [species, species], [family, species]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("predicted", "height"),
    [
        (fish("Labridae", "Hemigymnus", "fasciatus"), 0),
        (fish("Labridae", "Hemigymnus", "melapterus"), 1),
        (fish("Labridae", "Thalassoma", "fasciatus"), 2),
        (fish("Scaridae"), 3),
    ],
)
def test_error_height_climbs_to_the_lowest_common_ancestor(predicted: Lineage, height: int) -> None:
    assert error_height(predicted, fish("Labridae", "Hemigymnus", "fasciatus"), RANKS) == height


def test_error_height_counts_only_ranks_the_truth_names() -> None:
    assert error_height(fish("Labridae", "Hemigymnus", "fasciatus"), fish("Labridae"), RANKS) == 0
    assert error_height(fish("Scaridae"), fish("Labridae"), RANKS) == 1


def test_confusions_count_every_wrong_image_once_and_no_right_one() -> None:
    a, b, c = fish("A"), fish("B"), fish("C")
    true, predicted = [a, a, a, a, b, b, c], [a, b, b, c, b, a, c]
    pairs = confusions(predicted, true)
    assert [(x.true, x.predicted, x.count, x.of) for x in pairs] == [(a, b, 2, 4), (b, a, 1, 2), (a, c, 1, 4)]


def test_as_many_names_as_images_or_it_is_an_error() -> None:
    a, b = fish("A"), fish("B")
    for call in (
        lambda: correct_at("family", [a, b], [a]),
        lambda: confusions([a], [a, b]),
    ):
        with pytest.raises(ValueError, match="zip"):
            call()


def test_nearest_finds_each_image_itself_across_blocks() -> None:
    x = draws(14, 2100, 3)
    positions, distances = nearest(x, x)
    assert positions.tolist() == list(range(2100))
    assert distances.max() < 1e-5


def test_nearness_is_at_par_for_fresh_draws_and_high_for_copies() -> None:
    train, unseen, fresh = draws(15, 400), draws(16, 400), draws(17, 400)
    search = NearestSearch(train, unseen)
    assert 0.45 < search(fresh).nearer.mean() < 0.55
    near = search(train[:50] * 1.0001)
    assert near.positions.tolist() == list(range(50))
    assert near.nearer.mean() > 0.99
    # unseen photographs judged by themselves are at par exactly
    assert search(unseen).nearer.mean() == pytest.approx(0.5)
