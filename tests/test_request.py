"""Laws of what a picture is asked for by: blends, sisters, the weaker model, and a caption beside the taxon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from taxadiffusion.condition import PromptConditioner, PromptSettings
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Context, Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.request import Mix, Request, conditions_of, terms
from taxadiffusion.sampler import Sampler, Weaker, seeded
from tests.tiny_base import write_tiny_base
from tests.tiny_sampler import CLARKII, CORNUTUS, RANKS, make

SISTER = Guidance(3.0, base="sister")
WEAKER = Guidance(3.0, base="weaker model")
PINK = Context("over pink")


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
        Request(CORNUTUS, 5, Guidance(2.0), context=PINK),
        Request(CLARKII, 6, context=Context("over black", -1.0)),
        Request(CLARKII, 7, WEAKER, context=PINK),
        Request(CLARKII, 8, SISTER, sister=CORNUTUS, context=Context("over pink", 4.0)),
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


def test_a_context_is_a_difference_of_two_captions_beside_whatever_guides() -> None:
    null, caption = Mix(Lineage()), Mix(Lineage(), caption="over pink")
    for plain in (
        Request(CLARKII, 0),
        Request(CLARKII, 0, Guidance(3.0, "family")),
        Request(CLARKII, 0, WEAKER),
        Request(CLARKII, 0, SISTER, sister=CORNUTUS),
        Request(CLARKII, 0, Guidance(2.0), towards=CORNUTUS, fraction=0.25),
        Request(CLARKII, 0, Guidance(2.0), blend=((CLARKII, 0.75), (CORNUTUS, 0.25))),
    ):
        added = dict(terms(replace(plain, context=PINK)))
        assert added.pop(caption) == 2.0
        assert added.pop(null) == dict(terms(plain)).get(null, 0.0) - 2.0  # T("") is the null
        assert added == {mix: coefficient for mix, coefficient in terms(plain) if mix != null}
        assert terms(replace(plain, context=Context("over pink", 0.0))) == terms(plain)


def test_a_picture_with_a_context_is_the_one_that_the_formula_gives(denoiser: Denoiser) -> None:
    """M9, step by step; without guidance by the taxon it acts too, and outside of the interval neither does."""
    backbone = denoiser.backbone
    with torch.no_grad():
        null, taxon = denoiser.conditioner([Lineage(), CLARKII]).split(1)
        caption, empty = backbone.text(["over pink", ""]).split(1)
        for scale, low in ((3.0, 0.0), (1.0, 0.0), (3.0, 0.5)):
            scheduler = backbone.schedule.scheduler(None)
            scheduler.set_timesteps(3)
            latents = torch.randn((1, *backbone.latent_shape), generator=seeded(4))
            for t in scheduler.timesteps:
                v = {name: backbone(latents, t.expand(1), c) for name, c in
                     (("null", null), ("taxon", taxon), ("caption", caption), ("empty", empty))}  # fmt: skip
                guided = v["null"] + scale * (v["taxon"] - v["null"]) + 2.0 * (v["caption"] - v["empty"])
                acts = backbone.schedule.noise_fraction(int(t)) >= low
                latents = scheduler.step(guided if acts else v["taxon"], t, latents).prev_sample
            expected = backbone.decode(latents).astype(int)
            request = Request(CLARKII, 4, Guidance(scale, interval=(low, 1.0)), context=PINK)
            assert np.abs(drawn(denoiser, request) - expected).max() <= 2
            assert np.abs(drawn(denoiser, replace(request, context=None)) - expected).max() > 2


def test_no_context_and_one_of_scale_zero_are_the_same_picture(denoiser: Denoiser) -> None:
    request = Request(CLARKII, 0, Guidance(3.0))
    plain, nothing = drawn(denoiser, request), replace(request, context=Context("over pink", 0.0))
    assert np.array_equal(drawn(denoiser, nothing), plain)
    assert not np.array_equal(drawn(denoiser, replace(request, context=PINK)), plain)


def test_captions_are_encoded_once(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    tokens = denoiser.backbone.text.tokens

    def counted(texts: list[str]) -> Tensor:
        encoded.extend(texts)
        return tokens(texts)

    requests = [Request(CLARKII, seed, context=PINK) for seed in range(4)]
    known = conditions_of(denoiser.conditioner, [Mix(CLARKII)], {})
    monkeypatch.setattr(denoiser.backbone.text, "tokens", counted)
    for request in requests:
        known = conditions_of(denoiser.conditioner, [mix for mix, _ in terms(request)], known)
    assert encoded.count("over pink") == 1


def test_contexts_that_cannot_be_are_refused(denoiser: Denoiser, base: Path) -> None:
    with pytest.raises(SettingsError, match="a context is a caption in words"):
        Context(" ")
    with pytest.raises(SettingsError, match="must be a number, got nan"):
        Context("over pink", float("nan"))
    with pytest.raises(SettingsError, match="tokens, 77 are allowed"):
        drawn(denoiser, Request(CLARKII, 0, context=Context("pink " * 40)))
    other = make(base)
    other.conditioner = PromptConditioner(RANKS, other.backbone.text, PromptSettings(num_parts=2))
    with pytest.raises(SettingsError, match="its conditions of taxa have 154 tokens, a caption has 77"):
        drawn(other, Request(CLARKII, 0, context=PINK))
