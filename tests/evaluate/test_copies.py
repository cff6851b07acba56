"""Laws of the search for copies: planted ones are found, unseen ones hardly ever flagged, and blindness is said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.evaluate.copies import MAX_LOOKED_AT, CopyJudge, CopySettings, not_looked
from taxadiffusion.evaluate.memorisation import CopyFindings, CopyFound, Eyesight
from taxadiffusion.evaluate.pictures import base_of
from taxadiffusion.evaluate.planted import CHANGES, JUDGED, KINDS, PARTIAL, Planter, image_to_image, noised
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.copies import (
    PARTS,
    candidates,
    contrast_maps,
    likeness,
    middle_of,
    standing,
    threshold_at,
)
from taxadiffusion.names import Lineage
from tests.tiny_run import tiny_base

SIZE = 32
TAXA = [Lineage.of({"genus": "Ga", "species": name}) for name in ("alba", "bruna", "clara", "densa")]


def smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """(3, s, s) of random structure, `cells` across."""
    coarse = torch.from_numpy(rng.normal(size=(1, 3, cells, cells)))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0].numpy()


def photographs(seed: int, number: int) -> np.ndarray:
    """uint8 (N, 3, s, s): a scene of its own and an animal of its own in the middle of each."""
    rng = np.random.default_rng(seed)
    middle = middle_of(SIZE)
    pictures = [(1 - middle) * smooth(rng, 7) + middle * smooth(rng, 9) for _ in range(number)]
    return (128 + 40 * np.stack(pictures)).round().clip(0, 255).astype(np.uint8)


def recoloured(images: np.ndarray) -> np.ndarray:
    gain, offset = np.array([0.7, 1.3, 0.9])[:, None, None], np.array([25, -20, 10])[:, None, None]
    return ((images - 128.0) * gain + 128 + offset).round().clip(0, 255).astype(np.uint8)


def cropped(images: np.ndarray) -> np.ndarray:
    """The upper left nine tenths, scaled back."""
    part = torch.from_numpy(images[:, :, : SIZE * 9 // 10, : SIZE * 9 // 10].astype(np.float32))
    return torch.nn.functional.interpolate(part, SIZE, mode="bilinear").round().clamp(0, 255).byte().numpy()


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "itself": lambda images: images,
    "mirrored": lambda images: images[..., ::-1],
    "cropped": cropped,
    "recoloured": recoloured,
    "all of it": lambda images: recoloured(cropped(images[..., ::-1])),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_copy_stands_out_from_all_other_photographs_whatever_was_done_to_it(change: Any) -> None:
    originals, others = photographs(0, 30), photographs(1, 30)
    maps = contrast_maps(np.concatenate([originals, others]))
    everything = np.tile(np.arange(60), (30, 1))
    copies = likeness(contrast_maps(change(originals)), maps, everything)
    fresh = likeness(contrast_maps(photographs(2, 30)), maps, everything)
    for part in PARTS:
        assert (copies[part].argmax(1) == np.arange(30)).all()
        assert standing(copies[part]).min() > standing(fresh[part]).max()


@pytest.mark.parametrize("top", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_a_crop_is_found_at_each_of_nine_places(top: float, left: float) -> None:
    originals, size = photographs(9, 6), round(SIZE * 0.85)
    y, x = round((SIZE - size) * top), round((SIZE - size) * left)
    part = torch.from_numpy(originals[:, :, y : y + size, x : x + size].astype(np.float32))
    crops = torch.nn.functional.interpolate(part, SIZE, mode="bilinear").round().clamp(0, 255).byte().numpy()
    found = likeness(contrast_maps(crops), contrast_maps(originals), np.arange(6)[:, None])
    for values in found.values():
        assert values.min() > 0.9


def test_a_picture_stands_out_unless_twenty_others_are_as_like() -> None:
    rng = np.random.default_rng(8)
    likenesses = rng.uniform(0, 0.2, size=(1, 60))
    for alike, stands_out in ((1, True), (20, True), (21, False), (40, False)):
        likenesses[0, :alike] = 0.8
        assert (float(standing(likenesses)[0]) > 0.5) == stands_out
    assert float(standing(np.array([[0.5, 0.0]]))[0]) == pytest.approx(np.arctanh(0.5))


def test_contrast_of_a_dull_picture_is_that_of_a_bright_one() -> None:
    """Structure counts over its own spread, so half the contrast is nearly the same map."""
    images = photographs(10, 4)
    dull = (128 + (images - 128.0) / 2).round().astype(np.uint8)
    plain = contrast_maps(images)
    assert np.abs(contrast_maps(dull) - plain).mean() < 0.2 * np.abs(plain).mean()


@pytest.mark.parametrize("rows", [2, 4])
def test_likeness_needs_a_row_of_candidates_for_each_picture(rows: int) -> None:
    maps = contrast_maps(photographs(3, 3))
    with pytest.raises(ValueError, match="a row of candidates for each picture"):
        likeness(maps, maps, np.zeros((rows, 2), dtype=int))


def test_likeness_is_one_for_the_same_and_at_most_one() -> None:
    images = photographs(3, 12)
    found = likeness(contrast_maps(images), contrast_maps(images), np.tile(np.arange(12), (12, 1)))
    for part in PARTS:
        assert np.diagonal(found[part]) == pytest.approx(1, abs=2e-4)
        assert found[part].max() <= 1 + 1e-4


def test_a_picture_is_judged_by_itself_whatever_its_neighbours_and_their_order() -> None:
    images, references = contrast_maps(photographs(4, 20)), contrast_maps(photographs(5, 40))
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(40)[:15] for _ in range(20)])
    whole = likeness(images, references, chosen)
    order = rng.permutation(20)
    shuffled = likeness(images[order], references, chosen[order])
    halves = [likeness(images[half], references, chosen[half]) for half in (slice(0, 7), slice(7, 20))]
    places = rng.permutation(40)  # the same references, lying elsewhere
    moved = likeness(images, references[np.argsort(places)], places[chosen])
    for part in PARTS:
        assert np.array_equal(whole[part][order], shuffled[part])
        assert np.array_equal(whole[part], np.concatenate([half[part] for half in halves]))
        assert np.array_equal(whole[part], moved[part])


def test_scene_and_animal_are_told_apart() -> None:
    originals, others = photographs(6, 30), photographs(7, 30)
    middle = middle_of(SIZE)
    maps = contrast_maps(originals)
    everything = np.tile(np.arange(30), (30, 1))

    def found(weight: np.ndarray) -> dict[Any, Any]:
        joined = (weight * originals + (1 - weight) * others).round().astype(np.uint8)
        return likeness(contrast_maps(joined), maps, everything)

    animal, scene = found(middle), found(1 - middle)
    own = np.arange(30)
    assert (animal["animal"][own, own] > animal["scene"][own, own] + 0.2).all()
    assert (scene["scene"][own, own] > scene["animal"][own, own] + 0.2).all()


def test_candidates_are_the_nearest_by_cosine_whatever_the_length() -> None:
    rng = np.random.default_rng(1)
    references = rng.normal(size=(300, 8)).astype(np.float32)
    queries = rng.normal(size=(50, 8)).astype(np.float32)
    unit = references / np.linalg.norm(references, axis=1, keepdims=True)
    expected = np.argsort(-(queries @ unit.T), axis=1, kind="stable")[:, :9]
    stretched = references * rng.uniform(0.1, 9, (300, 1)).astype(np.float32)
    assert np.array_equal(candidates(queries * 7, stretched, 9), expected)
    assert np.array_equal(np.sort(candidates(queries, references[:4], 9)), np.tile(np.arange(4), (50, 1)))


@pytest.mark.parametrize("number", [1, 2, 8, 50, 64, 500])
def test_of_many_photographs_the_nearest_are_candidates_and_in_order(number: int) -> None:
    rng = np.random.default_rng(5)
    queries, photographs = (rng.normal(size=(n, 12)).astype(np.float32) for n in (80, 3000))
    unit = photographs / np.linalg.norm(photographs, axis=1, keepdims=True)
    likeness = queries @ unit.T
    found = np.take_along_axis(likeness, candidates(queries, photographs, number), axis=1)
    assert np.allclose(found, -np.sort(-likeness, axis=1)[:, :number], rtol=1e-5, atol=1e-5)


def test_the_threshold_flags_at_most_the_stated_share_of_further_photographs() -> None:
    rng = np.random.default_rng(2)
    flagged = []
    for _ in range(400):
        threshold = threshold_at(rng.gumbel(size=150), 0.01)
        assert threshold is not None
        flagged.append(np.mean(rng.gumbel(size=200) > threshold))
    assert 0.004 < np.mean(flagged) <= 0.0105  # 1 of 151 here
    assert threshold_at(np.arange(98.0), 0.01) is None
    assert threshold_at(np.arange(99.0), 0.01) == 98


# ---- the whole search, on a base that blurs


class Blur:
    """An autoencoder that keeps half the resolution; nothing of a U-Net."""

    device = torch.device("cpu")

    def encode(self, images: np.ndarray) -> Tensor:
        return torch.nn.functional.avg_pool2d(torch.from_numpy(images).float(), 2)

    def decode(self, latents: Tensor) -> np.ndarray:
        doubled = torch.nn.functional.interpolate(latents, scale_factor=2, mode="bilinear")
        return doubled.round().clamp(0, 255).byte().numpy()


class Grey:
    """An autoencoder from which nothing comes back."""

    device = torch.device("cpu")

    def encode(self, images: np.ndarray) -> Tensor:
        return torch.zeros(len(images), 1, 1, 1)

    def decode(self, latents: Tensor) -> np.ndarray:
        noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64))
        return np.stack([noise.astype(np.uint8)] * len(latents))


def noise_added(latents: Tensor, strength: float, seed: int) -> Tensor:
    return latents + 150 * strength**2 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def planter(base: object) -> Planter:
    return Planter(cast(Backbone, base), noise_added)


class Lines:
    """Features that a mirror image shares: means and spreads of lines."""

    name = "lines"
    content_hash = "a" * 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        lines = images.astype(np.float32).reshape(len(images), 3, 8, -1)
        return np.concatenate([lines.mean(3).reshape(len(images), -1), lines.std(3).reshape(len(images), -1)], 1)


def side(images: np.ndarray, name: str, taxa: list[Lineage] = TAXA) -> Side:
    return Side(
        Lines()(images),
        tuple(taxa[i % len(taxa)] for i in range(len(images))),
        tuple(f"{name}-{i}" for i in range(len(images))),
        (0,) * len(images),
        lambda i, _: images[i],
    )


def judge(train: np.ndarray, unseen: np.ndarray, base: object = Blur(), seed: int = 0) -> CopyJudge:
    settings = CopySettings(SIZE, expected=0.01, seed=seed)
    return CopyJudge(side(train, "train"), side(unseen, "unseen"), Lines(), planter(base), settings)


@pytest.fixture(scope="module", autouse=True)
def _few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taxadiffusion.evaluate.copies.MAX_PLANTED", 24)
        patch.setattr("taxadiffusion.evaluate.copies.NUM_CANDIDATES", 60)
        yield


@pytest.fixture(scope="module")
def trained() -> CopyJudge:
    return judge(photographs(10, 120), photographs(11, 120))


def test_planted_copies_are_found_and_the_weaker_the_stronger_the_noise(trained: CopyJudge) -> None:
    sight = trained.eyesight["picture"]
    for kind in CHANGES:
        assert sight.planted[kind].share >= 0.9
    shares = [sight.planted[noised(strength)].share for strength in (0.3, 0.5, 0.7)]
    assert shares == sorted(shares, reverse=True)
    assert set(sight.planted) == {*KINDS, *PARTIAL}
    counted = [sight.planted[kind] for kind in JUDGED["picture"]]
    assert sight.judged == CopyFound(sum(c.found for c in counted), sum(c.of for c in counted))
    assert trained.eyesight["animal"].planted["animal alone"].share > 0.5
    assert trained.eyesight["scene"].planted["scene alone"].share > 0.5


def test_a_method_that_copies_is_caught_with_the_originals_and_one_that_draws_anew_is_not(trained: CopyJudge) -> None:
    passed = Blur().decode(Blur().encode(photographs(10, 120)[:40, :, :, ::-1].copy()))
    caught = trained(side(passed, "made"), "species")
    assert caught.flagged["picture"].mean >= 0.95
    assert all(pair.photograph == pair.generated.replace("made", "train") and pair.flagged for pair in caught.pairs)
    assert {taxon: found.of for taxon, found in caught.taxa.items()} == dict.fromkeys(TAXA, 10)
    honest = trained(side(Blur().decode(Blur().encode(photographs(12, 200))), "made"), "species")
    assert honest.flagged["picture"].mean <= 0.03
    assert honest.flagged["picture"].low <= honest.flagged["picture"].mean < honest.flagged["picture"].high
    assert "planted" in honest.verdict()


def test_what_is_said_follows_from_photographs_and_seed(trained: CopyJudge) -> None:
    again = judge(photographs(10, 120), photographs(11, 120))
    assert again.eyesight == trained.eyesight
    pictures = side(photographs(13, 30), "made")
    assert again(pictures, "species") == trained(pictures, "species")


def test_of_very_many_pictures_a_stated_sample_is_looked_at(
    trained: CopyJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxadiffusion.evaluate.copies.MAX_LOOKED_AT", 20)
    found = trained(side(photographs(14, 60), "made"), "species")
    assert (found.num_images, found.num_looked_at) == (60, 20)
    assert {of.of for of in found.taxa.values()} == {5}  # evenly over the taxa
    assert MAX_LOOKED_AT >= 1000


BLIND = {
    "too few unseen photographs": (160, 98, Blur(), "98 unseen photographs are too few"),
    "few photographs to copy": (1, 120, Blur(), "only 7 copies could be planted"),
    "an autoencoder that leaves nothing": (40, 120, Grey(), "0% of 168 planted copies"),
}


@pytest.mark.parametrize(("num_train", "num_unseen", "base", "why"), BLIND.values(), ids=BLIND)
def test_it_cannot_tell_and_gives_no_number(num_train: int, num_unseen: int, base: object, why: str) -> None:
    blind = judge(photographs(10, num_train), photographs(11, num_unseen), base)
    found = blind(side(photographs(13, 10), "made"), "species")
    assert why in cast(str, found.cannot_tell())
    assert found.verdict().startswith("cannot tell: ")
    assert found.flagged == {} and found.taxa == {} and found.buckets == {}  # noqa: PT018
    written = json.loads(json.dumps(found.to_json()))["parts"]["picture"]
    assert written["flagged"] is None
    assert why in written["cannot_tell"]


def test_taxa_whose_copies_would_not_be_seen_are_left_without_a_number() -> None:
    sight = Eyesight(
        0.5,
        0.01,
        500,
        {},
        CopyFound(90, 100),
        {"1–5": CopyFound(3, 10), "6–20": CopyFound(2, 4), ">100": CopyFound(9, 10)},
    )
    assert sight.cannot_tell() is None
    assert sight.cannot_tell(">100") is None
    assert "30% of 10" in cast(str, sight.cannot_tell("1–5"))
    assert "only 4" in cast(str, sight.cannot_tell("6–20"))
    assert "only 0" in cast(str, sight.cannot_tell("21–100"))


def test_where_nothing_was_planted_nothing_is_said() -> None:
    found = not_looked(12, "no base")
    assert found.verdict() == "cannot tell: no base"
    assert isinstance(found, CopyFindings)
    assert found.to_json()["cannot_tell"] == "no base"
    assert found.to_json()["parts"] == {}
    assert dataclasses.replace(found, reason="x").cannot_tell("scene") == "x"


def test_image_to_image_gives_back_the_latents_where_the_network_knows_the_noise() -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    schedule = NoiseSchedule({"_class_name": "DDIMScheduler", "prediction_type": "epsilon", **betas})
    base = cast(Backbone, SimpleNamespace(schedule=schedule, device=torch.device("cpu")))
    latents = torch.randn(40, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def predict(noisy: Tensor, timesteps: Tensor, rows: slice) -> Tensor:
        alpha = schedule.alphas_cumprod[timesteps.long()][:, None, None, None]
        return (noisy - alpha.sqrt() * latents[rows]) / (1 - alpha).sqrt()

    assert torch.allclose(image_to_image(latents, 0.5, 0, base, predict), latents, atol=0.05)
    assert not torch.allclose(image_to_image(latents, 0.5, 0, base, lambda noisy, *_: noisy * 0), latents, atol=0.05)


def test_every_kind_of_copy_is_planted_on_a_real_base_and_follows_from_the_seed() -> None:
    planted_by = Planter(Backbone.load(str(tiny_base())))
    originals = photographs(20, 3)
    copies = planted_by(originals, 0)
    assert tuple(copies) == KINDS
    assert {images.shape for images in copies.values()} == {originals.shape}
    again, other = planted_by(originals, 0), planted_by(originals, 1)
    for kind in KINDS:
        assert np.array_equal(copies[kind], again[kind])
        assert np.array_equal(copies[kind], other[kind]) == (kind in ("unchanged", "mirrored"))


@pytest.mark.parametrize(
    ("column", "expected"),
    [(["nano", "nano"], "nano"), (["nano", "a/b"], None), (["local", "local"], None), (["", ""], None)],
)
def test_a_folders_base_is_the_one_that_its_table_names_for_all(
    tmp_path: Path, column: list[str], expected: str | None
) -> None:
    rows = "".join(f"{i}.png,{base}\n" for i, base in enumerate(column))
    (tmp_path / "metadata.csv").write_text(f"file_name,base\n{rows}")
    assert base_of(tmp_path) == expected
