"""Laws of the order of samples: the one that runs were begun with, and what each refusal says."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.trainer.order import Order, key_of, permuted

LARGEST = 2**63 - 1


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("seed", "size", "plain", "balanced"),
    [
        (0, 1, "905ecfe424d7", "374708fff771"),
        (0, 5, "803ac868cc6b", "934b5e3b2177"),
        (0, 1000, "b01eb1e24323", "1ab89858a252"),
        (3, 4, "5dc4cd72bcde", "ef62393e7e77"),
        (3, 16, "d7675fb065d4", "553ecec11d89"),
        (5, 3, "8c7a219f7e5a", "5a9c96e7ae4e"),
        (7, 2, "077975bbbe15", "db7f8e2aa97f"),
        (7, 37, "c073ac73bec9", "42c138cd7825"),
        (LARGEST, 1000, "90510e54b934", "8c7f60ca8a5e"),
    ],
)
def test_the_order_is_the_one_that_runs_were_begun_with(seed: int, size: int, plain: str, balanced: str) -> None:
    """A run that is resumed by a later version sees the same images in the same steps."""
    order = Order(seed, np.arange(100, 100 + size))
    assert digest(order.rows_at(np.arange(3 * size))) == plain
    taxon_ids = (np.arange(size) ** 2 % 7).astype(np.int32)
    order = Order.balanced(seed, np.arange(size), taxon_ids, 0.5)
    assert digest(order.rows_at(np.arange(2 * size))) == balanced


def test_keys_are_those_that_runs_were_begun_with() -> None:
    keys = [int(key_of(1, 2)), int(key_of(1, 2, 3)), int(key_of(LARGEST, 0))]
    assert keys == [16613338946343043936, 15020427595393229491, 7333329389124002025]
    assert key_of(1, 2) == key_of(1, 2, 0) == key_of(1 + 2**64, 2)


def test_any_part_of_an_epoch_is_computed_alone() -> None:
    for order in (Order(3, np.arange(50)), Order.balanced(3, np.arange(50), np.arange(50, dtype=np.int32) % 4, 1.0)):
        whole = order.rows_at(np.arange(200))
        numbers = np.array([[7, 199], [50, 3]])
        assert np.array_equal(order.rows_at(numbers), whole[numbers])


def test_half_the_power_draws_by_the_square_root() -> None:
    """Exactly: of 3 taxa of 1, 4 and 25 images, 1 : 2 : 5 of all draws."""
    taxon_ids = np.repeat(np.arange(3, dtype=np.int32), (1, 4, 25))
    drawn = taxon_ids[Order.balanced(0, np.arange(30), taxon_ids, 0.5).rows_at(np.arange(30 * 80))]
    assert np.allclose(np.bincount(drawn) / len(drawn), np.array([1, 2, 5]) / 8, atol=0.004)


@pytest.mark.parametrize("power", [-0.01, 1.01])
def test_a_power_outside_its_range_is_refused(power: float) -> None:
    with pytest.raises(ValueError, match=r"power lies in \[0, 1\]"):
        Order.balanced(0, np.arange(3), np.zeros(3, np.int32), power)


def test_one_image_is_enough_and_none_is_not() -> None:
    assert permuted(np.zeros(3, np.int64), 1, key_of(0, 0)).tolist() == [0, 0, 0]
    assert Order(0, np.array([9])).rows_at(np.arange(3)).tolist() == [9, 9, 9]
    with pytest.raises(DataError, match="no image to train on"):
        Order(0, np.array([], dtype=np.int64))
