"""Laws of acceptance: the first reason counts, rare species are judged as far as the probe knows, sets are diverse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.names import Lineage
from taxadiffusion.synthetic.accept import (
    COPY,
    EXPERT,
    FEWEST_TO_NAME,
    MISNAMED,
    NEAR_DUPLICATE,
    NOT_JUDGED,
    TOO_ALIKE,
    ByExpert,
    Distinct,
    Looked,
    NamedRight,
    Original,
    refusals,
    spread_within,
)
from taxadiffusion.synthetic.checks import Accepting
from tests.coloured_pictures import RANKS, SPECIES, Colours, paint

TAXA = list(SPECIES)


def painted(taxa: list[Lineage], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(paint(SPECIES[taxon][0], rng)).transpose(2, 0, 1) for taxon in taxa])


def looked(shown: list[Lineage], asked: list[Lineage], seed: int = 1) -> Looked:
    images = painted(shown, seed)
    return Looked(tuple(asked), Colours()(images), images)


@pytest.fixture(scope="module")
def namer() -> Namer:
    """Of two species of ten photographs, one of five, and one of two."""
    lineages = [taxon for taxon, number in zip(TAXA, (10, 10, FEWEST_TO_NAME, 2), strict=True) for _ in range(number)]
    return Namer.fit(Colours()(painted(lineages)), lineages, fewest=FEWEST_TO_NAME)


def test_a_picture_passes_where_it_is_named_as_what_was_asked_for(namer: Namer) -> None:
    check = NamedRight(namer, "species")
    assert check(looked([TAXA[0], TAXA[1]], [TAXA[0], TAXA[1]])) == [None, None]
    assert check(looked([TAXA[1], TAXA[2]], [TAXA[0], TAXA[0]])) == [MISNAMED, MISNAMED]
    assert NamedRight(namer, "genus")(looked([TAXA[1], TAXA[2]], [TAXA[0], TAXA[0]])) == [None, MISNAMED]


def test_a_picture_is_not_refused_because_its_species_has_few_photographs() -> None:
    """Features of two species around −1 and +1, a hundred photographs and five: what lies nearer to the rare one is
    named so, though most pictures there are of the common one."""
    rng = np.random.default_rng(0)
    common, rare = TAXA[:2]
    features = np.concatenate([rng.normal(-1, 1, (100, 1)), rng.normal(1, 1, (5, 1))]).astype(np.float32)
    namer = Namer.fit(features, [common] * 100 + [rare] * 5, fewest=FEWEST_TO_NAME)
    nearer = np.array([[0.5]], dtype=np.float32)
    assert namer(nearer) == [common]
    assert namer(nearer, even=True) == [rare]
    assert namer(-nearer, even=True) == [common]
    seen = Looked((rare,), nearer, painted([rare]))
    assert NamedRight(namer, "species")(seen) == [None]


def test_a_species_that_the_probe_does_not_know_is_judged_at_the_finest_rank_that_it_knows(namer: Namer) -> None:
    check = NamedRight(namer, "species")
    rare, stranger = TAXA[3], Lineage.of({"family": "Nigridae", "genus": "Niger", "species": "ater"})
    assert [check.judged_at(taxon) for taxon in (TAXA[2], rare, stranger)] == ["species", "family", None]
    assert check(looked([TAXA[2], TAXA[0], TAXA[0]], [rare, rare, stranger])) == [None, MISNAMED, NOT_JUDGED]


def test_the_first_reason_counts_and_later_checks_see_only_what_passed(namer: Namer) -> None:
    seen: list[int] = []

    def flags(images: np.ndarray, _: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.array([True, False])

    checks = [NamedRight(namer, "species"), Original(flags), ByExpert(lambda features: np.zeros(len(features), bool))]
    found = refusals(checks, looked([TAXA[0], TAXA[1], TAXA[0]], [TAXA[0], TAXA[0], TAXA[0]]))
    assert found == [COPY, MISNAMED, EXPERT]
    assert seen == [2]


def test_the_same_picture_again_is_a_near_duplicate_mirrored_too_and_of_its_own_species_alone() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (3, 8, 8)), np.ones((1, 4, 4))).astype(np.uint8)
    noisy = (image + rng.integers(-1, 2, image.shape)).clip(0, 255).astype(np.uint8)
    distinct, features = Distinct(0.0), rng.normal(size=(5, 6))
    assert distinct(TAXA[0], features[0], image) is None
    for i, again in enumerate((image, noisy, image[..., ::-1]), 1):
        assert distinct(TAXA[0], features[i], again) == NEAR_DUPLICATE
    assert distinct(TAXA[1], features[4], image) is None


def test_pictures_nearer_than_photographs_are_to_each_other_are_too_alike() -> None:
    rng = np.random.default_rng(1)
    images = painted([TAXA[0]] * 3)
    images[1] = 255 - images[1]
    images[2] = images[2][:, ::-1] // 2
    first = rng.normal(size=6)
    distinct = Distinct(least=0.1)
    assert distinct(TAXA[0], first, images[0]) is None
    assert distinct(TAXA[0], first + 0.01, images[1]) == TOO_ALIKE
    assert distinct(TAXA[0], -first, images[2]) is None


def test_the_spread_is_a_quantile_of_distances_to_the_nearest_of_the_same_species() -> None:
    angles = np.deg2rad([0.0, 10.0, 40.0, 41.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert spread_within(features, [TAXA[0], TAXA[0], TAXA[1], TAXA[1]], 0.0) == pytest.approx(
        1 - np.cos(np.deg2rad(1))
    )
    assert spread_within(features, [TAXA[0], TAXA[0], TAXA[1], TAXA[2]], 0.0) == pytest.approx(
        1 - np.cos(np.deg2rad(10))
    )
    assert spread_within(features, TAXA) == 0.0


def test_words_of_acceptance(tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text("{}")
    assert Accepting.of([], RANKS) == Accepting("species", True, True)
    assert Accepting.of(["genus", str(file)], RANKS) == Accepting("genus", expert=file)
    assert not Accepting.of(["none"], RANKS)
    for words, why in (
        (["none", "genus"], "stands alone"),
        (["genus", "species"], "one rank and one filter at most"),
        (["specie"], "is no file, and none of family, genus, species, original, distinct, none"),
    ):
        with pytest.raises(SettingsError, match=why):
            Accepting.of(words, RANKS)
