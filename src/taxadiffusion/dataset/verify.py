"""Looks at one picture and at a batch of them: path, file, header, pixels, hash; results in files that are reused."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from taxadiffusion.dataset.columns import UNPACKED, VERIFIED
from taxadiffusion.files import whole
from taxadiffusion.images import ImageError, colour_layout, content_box, decode_image, perceptual_hash, read_image_file
from taxadiffusion.images.decode import MAX_FILE_BYTES
from taxadiffusion.readers import path_fault
from taxadiffusion.readers.links import LEAVES_ROOT
from taxadiffusion.readers.package import read_member

MISSING = "the file is missing"
FileFacts = dict[str, Any]
"""Values of the columns `VERIFIED`."""


@dataclass(frozen=True, slots=True)
class SetPart:
    """The pictures of one batch of rows; `result` keeps what was found."""

    root: str
    images: tuple[str, ...]
    members: tuple[str | None, ...]
    unpack_dir: str
    result: str
    follow_links: bool = False


def part_name(index: int, images: Sequence[str], members: Sequence[str | None], follow_links: bool) -> str:
    """Depends on the batch's paths, the rule for links and the results' columns: what else is found is not used."""
    key = repr((VERIFIED, list(images), list(members), follow_links))
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{index:08d}-{digest[:16]}.arrow"


def unpacked_path(image: str, member: str) -> str:
    """Where the prepared set keeps a package's picture."""
    return f"{UNPACKED}/{image}.d/{member}"


def verify_part(part: SetPart) -> int:
    """Verifies a batch unless its result exists and no file changed since; returns its number of rows."""
    if not is_verified(part):
        facts = [
            look_at(part.root, image, member, part.unpack_dir, part.follow_links)
            for image, member in zip(part.images, part.members, strict=True)
        ]
        write_result(part, facts)
    return len(part.images)


def write_result(part: SetPart, facts: list[FileFacts]) -> None:
    """Written aside and renamed, so that a result is whole or absent."""
    columns = [pa.array([row.get(field.name) for row in facts], field.type) for field in VERIFIED]
    with (
        whole(Path(part.result)) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, VERIFIED) as writer,
    ):
        writer.write_batch(pa.record_batch(columns, schema=VERIFIED))


def read_result(path: str | Path) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def is_verified(part: SetPart) -> bool:
    """Whether a result exists and every file has the size and time it had then; faulty files are looked at again."""
    if not Path(part.result).is_file():
        return False
    found = read_result(part.result)
    columns = [found.column(name).to_pylist() for name in ("fault", "file_size", "file_time_ns")]
    for image, member, fault, size, time_ns in zip(part.images, part.members, *columns, strict=True):
        if fault is not None or (
            member is not None and not Path(part.unpack_dir, unpacked_path(image, member)).exists()
        ):
            return False
        try:
            status = Path(part.root, image).stat()
        except OSError:
            return False
        if (status.st_size, status.st_mtime_ns) != (size, time_ns):
            return False
    return True


def look_at(root: str, image: str, member: str | None, unpack_dir: str, follow_links: bool = False) -> FileFacts:
    """One picture's facts, or `{"fault": reason}`. A package's picture is copied to `unpack_dir`."""
    try:
        path = resolve_inside(root, image, follow_links)
        status = path.stat()
        data = read_image_file(path) if member is None else read_packed(path, member)
        decoded = decode_image(data, path)
    except ImageError as error:
        return {"fault": error.reason}
    picture = decoded.picture
    box = content_box(picture)
    inner = picture.crop((int(box.x), int(box.y), int(box.x + box.width), int(box.y + box.height))) if box else picture
    if member is not None:
        _unpack(Path(unpack_dir), unpacked_path(image, member), data, status.st_mtime_ns)
    return {
        "sha256": hashlib.sha256(data).digest(),
        "width": picture.width,
        "height": picture.height,
        "content_box": [int(box.x), int(box.y), int(box.width), int(box.height)] if box else None,
        "perceptual_hash": perceptual_hash(inner),
        "colour_layout": colour_layout(inner),
        "damaged_metadata": decoded.damaged,
        "num_bytes": len(data),
        "file_size": status.st_size,
        "file_time_ns": status.st_mtime_ns,
    }


def resolve_inside(root: str, image: str, follow_links: bool = False) -> Path:
    """The regular file `image` names below `root` (a real path). Raises `ImageError` for anything else.

    Links are followed, and refused when they leave the root unless `follow_links`; devices, pipes and folders are
    refused unopened.
    """
    fault = path_fault(image)
    if fault:
        raise ImageError(image, fault)
    path = Path(os.path.realpath(Path(root, image)))
    if path == Path(root) or not (follow_links or path.is_relative_to(root)):
        raise ImageError(image, LEAVES_ROOT)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ImageError(image, MISSING) from None
    except (OSError, ValueError) as error:
        raise ImageError(image, f"the file cannot be reached: {error}") from None
    if not stat.S_ISREG(mode):
        raise ImageError(image, "the path is not a regular file")
    return path


def read_packed(package: Path, member: str) -> bytes:
    """An entry of a package. Raises `ImageError`."""
    fault = path_fault(member)
    if fault:
        raise ImageError(package, f"entry {member!r}: {fault}")
    try:
        data = read_member(package, member)
    except FileNotFoundError:
        raise ImageError(package, "the entry is missing from its package") from None
    except OSError as error:
        raise ImageError(package, f"the package cannot be read: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(package, f"the entry has {len(data)} bytes, more than {MAX_FILE_BYTES}")
    return data


def _unpack(folder: Path, name: str, data: bytes, time_ns: int) -> None:
    """Written beside the pictures and renamed among them: a killed process leaves no piece where they lie.

    The copy has its package's time.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = folder / f"unpacked-{os.getpid()}.tmp"
    aside.write_bytes(data)
    os.utime(aside, ns=(time_ns, time_ns))
    aside.replace(path)
