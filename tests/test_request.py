"""Laws of what a picture is asked for by: blends, sisters, and the weaker model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.request import Mix, Request, conditions_of, terms
from taxadiffusion.sampler import Sampler, Weaker
from tests.tiny_base import write_tiny_base
from tests.tiny_sampler import CLARKII, CORNUTUS, make

SISTER = Guidance(3.0, base="sister")
WEAKER = Guidance(3.0, base="weaker model")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def denoiser(base: Path) -> Denoiser:
    return make(base)


@pytest.fixture(scope="module")
def weaker(base: Path) -> Denoiser:
    """The same model before it had learnt most of it."""
    denoiser = make(base)
    with torch.no_grad():
        for group in denoiser.groups().values():
            for parameter in group.values():
                parameter.mul_(0.5)
    return denoiser


def drawn(denoiser: Denoiser, *requests: Request, weaker: Weaker | None = None) -> np.ndarray:
    sampler = Sampler(denoiser, weaker=weaker)
    return np.stack([sample.image for sample in sampler(list(requests), num_steps=3)]).astype(int)


def test_guidance_from_a_sister_takes_it_for_the_base() -> None:
    assert SISTER.terms(CLARKII, CORNUTUS) == ((CORNUTUS, -2.0), (CLARKII, 3.0))
    assert SISTER.terms(CLARKII) == Guidance(3.0).terms(CLARKII)  # none: the null
    assert Guidance(1.0, base="sister").terms(CLARKII, CORNUTUS) == ((CLARKII, 1.0),)
    for wrong in ({"rank": "order"}, {"rank_scales": (("genus", 2.0),)}):
        with pytest.raises(SettingsError, match="guidance from a sister has one scale and no rank"):
            Guidance(3.0, base="sister", **wrong)
    with pytest.raises(SettingsError, match="does not act on a mix"):
        Request(CLARKII, 0, SISTER, towards=CORNUTUS, fraction=0.5)


def test_scale_one_is_no_guidance_from_either(denoiser: Denoiser, weaker: Denoiser) -> None:
    plain = drawn(denoiser, Request(CLARKII, 0))
    sister = Request(CLARKII, 0, Guidance(1.0, base="sister"), sister=CORNUTUS)
    assert np.array_equal(drawn(denoiser, sister), plain)
    of_weaker = Request(CLARKII, 0, Guidance(1.0, base="weaker model"))
    assert np.array_equal(drawn(denoiser, of_weaker, weaker=Weaker(weaker)), plain)
    outside = Request(CLARKII, 0, Guidance(3.0, interval=(0.0, 1e-9), base="weaker model"))
    assert np.array_equal(drawn(denoiser, outside, weaker=Weaker(weaker)), plain)


def test_a_model_guided_by_itself_is_unguided_and_by_a_weaker_one_is_not(
    denoiser: Denoiser, base: Path, weaker: Denoiser
) -> None:
    plain = drawn(denoiser, Request(CLARKII, 0))
    itself = drawn(denoiser, Request(CLARKII, 0, WEAKER), weaker=Weaker(make(base)))
    assert np.abs(itself - plain).max() <= 2  # 3·p − 2·p, rounded
    assert np.abs(drawn(denoiser, Request(CLARKII, 0, WEAKER), weaker=Weaker(weaker)) - plain).max() > 2
    with pytest.raises(SettingsError, match="needs one: say which"):
        drawn(denoiser, Request(CLARKII, 0, WEAKER))


def test_a_model_guided_by_itself_at_an_ancestor_is_guided_from_that_ancestor(denoiser: Denoiser, base: Path) -> None:
    """Which is why the rank alone makes no weaker model."""
    ancestor = drawn(denoiser, Request(CLARKII, 0, Guidance(3.0, "family")))
    itself = drawn(denoiser, Request(CLARKII, 0, WEAKER), weaker=Weaker(make(base), "family"))
    assert np.abs(itself - ancestor).max() <= 2


def test_a_picture_is_the_same_beside_others_that_are_guided_otherwise(denoiser: Denoiser, weaker: Denoiser) -> None:
    requests = [
        Request(CLARKII, 0, WEAKER),
        Request(CLARKII, 1, SISTER, sister=CORNUTUS),
        Request(CORNUTUS, 2, WEAKER),
        Request(CORNUTUS, 3, Guidance(2.0)),
        Request(CORNUTUS, 4, Guidance(2.0), blend=((CLARKII, 0.25), (CORNUTUS, 0.75))),
    ]
    together = drawn(denoiser, *requests, weaker=Weaker(weaker))
    alone = [drawn(denoiser, request, weaker=Weaker(weaker))[0] for request in requests]
    assert np.abs(together - np.stack(alone)).max() <= 2


def test_a_blend_is_the_sum_of_conditions_and_of_two_taxa_their_mix(denoiser: Denoiser) -> None:
    blend = Mix(CLARKII, blend=((CLARKII, 1.5), (CORNUTUS, -0.5)))
    found = conditions_of(denoiser.conditioner, [blend, Mix(CLARKII), Mix(CORNUTUS)], {})
    expected = 1.5 * found[Mix(CLARKII)] - 0.5 * found[Mix(CORNUTUS)]
    assert torch.allclose(found[blend], expected, atol=1e-6)
    one = Request(CLARKII, 0, Guidance(2.0), blend=((CLARKII, 0.75), (CORNUTUS, 0.25)))
    other = Request(CLARKII, 0, Guidance(2.0), towards=CORNUTUS, fraction=0.25)
    assert np.abs(drawn(denoiser, one) - drawn(denoiser, other)).max() <= 2
    assert [mix for mix, _ in terms(one)] == [Mix(Lineage()), Mix(CLARKII, blend=one.blend)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blend": ((CLARKII, 0.5),)}, "add up to 0.5"),
        ({"blend": ((CLARKII, float("nan")), (CORNUTUS, 1.0))}, "must add up to 1"),
        ({"blend": ((CLARKII, 1.0),), "guidance": Guidance(2.0, "order")}, "has no ranks"),
        ({"blend": ((CLARKII, 1.0),), "towards": CORNUTUS, "fraction": 0.5}, "mix it with nothing"),
    ],
)
def test_blends_that_mean_nothing_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Request(CLARKII, 0, **wrong)  # type: ignore[arg-type]
