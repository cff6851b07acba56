"""Fixed rules for every kind of picture, aspect kept, clean pictures untouched, bad ones refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps

from taxadiffusion.images import (
    ImageError,
    colour_layout,
    content_box,
    decode_image,
    fit_image,
    image_grid,
    layout_distance,
    load_image,
    perceptual_hash,
)
from taxadiffusion.readers import Box

SIZE = (16, 12)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, "picture").picture)


def flat(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, SIZE, colour)


def palette(transparent: int | None = None) -> bytes:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return encoded(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def grey_16(value: int, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(np.full(SIZE[::-1], value, np.uint16)), kind)


def animated(kind: str) -> bytes:
    frames = [flat("RGB", (250, 0, 0)), flat("RGB", (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


GOLDEN: list[tuple[str, bytes, tuple[int, int, int], int]] = [
    ("grey", encoded(flat("L", 77), "PNG"), (77, 77, 77), 0),
    ("black and white", encoded(flat("1", 1), "PNG"), (255, 255, 255), 0),
    ("rgb png", encoded(flat("RGB", (9, 99, 199)), "PNG"), (9, 99, 199), 0),
    ("rgb bmp", encoded(flat("RGB", (9, 99, 199)), "BMP"), (9, 99, 199), 0),
    ("rgb tiff", encoded(flat("RGB", (9, 99, 199)), "TIFF"), (9, 99, 199), 0),
    ("rgb webp", encoded(flat("RGB", (9, 99, 199)), "WEBP", lossless=True), (9, 99, 199), 0),
    ("rgb gif", encoded(flat("RGB", (9, 99, 199)), "GIF"), (9, 99, 199), 0),
    ("rgb jpeg", encoded(flat("RGB", (9, 99, 199)), "JPEG", quality=95), (9, 99, 199), 3),
    ("grey jpeg", encoded(flat("L", 77), "JPEG", quality=95), (77, 77, 77), 3),
    ("palette", palette(), (200, 100, 50), 0),
    ("palette, that colour transparent", palette(1), (255, 255, 255), 0),
    ("palette, another colour transparent", palette(0), (200, 100, 50), 0),
    ("rgb with a transparent colour", encoded(flat("RGB", (9, 9, 9)), "PNG", transparency=(9, 9, 9)), (255,) * 3, 0),
    ("half transparent", encoded(flat("RGBA", (100, 0, 50, 128)), "PNG"), (177, 127, 152), 1),
    ("transparent", encoded(flat("RGBA", (100, 0, 50, 0)), "PNG"), (255, 255, 255), 0),
    ("grey with alpha", encoded(flat("LA", (100, 128)), "PNG"), (177, 177, 177), 1),
    ("transparent webp", encoded(flat("RGBA", (1, 2, 3, 0)), "WEBP", lossless=True), (255, 255, 255), 0),
    ("16-bit white", grey_16(65_535), (255, 255, 255), 0),
    ("16-bit middle is scaled, not clipped", grey_16(257 * 100), (100, 100, 100), 0),
    ("16-bit dark", grey_16(256), (1, 1, 1), 0),
    ("16-bit tiff", grey_16(257 * 100, "TIFF"), (100, 100, 100), 0),
    ("cmyk white", encoded(flat("CMYK", (0, 0, 0, 0)), "JPEG", quality=95), (255, 255, 255), 3),
    ("cmyk black", encoded(flat("CMYK", (0, 0, 0, 255)), "JPEG", quality=95), (0, 0, 0), 3),
    ("cmyk cyan", encoded(flat("CMYK", (255, 0, 0, 0)), "TIFF"), (0, 255, 255), 0),
    ("animated gif, first frame", animated("GIF"), (250, 0, 0), 0),
    ("animated webp, first frame", animated("WEBP"), (250, 0, 0), 0),
    ("animated png, first frame", animated("PNG"), (250, 0, 0), 0),
]


@pytest.mark.parametrize(("data", "colour", "tolerance"), [case[1:] for case in GOLDEN], ids=[c[0] for c in GOLDEN])
def test_golden_pixels(data: bytes, colour: tuple[int, int, int], tolerance: int) -> None:
    found = pixels(data)
    assert found.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(found.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (11, 15)), (6, (0, 11)), (8, (15, 0))])
def test_pictures_are_turned_upright(orientation: int, corner: tuple[int, int]) -> None:
    image = flat("RGB", (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(encoded(image, "PNG", exif=exif))
    assert tuple(np.argwhere(found[..., 0] == 255)[0]) == corner


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(sea(24, 16), kind, exif=exif, lossless=True)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(data), np.asarray(ImageOps.exif_transpose(image)))


# Damaged metadata, whole pixels


def block_of_exif(orientation_first: bool = True) -> bytes:
    """Orientation 6, and a camera's name that lies beyond the end."""
    orientation, maker = (0x0112, 3, 1, 6), (0x010F, 2, 4000, 38)
    entries = (orientation, maker) if orientation_first else (maker, orientation)
    return b"II*\0" + struct.pack("<IH", 8, 2) + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4) + b"(#"


