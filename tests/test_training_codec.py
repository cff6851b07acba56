"""The base's codec: a linear map that stock diffusers encodes exactly; a decoder that begins from a narrower one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from training.codec import Codec, autoencoder, write_encoder
from training.judge_codec import LEARNT, LINEAR, UNTOUCHED, Passes, rows_of
from training.widen import copies, widened

from taxadiffusion.base.weights import resolve_base
from taxadiffusion.names import Lineage


def pictures(number: int = 6, side: int = 64) -> torch.Tensor:
    """Smooth pictures with a little of everything, (B, 3, H, W) in [-1, 1]."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(number, 3, 12, 12, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bicubic")
    return (0.6 * smooth + 0.1 * torch.randn(number, 3, side, side, generator=draw)).clamp(-1, 1)


@pytest.mark.parametrize("number", [16, 21, 24, 32])
def test_the_encoder_of_a_stock_autoencoder_is_the_linear_map(number: int) -> None:
    x = pictures()
    codec, vae = Codec.fit(x, number), autoencoder(number)
    write_encoder(vae, codec)
    wanted = codec.encode(x)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        assert (posterior.mean - wanted).abs().max() < 1e-3  # latents have a standard deviation of 1
        assert posterior.std.max() < 1e-4
        rounded = vae.half().float().encode(x).latent_dist.mean
    assert (rounded - wanted).abs().max() < 1e-2


def test_components_are_the_leading_ones_and_decode_by_least_squares() -> None:
    x = pictures()
    many, few = Codec.fit(x, 32), Codec.fit(x, 16)
    errors = [(codec.decode(codec.encode(x)) - x).square().mean() for codec in (few, many)]
    assert errors[1] < errors[0]
    cut = many.first(16)
    torch.testing.assert_close(cut.decode(cut.encode(x)), few.decode(few.encode(x)), atol=1e-4, rtol=0)
    again = many.encode(many.decode(many.encode(x)))
    torch.testing.assert_close(again, many.encode(x), atol=1e-4, rtol=0)
    assert abs(float(many.encode(x).var(dim=(0, 2, 3)).mean()) - 1) < 0.05


@pytest.mark.parametrize("number", [15, 33])
def test_a_number_of_components_that_the_autoencoder_cannot_carry_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="16 to 32"):
        Codec.fit(pictures(2), number)


def test_copied_channels_compute_the_same() -> None:
    draw = torch.Generator().manual_seed(1)
    narrow = [torch.randn(16, 32, 3, 3, generator=draw), torch.randn(8, 16, 3, 3, generator=draw)]
    x = torch.randn(2, 32, 5, 5, generator=draw)
    wide = [widened(narrow[0], torch.Size((24, 48, 3, 3))), widened(narrow[1], torch.Size((8, 24, 3, 3)))]
    of_narrow = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, narrow[0]).relu(), narrow[1])
    of_wide = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x[:, copies(32, 48)], wide[0]).relu(), wide[1])
    torch.testing.assert_close(of_wide, of_narrow, atol=1e-3, rtol=1e-4)
    groups = copies(32, 64).reshape(8, 8)
    assert all(set(groups[g].tolist()) == set(range(4 * g, 4 * g + 4)) for g in range(8))


def test_the_decoder_has_no_attention_and_decodes_any_size() -> None:
    vae = autoencoder(24)
    assert isinstance(vae, AutoencoderKL)
    assert vae.decoder.mid_block.attentions[0] is None
    with torch.no_grad():
        assert vae.decode(torch.zeros(1, 24, 3, 5)).sample.shape == (1, 3, 24, 40)


def test_a_shipped_base_is_judged_by_its_own_autoencoder() -> None:
    ramp = np.linspace(40, 200, 64, dtype=np.uint8)
    image = np.broadcast_to(ramp, (1, 3, 64, 64))
    found = Passes(resolve_base("base-128"))(image)
    assert set(found) == {LINEAR, LEARNT}
    for pixels in found.values():
        assert pixels.shape == image.shape
        assert np.abs(pixels.astype(int) - image).mean() < 10  # out of 255: a smooth picture passes


def test_a_decoders_share_is_that_of_the_accuracy_of_untouched_photographs() -> None:
    taxa = [Lineage.of({"genus": "A", "species": name}) for name in ("a", "a", "b", "b", "c", "c")]
    untouched = np.array([True, True, True, True, True, False])
    learnt = np.array([True, False, True, True, True, False])
    rows = rows_of({UNTOUCHED: untouched, LEARNT: learnt}, taxa)
    assert [row.way for row in rows] == [UNTOUCHED, LEARNT]
    assert rows[0].share is None
    assert rows[1].accuracy.mean == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert rows[1].share is not None
    assert rows[1].share.mean == pytest.approx((2 / 3) / (2.5 / 3))
    assert rows[1].share.low < rows[1].share.mean < rows[1].share.high
