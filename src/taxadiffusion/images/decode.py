"""From the bytes of an image file to an upright 8-bit RGB picture, by fixed rules, or a reason why not."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from taxadiffusion.errors import DataError
from taxadiffusion.images.metadata import without_metadata
from taxadiffusion.readers.links import FILE_AS_TEXT, names_another

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")  # Pillow opens MPO as JPEG
MAX_PIXELS = 64 * 1024 * 1024
MAX_SIDE_PX = 32_768
MIN_SIDE_PX = 8
MAX_FILE_BYTES = 256 << 20

# What Pillow's decoders raise on damaged bytes (found by mutating files of every format); nothing else is caught.
_DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, AssertionError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.createProfile("sRGB")


class ImageError(DataError):
    """A file that is not a usable picture; `reason` says why without the path."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as `prepare` saw it."""

    num_bytes: int
    time_ns: int
    """When it was last changed. A copy may have another time: then its bytes decide."""
    sha256: str

    def is_(self, num_bytes: int, time_ns: int, data: Callable[[], bytes]) -> bool:
        """Whether a file of this size and time is still the same; `data()` is read only where the time differs."""
        if num_bytes != self.num_bytes:
            return False
        return time_ns == self.time_ns or hashlib.sha256(data()).hexdigest() == self.sha256


CHANGED = "the file has changed since it was prepared"


def read_image_file(path: Path, seen: Seen | None = None) -> bytes:
    """The file's bytes. Raises `ImageError` for a missing, empty, oversized, unreadable or changed (`seen`) one."""
    try:
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "is not a regular file")
        if size > MAX_FILE_BYTES:
            raise ImageError(path, f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(path, "the file is missing") from None
    except OSError as error:
        raise ImageError(path, f"the file cannot be read: {error.strerror or error}") from None
    if seen is not None and not seen.is_(len(data), status.st_mtime_ns, lambda: data):
        raise ImageError(path, f"{CHANGED}; put the old file back, or prepare the data set anew")
    return data


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, and what was met on the way to it."""

    picture: Image.Image
    """Upright, 8-bit RGB."""
    scale: float
    """1, or below 1 where a JPEG was decoded smaller."""
    damaged: str | None = None
    """Damaged metadata ("EXIF", "MPF" or "EXIF, MPF") that was passed over; the pixels are whole."""


def decode_image(data: bytes, path: Path | str, *, at_least_px: int | None = None) -> Decoded:
    """The picture that the bytes of a file hold.

    Rules: the first frame of an animation; EXIF orientation applied; 16-bit grey divided by 257; alpha laid over white;
    an embedded ICC profile converted to sRGB (an unusable one counts as none); CMYK without a profile inverted.
    Damaged EXIF and MPF are passed over, the orientation applied where it can be read.
    `at_least_px` lets JPEG decode to a size whose shorter side is at least that. Raises `ImageError` for bytes that are
    not a complete picture in `IMAGE_FORMATS`, or one that is too large (64 Mpx, judged by the header) or too thin.
    """
    if not data:
        raise ImageError(path, "the file is empty")
    Image.init()  # registers every format; Pillow otherwise knows only some of the list
    _raise_pillow_warnings()
    try:
        return _decoded(data, path, at_least_px)
    except ImageError as error:
        for bare in without_metadata(data):
            with suppress(ImageError):
                return replace(_decoded(bare.data, path, at_least_px, bare.orientation), damaged=bare.left_out)
        raise error


def _decoded(data: bytes, path: Path | str, at_least_px: int | None, orientation: int | None = None) -> Decoded:
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            fault = _size_fault(*image.size)
            if fault:
                raise ImageError(path, fault)
            full_side = max(image.size)
            if at_least_px and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                shrink = at_least_px / min(image.size)
                if shrink <= 0.5:
                    image.draft(None, (round(image.width * shrink), round(image.height * shrink)))
            image.load()
            scale = max(image.size) / full_side
            return Decoded(_as_rgb(_upright(image, orientation)), scale)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(path, _unidentified(data, Path(path))) from None
    except _DECODE_ERRORS as error:
        raise ImageError(path, f"the picture does not decode: {type(error).__name__}: {str(error)[:120]}") from None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Turned as its metadata say, or as `orientation` (1 … 8) does. Unlike Pillow's own, it writes no EXIF anew."""
    turn = _TURNS.get(orientation or image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _raise_pillow_warnings() -> None:
    """What Pillow warns of (a bomb, a truncated or corrupt field) is damage here.

    The filters stay: `warnings.catch_warnings` restores those of the whole process, so that two threads that decode at
    once could leave every warning of every library an error.
    """
    for category in (UserWarning, RuntimeWarning):
        warnings.filterwarnings("error", category=category, module=r"PIL\b")


def _size_fault(width: int, height: int) -> str | None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        return (
            f"the picture is {width}×{height} px; at most {MAX_PIXELS >> 20} Mpx and {MAX_SIDE_PX} px a side are read"
        )
    if min(width, height) < MIN_SIDE_PX:
        return f"the picture is {width}×{height} px; a side must have at least {MIN_SIDE_PX}"
    return None


def _unidentified(data: bytes, path: Path) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg")):
        return "the file is a web page or XML, not a picture: the download failed"
    if names_another(path, data):
        return FILE_AS_TEXT
    return f"the file is not a picture in an accepted format ({', '.join(IMAGE_FORMATS)})"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save 8 or 16 bits")
    elif image.mode in ("RGB", "L", "CMYK") and image.info.get("icc_profile") and "transparency" not in image.info:
        image = _to_srgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        colour = _to_srgb(image.convert("RGB")) if image.info.get("icc_profile") else image.convert("RGB")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(colour, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"grey values from {values.min()} to {values.max()} are not 16-bit")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    transform = _srgb_transform(image.info["icc_profile"], image.mode)
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=64)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
