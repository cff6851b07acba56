"""Laws of the guidance arithmetic."""

from __future__ import annotations

import pytest
import torch

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance, combined, guided, rank_guided
from taxadiffusion.names import Lineage

LINEAGE = Lineage.of({"order": "Perciformes", "family": "Pomacentridae", "genus": "Amphiprion", "species": "clarkii"})


def predictions(number: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(number)]


def summed(parts: list[torch.Tensor], coefficients: list[float]) -> torch.Tensor:
    """`combined`, for two pictures predicted under the same conditions."""
    order = [(part[picture], c, picture) for part, c in zip(parts, coefficients, strict=True) for picture in (1, 0)]
    rows, weights, pictures = zip(*order, strict=True)
    return combined(torch.stack(rows), torch.tensor(weights), torch.tensor(pictures), 2)


def test_guidance_that_is_not_asked_for_predicts_the_target_alone() -> None:
    assert Guidance().terms(LINEAGE) == ((LINEAGE, 1.0),)


def test_scale_one_is_the_target_and_scale_zero_the_base() -> None:
    base, target = predictions(2)
    assert torch.equal(guided(base, target, 1.0), target)
    torch.testing.assert_close(guided(base, target, 0.0), base)


def test_guided_is_the_published_formula_with_w_one_less_than_the_scale() -> None:
    base, target = predictions(2)
    w = 8.0
    torch.testing.assert_close(guided(base, target, 1 + w), (1 + w) * target - w * base)


def test_equal_rank_scales_are_one_scale() -> None:
    chain = predictions(4)
    torch.testing.assert_close(rank_guided(chain, [5.0] * 3), guided(chain[0], chain[-1], 5.0))


def test_rank_scales_of_one_are_the_target() -> None:
    chain = predictions(4)
    torch.testing.assert_close(rank_guided(chain, [1.0] * 3), chain[-1])


def test_a_scale_missing_for_a_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="3 predictions need 2 scales, got 1"):
        rank_guided(predictions(3), [1.0])


@pytest.mark.parametrize("rank", [None, "order", "genus"])
def test_terms_are_the_guided_sum(rank: str | None) -> None:
    terms = Guidance(scale=9.0, rank=rank).terms(LINEAGE)
    base, target = predictions(2)
    assert [lineage for lineage, _ in terms] == [LINEAGE.truncated(rank) if rank else Lineage(), LINEAGE]
    torch.testing.assert_close(summed([base, target], [c for _, c in terms]), guided(base, target, 9.0))


def test_terms_with_rank_scales_are_the_rank_guided_sum() -> None:
    guidance = Guidance(scale=2.0, rank="order", rank_scales=(("family", 3.0), ("species", 7.0)))
    terms = guidance.terms(LINEAGE)
    assert [lineage.rank for lineage, _ in terms] == ["order", "family", "genus", "species"]
    chain = predictions(4)
    torch.testing.assert_close(summed(chain, [c for _, c in terms]), rank_guided(chain, [3.0, 2.0, 7.0]))


def test_coefficients_add_up_to_one() -> None:
    for guidance in (Guidance(4.0), Guidance(4.0, "family"), Guidance(4.0, None, rank_scales=(("genus", 0.5),))):
        assert sum(c for _, c in guidance.terms(LINEAGE)) == pytest.approx(1.0)


def test_no_second_prediction_where_it_could_not_matter() -> None:
    assert Guidance(1.0).terms(LINEAGE) == ((LINEAGE, 1.0),)
    assert Guidance(9.0, "species").terms(LINEAGE) == ((LINEAGE, 1.0),)
    assert Guidance(9.0).terms(Lineage()) == ((Lineage(), 1.0),)
    assert Guidance(0.0, "order").terms(LINEAGE) == ((LINEAGE.truncated("order"), 1.0),)


def test_interval_bounds_are_inclusive_and_checked() -> None:
    guidance = Guidance(3.0, interval=(0.25, 0.75))
    assert [guidance.acts(f) for f in (0.2, 0.25, 0.5, 0.75, 0.8)] == [False, True, True, True, False]
    assert Guidance(3.0, interval=(0.0, 1.0)).acts(0.0)
    assert Guidance(3.0, interval=(0.0, 1.0)).acts(1.0)
    for interval in ((0.5, 0.5), (0.6, 0.5), (-0.01, 0.5), (0.5, 1.01)):
        with pytest.raises(SettingsError, match="interval"):
            Guidance(3.0, interval=interval)


def test_an_unknown_rank_is_refused() -> None:
    with pytest.raises(DataError, match="unknown rank 'phyllum'"):
        Guidance(3.0, rank="phyllum")


def test_every_way_to_sample_has_the_same_default_scale() -> None:
    """The commands spell the number, for their help must not import torch."""
    from inspect import signature

    from taxadiffusion.cli.evaluate import evaluate
    from taxadiffusion.cli.generate import generate
    from taxadiffusion.cli.reproduce import reproduce
    from taxadiffusion.config import Settings
    from taxadiffusion.pipeline import TaxaDiffusionPipeline
    from taxadiffusion.reproduce.run import Options

    for call in (generate, evaluate, reproduce, TaxaDiffusionPipeline.__call__):
        assert signature(call).parameters["guidance_scale"].default == DEFAULT_SCALE
    assert Settings().preview.guidance_scale == Options().guidance_scale == DEFAULT_SCALE
