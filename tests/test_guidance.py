"""Laws of the guidance arithmetic."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance, combined
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


def published(base: torch.Tensor, target: torch.Tensor, w: float) -> torch.Tensor:
    """The paper's formula; scale = 1 + w."""
    return (1 + w) * target - w * base


def rank_by_rank(chain: list[torch.Tensor], scales: list[float]) -> torch.Tensor:
    """`ε(c⁰) + Σ_i s_i·(ε(c^i) − ε(c^{i−1}))`, as it is printed."""
    steps = zip(pairwise(chain), scales, strict=True)
    return chain[0] + torch.stack([scale * (fine - coarse) for (coarse, fine), scale in steps]).sum(0)


def test_scale_one_is_the_target_and_scale_zero_the_base() -> None:
    assert Guidance(1.0, "order").terms(LINEAGE) == ((LINEAGE, 1.0),)
    assert Guidance(0.0, "order").terms(LINEAGE) == ((LINEAGE.truncated("order"), 1.0),)


def test_equal_rank_scales_are_one_scale() -> None:
    scales = tuple((rank, 5.0) for rank in ("family", "genus", "species"))
    assert Guidance(2.0, "order", rank_scales=scales).terms(LINEAGE) == Guidance(5.0, "order").terms(LINEAGE)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    for given in ({"scale": scale}, {"scale": 2.0, "rank_scales": (("genus", scale),)}):
        with pytest.raises(SettingsError, match="must be numbers, got"):
            Guidance(**given)


@pytest.mark.parametrize("rank", [None, "order", "genus"])
def test_terms_are_the_published_formula(rank: str | None) -> None:
    terms = Guidance(scale=9.0, rank=rank).terms(LINEAGE)
    base, target = predictions(2)
    assert [lineage for lineage, _ in terms] == [LINEAGE.truncated(rank) if rank else Lineage(), LINEAGE]
    torch.testing.assert_close(summed([base, target], [c for _, c in terms]), published(base, target, 8.0))


def test_terms_with_rank_scales_are_the_sum_over_ranks() -> None:
    guidance = Guidance(scale=2.0, rank="order", rank_scales=(("family", 3.0), ("species", 7.0)))
    terms = guidance.terms(LINEAGE)
    assert [lineage.rank for lineage, _ in terms] == ["order", "family", "genus", "species"]
    chain = predictions(4)
    torch.testing.assert_close(summed(chain, [c for _, c in terms]), rank_by_rank(chain, [3.0, 2.0, 7.0]))


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
    from inspect import signature

    from taxadiffusion.cli.evaluate import evaluate
    from taxadiffusion.cli.generate import generate
    from taxadiffusion.cli.reproduce import reproduce
    from taxadiffusion.config import Settings
    from taxadiffusion.pipeline import TaxaDiffusionPipeline
    from taxadiffusion.tables.reproduction import Options

    for call in (generate, evaluate, reproduce, TaxaDiffusionPipeline.__call__):
        assert signature(call).parameters["guidance_scale"].default == DEFAULT_SCALE
    assert Settings().preview.guidance_scale == Options().guidance_scale == DEFAULT_SCALE