def with_exif(kind: str, exif: bytes) -> bytes:
    """TIFF has no block of its own for it: there the description lies beyond the end."""
    if kind != "TIFF":
        return encoded(sea(24, 16), kind, exif=b"Exif\0\0" + exif, lossless=True)
    whole = Image.Exif()
    whole[0x0112] = 6
    data = encoded(sea(24, 16), "TIFF", exif=whole, description="a description of some length")
    entry = data.index(struct.pack("<HH", 270, 2))
    return data[: entry + 4] + struct.pack("<II", 4000, len(data)) + data[entry + 12 :]


@pytest.mark.parametrize("orientation_first", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_exif_costs_no_pixel_and_keeps_the_orientation(kind: str, orientation_first: bool) -> None:
    decoded = decode_image(with_exif(kind, block_of_exif(orientation_first)), "picture")
    plain = pixels(encoded(sea(24, 16), kind, lossless=True))
    assert decoded.damaged == "EXIF"
    assert np.array_equal(np.asarray(decoded.picture), np.rot90(plain, -1))


UNREADABLE = [b"", b"II", b"XX*\0\0", block_of_exif()[:12], b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(4)]


@pytest.mark.parametrize("exif", UNREADABLE)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_cannot_be_read_turns_nothing(kind: str, exif: bytes) -> None:
    data = encoded(sea(24, 16), kind, exif=b"Exif\0\0" + exif, lossless=True)
    assert np.array_equal(pixels(data), pixels(encoded(sea(24, 16), kind, lossless=True)))


def test_damaged_mpf_costs_no_pixel() -> None:
    whole = encoded(sea(24, 16), "MPO", save_all=True, append_images=[sea(24, 16, 1)])
    bad = whole.replace(b"MPF\0I", b"MPF\0\xb6").replace(b"MPF\0M", b"MPF\0\xb6")
    assert bad != whole
    assert [decode_image(data, "picture").damaged for data in (whole, bad)] == [None, "MPF"]
    assert np.array_equal(pixels(bad), pixels(whole))
    exif = b"Exif\0\0" + block_of_exif()
    both = bad[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + bad[2:]
    decoded = decode_image(both, "picture")
    assert decoded.damaged == "EXIF, MPF"
    assert np.array_equal(np.asarray(decoded.picture), np.rot90(pixels(whole), -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_metadata_excuse_no_damaged_pixels(kind: str) -> None:
    data = with_exif(kind, block_of_exif())
    with pytest.raises(ImageError):
        decode_image(data[: len(data) * 2 // 3], "picture")


def swapped_profile() -> bytes:
    """sRGB with the primaries red and green exchanged, under another name."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = srgb.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    return renamed.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_colour_profile_is_converted_to_srgb(kind: str) -> None:
    data = encoded(flat("RGB", (60, 120, 30)), kind, icc_profile=swapped_profile())
    assert np.abs(pixels(data).astype(int) - (120, 60, 30)).max() <= 3


@pytest.mark.parametrize("profile", [b"no profile", b""])
def test_an_unusable_profile_counts_as_none(profile: bytes) -> None:
    data = encoded(flat("RGB", (60, 120, 30)), "PNG", icc_profile=profile)
    assert (pixels(data) == (60, 120, 30)).all()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = encoded(Image.effect_noise((64, 48), 80).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (JPEG[: len(JPEG) // 2], "does not decode"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "web page or XML"),
        (b"random bytes" * 50, "not a picture in an accepted format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in an accepted format"),
        (png_header(9_000, 9_000), "at most 64 Mpx"),
        (png_header(20_000, 20_000), "bomb"),
        (png_header(40_000, 10), "32768 px a side"),
        (png_header(4, 400), "at least 8"),
        (encoded(Image.fromarray(np.full((12, 16), 0.5, np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(path, 32)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing"):
        load_image(tmp_path / "none.jpg", 32)


def disc(width: int, height: int, x: float, y: float, radius: float = 20) -> Image.Image:
    image = Image.new("RGB", (width, height), (20, 120, 140))
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(250, 120, 10))
    return image


@pytest.mark.parametrize("fit", ["crop", "pad", "box"])
@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (90, 90), (333, 77)])
def test_aspect_is_kept(fit: Any, width: int, height: int) -> None:
    box = Box(width / 2 - 24, height / 2 - 24, 48, 48)
    square = fit_image(disc(width, height, width / 2, height / 2), 64, fit, box)
    assert square.shape == (3, 64, 64)
    orange = (square[0] > 200) & (square[2] < 60)
    tall, wide = np.ptp(np.flatnonzero(orange.any(1))) + 1, np.ptp(np.flatnonzero(orange.any(0))) + 1
    assert abs(int(tall) - int(wide)) <= 2


def test_pad_shows_everything_and_crop_the_centre() -> None:
    image = Image.new("RGB", (120, 40), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 20, 40))
    assert (fit_image(image, 60, "pad")[0, 25:35, :8] >= 254).all()
    assert (fit_image(image, 60, "crop")[0] == 0).all()


def test_a_box_is_centred_and_a_picture_without_one_is_cropped() -> None:
    image = disc(300, 100, 250, 50, 15)
    square = fit_image(image, 64, "box", Box(235, 35, 30, 30))
    centre = np.argwhere(square[0] > 200).mean(axis=0)
    assert np.abs(centre - 31.5).max() < 2
    assert np.array_equal(fit_image(image, 64, "box"), fit_image(image, 64, "crop"))


def test_a_large_jpeg_is_decoded_smaller_to_nearly_the_same(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    disc(2400, 1600, 1200, 800, 500).save(path, quality=95)
    slow = fit_image(Image.open(path).convert("RGB"), 64)
    fast = load_image(path, 64)
    assert np.abs(fast.astype(int) - slow.astype(int)).mean() < 1.5


# Video frames


def sea(width: int = 120, height: int = 100, seed: int = 0) -> Image.Image:
    """A smooth scene with a fish and a rough ground."""
    image = disc(width, height, width / 2, height / 2 + 5)
    noise = np.random.default_rng(seed).integers(-60, 60, (height, width, 1))
    ground = np.asarray(image).astype(int)
    ground[height * 3 // 4 :] += noise[height * 3 // 4 :]
    return Image.fromarray(ground.clip(30, 255).astype(np.uint8))


def banded(left: int, top: int, right: int, bottom: int) -> Image.Image:
    frame = Image.new("RGB", (120 + left + right, 100 + top + bottom))
    frame.paste(sea(), (left, top))
    return frame


def with_stamp(image: Image.Image, text: str, x: int = 0) -> Image.Image:
    stamped = image.copy()
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(stamped).text((x, -2), text, fill="white", font=font, stroke_width=1, stroke_fill="black")
    return stamped


def saved(image: Image.Image) -> Image.Image:
    """As it comes back from a JPEG file."""
    return decode_image(encoded(image, "JPEG", quality=92), "picture").picture


@pytest.mark.parametrize(
    "bands", [(20, 0, 0, 0), (0, 15, 0, 0), (0, 0, 9, 0), (0, 0, 0, 30), (20, 15, 0, 0), (7, 8, 9, 10)]
)
def test_black_bands_are_found(bands: tuple[int, int, int, int]) -> None:
    left, top = bands[:2]
    box = content_box(saved(banded(*bands)))
    assert box is not None
    inner = (left, top, left + 120, top + 100)
    found = (box.x, box.y, box.x + box.width, box.y + box.height)
    for side, expected, band, inwards in zip(found, inner, bands, (1, 1, -1, -1), strict=True):
        assert 0 <= (side - expected) * inwards <= (4 if band else 0)


@pytest.mark.parametrize("text", ["2010-08-17 07:07:15", "17:05:38", "38"])
def test_a_time_stamp_is_left_out(text: str) -> None:
    box = content_box(saved(with_stamp(sea(), text)))
    assert box is not None
    assert (box.x, box.x + box.width, box.y + box.height) == (0, 120, 100)
    assert 9 <= box.y <= 18


def test_a_clean_picture_is_left_alone() -> None:
    for seed in range(20):
        assert content_box(saved(sea(seed=seed))) is None
        noise = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 110, 3), np.uint8))
        assert content_box(noise) is None
        assert content_box(saved(noise.resize((330, 270)))) is None


def test_a_subject_on_a_dark_ground_is_no_band() -> None:
    night = Image.new("RGB", (200, 150), (3, 3, 5))
    ImageDraw.Draw(night).ellipse((60, 40, 140, 110), fill=(200, 180, 90))
    assert content_box(saved(night)) is None
    assert content_box(Image.new("RGB", (60, 60))) is None


def test_bands_of_large_pictures_are_found_and_never_lose_light() -> None:
    frame = Image.new("RGB", (1400, 1000))
    frame.paste(sea().resize((1200, 1000)), (200, 0))
    box = content_box(frame)
    assert box is not None
    assert 200 <= box.x <= 210
    assert (box.y, box.x + box.width, box.height) == (0, 1400, 1000)


def test_the_content_box_is_applied_before_the_crop(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    banded(40, 0, 0, 0).save(path)
    box = content_box(Image.open(path).convert("RGB"))
    assert load_image(path, 64, "pad").min(axis=0)[32, 2] == 0
    for fit in ("crop", "pad"):
        assert load_image(path, 64, fit, content=box).max(axis=0).min() > 25  # type: ignore[arg-type]


def test_how_often_reef_fish_frames_are_affected(shared: Path) -> None:
    """Every 20th photograph: measured over all 6,585, 40.8 % hold a band or a stamp."""
    paths = sorted((shared / "data" / "reef-fish").glob("*/*/*.jpg"))[::20]
    affected = sum(content_box(Image.open(path).convert("RGB")) is not None for path in paths)
    assert 0.34 < affected / len(paths) < 0.48


# Likeness and sheets


def test_copies_are_near_and_other_pictures_far() -> None:
    image = disc(200, 150, 90, 70)
    copy = saved(image.resize((140, 105)))
    other = disc(200, 150, 150, 100)
    first, second, third = (perceptual_hash(i) for i in (image, copy, other))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first ^ second).bit_count() <= 3 < (first ^ third).bit_count()
    layouts = [np.frombuffer(colour_layout(i), np.uint8)[None] for i in (image, copy, other)]
    assert layout_distance(layouts[0], layouts[1])[0] < 1.6 < layout_distance(layouts[0], layouts[2])[0]
    assert perceptual_hash(flat("RGB", (90, 90, 90))) is None


@pytest.mark.parametrize(
    ("caption", "drawn_as"),
    [("Salix ×alba", "Salix xalba"), ("null 0–6", "null 0-6"), ("Læliá müllerí", "Laelia mulleri"), ("龍", "?")],
)
def test_a_caption_has_only_letters_that_the_font_draws(caption: str, drawn_as: str) -> None:
    picture = np.zeros((1, 3, 200, 200), np.uint8)
    assert image_grid(picture, 1, [caption]).tobytes() == image_grid(picture, 1, [drawn_as]).tobytes()


def test_the_longest_word_of_a_caption_is_not_cut() -> None:
    def sheet(caption: str) -> bytes:
        return image_grid(np.zeros((1, 3, 128, 128), np.uint8), 1, [caption]).tobytes()

    assert sheet("Plectroglyphidodon dickii") != sheet("Plectroglyphidodon dicki")
    assert sheet("Plectroglyphidodon") != sheet("Plectroglyphidodom")  # the last letter is drawn
    assert sheet("W" * 60) == sheet("W" * 61)  # too long for any size, so cut


def test_a_grid_holds_every_picture_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 3, 32, 32), np.uint8)
    sheet = np.asarray(image_grid(images, 3, ["a b", "a very long caption that must be cut", "", "d", "e"]))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (32, 32, 3))[:, :, 0]
    for picture in images:
        corner = picture.transpose(1, 2, 0)
        assert (windows[..., 0, 0, :] == corner[0, 0]).all(-1).any()
        rows, columns = np.nonzero((windows[..., 0, 0, :] == corner[0, 0]).all(-1))
        assert any(np.array_equal(windows[r, c], corner) for r, c in zip(rows, columns, strict=True))


@pytest.mark.parametrize(("count", "captions"), [(0, None), (2, ["one"])])
def test_a_grid_refuses_what_it_cannot_draw(count: int, captions: list[str] | None) -> None:
    with pytest.raises(ValueError):
        image_grid(np.zeros((count, 3, 8, 8), np.uint8), 2, captions)
