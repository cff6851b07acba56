"""Media of Darwin Core archives: which of them are pictures, what their addresses are, where a download lies."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from taxadiffusion.readers.record import is_address

PICTURE = "pictures"


def _by_word(kinds: dict[str, str]) -> dict[str, str]:
    return {word: kind for kind, words in kinds.items() for word in words.split()}


_TYPES = _by_word(
    {
        PICTURE: "stillimage image images photo photos photograph photographs picture pictures still drawing",
        "films": "movingimage movingimages video videos film movie animation",
        "sounds": "sound sounds audio",
        "texts": "text webpage page html document",
        "other_media": "dataset interactiveresource collection physicalobject event service software model 3d 3dmodel",
    }
)
"""Words of the column `type`: those of Dublin Core, and what people write instead."""
_ENDINGS = _by_word(
    {
        PICTURE: "jpg jpeg jpe jfif pjpeg png tif tiff webp gif bmp heic heif jp2 avif svg dng",
        "films": "mp4 mov avi mpg mpeg m4v webm wmv mkv 3gp flv ogv quicktime",
        "sounds": "mp3 wav flac ogg oga m4a aac aif aiff wma",
        "texts": "html htm xhtml pdf txt xml json csv doc docx rtf plain",
    }
)
_MAIN_TYPES = {"image": PICTURE, "video": "films", "audio": "sounds", "text": "texts"}
_SUFFIXES = {
    **dict.fromkeys(("jpeg", "jpg", "pjpeg", "jpe"), ".jpg"),
    **dict.fromkeys(("tiff", "tif"), ".tif"),
    **{word: f".{word}" for word in ("png", "webp", "gif", "bmp")},
}


def kind_of(row_type: str, type_: str, format_: str, address: str) -> str:
    """`PICTURE`, "films", "sounds", "texts", "other_media" or "media_of_unknown_kind".

    By the format's word or MIME type and by the type, either of which may say that it is no picture; then by the ending
    of the address; then a row of an Image extension is a picture.
    """
    word = re.sub(r"[^a-z0-9]", "", re.split(r"[/#]", type_.strip().lower())[-1])
    by_type = _TYPES.get(word) or _of_format(type_)
    by_format = _of_format(format_)
    by_ending = _ENDINGS.get(ending(address))
    for stated in (by_format, by_type):
        if stated not in (None, PICTURE):
            return str(stated)
    if by_format is None and by_ending in ("films", "sounds"):
        return by_ending
    if PICTURE in (by_format, by_type):
        return PICTURE
    return by_ending or (PICTURE if row_type == "image" else "media_of_unknown_kind")


def _of_format(text: str) -> str | None:
    """Of ".jpg", "JPEG", "image/jpeg; charset=binary", "TIFF"."""
    main, _, sub = text.lower().partition(";")[0].strip().rpartition("/")
    return _MAIN_TYPES.get(main) or _ENDINGS.get(sub.strip(". "))


def ending(address: str) -> str:
    """ "jpg" of "https://…/full.JPG?size=l"; "" without one."""
    path = urlsplit(address).path if is_address(address) else address
    _, dot, last = path.rstrip("/").rsplit("/", 1)[-1].rpartition(".")
    return last.lower() if dot and len(last) <= 9 else ""


def addresses(cell: str) -> list[str]:
    """The addresses in one cell: `a | b`, `https://a; https://b`, `a.jpg; b.jpg`."""
    found = []
    for part in re.split(r"\s*\|\s*|[;,\s]+(?=(?:https?|ftp)://)", cell):
        pieces = [piece for piece in re.split(r"\s*;\s*", part) if piece]
        several = not is_address(part) and all(ending(piece) in _ENDINGS for piece in pieces)
        found += pieces if several else [part.strip(" ;,")]
    return [address for address in found if address]


def picture_names(key: str, address: str, format_: str) -> list[str]:
    """File names under which a downloaded picture is looked for, the recommended one first.

    All but the URL's hashes may be shared by several pictures of one occurrence, never by pictures of two.
    """
    safe_key = re.sub(r"[^\w.-]", "_", key)
    stated = _SUFFIXES.get(format_.lower().partition(";")[0].strip().rpartition("/")[2].strip(". "))
    own = ending(address)
    suffixes = list(dict.fromkeys((stated or ".jpg", ".jpg", *([f".{own}"] if _ENDINGS.get(own) == PICTURE else []))))
    if not address:
        return [f"{safe_key}{suffix}" for suffix in suffixes]
    if not is_address(address):
        return [address]
    base = re.sub(r"[^\w.-]", "_", urlsplit(address).path.rstrip("/").rsplit("/", 1)[-1]) or "image"
    if "." not in base:
        base += suffixes[0]
    digests = [hashlib.new(kind, address.encode(), usedforsecurity=False).hexdigest() for kind in ("md5", "sha1")]
    hashed = [digest + suffix for suffix in suffixes for digest in digests]
    return list(dict.fromkeys((*hashed, f"{safe_key}_{base}", f"{safe_key}/{base}", f"{safe_key}{suffixes[0]}")))
