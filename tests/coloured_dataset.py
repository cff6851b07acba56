"""A prepared set of coloured pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.dataset import PreparedDataset, prepare
from tests.coloured_pictures import SPECIES, paint, write_folder

NUM_TEST = 9


NUM_TRAIN = dict(zip(SPECIES, (30, 12, 16, 10), strict=True))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return photographed(tmp_path_factory.mktemp("colours"), NUM_TEST)


def photographed(folder: Path, num_test: int) -> PreparedDataset:
    rng = np.random.default_rng(0)
    pictures = [
        (lineage, paint(colour, rng), {"split": split})
        for lineage, (colour, _) in SPECIES.items()
        for split, count in (("train", NUM_TRAIN[lineage]), ("test", num_test))
        for _ in range(count)
    ]
    prepare(write_folder(folder / "source", pictures), folder / "prepared")
    return PreparedDataset.open(folder / "prepared")
