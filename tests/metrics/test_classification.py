"""Laws of a classifier's figures: F1 of each class, and calibration."""

from __future__ import annotations

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.classification import calibration_error, f1_of_classes


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    true, named = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 0, 0])
    found = f1_of_classes(true, named, 4)
    assert found[0] == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert found[1] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert np.isnan(found[2:]).all(), "no photograph shows these"
    assert f1_of_classes(np.array([0, 1]), np.array([0, 0]), 2)[1] == 0


def test_f1_does_not_depend_on_how_many_photographs_of_a_class_judge() -> None:
    rng = np.random.default_rng(0)
    true, named = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    more = np.concatenate([np.arange(60), np.tile(np.flatnonzero(true == 1), 20)])
    assert f1_of_classes(true[more], named[more], 3) == pytest.approx(f1_of_classes(true, named, 3))


def test_who_is_as_often_right_as_it_says_has_no_calibration_error() -> None:
    right = np.repeat([True, False], [80, 20])
    assert calibration_error(right, np.full(100, 0.8)) == pytest.approx(0)
    assert calibration_error(right, np.full(100, 1.0)) == pytest.approx(0.2)
    # two bins, off by +0.3 and -0.3: errors of opposite sign do not cancel
    mixed = calibration_error(np.array([True] * 5 + [False] * 5), np.array([0.7] * 5 + [0.3] * 5))
    assert mixed == pytest.approx(0.3)
    with pytest.raises(DataError, match="no photograph"):
        calibration_error(np.zeros(0, dtype=bool), np.zeros(0))
