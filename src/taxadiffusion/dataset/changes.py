"""What became of the pictures since they were prepared: looked at when `prepare` meets a data set that is there."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taxadiffusion.dataset.columns import IMAGES_MAPPED, QUARANTINE
from taxadiffusion.dataset.judge import TWO_LABELS
from taxadiffusion.dataset.listing import Listing, Quarantine
from taxadiffusion.dataset.verify import look_at, read_packed, resolve_inside, unpacked_path
from taxadiffusion.errors import DataError
from taxadiffusion.images import CHANGED, ImageError, Seen, read_image_file

REPAIRED = "the picture could not be used when the data set was prepared, and now can"
PARTED = "the file was equal to another when the data set was prepared, and no longer is"
_NUM_NAMED = 10
_KEY_BYTES = 8  # of a file's hash, in the comparison of all files


@dataclass(frozen=True, slots=True)
class Change:
    """A picture that is not as it was prepared."""

    source: str
    row: int
    image: str
    reason: str


def changed_pictures(
    listing: Listing,
    prepared: Path,
    root: Path,
    work: Path,
    on_rows: Callable[[int], None],
    *,
    follow_links: bool = False,
) -> Iterator[Change]:
    """Compares every picture of `listing` with what the data set at `prepared` knows of it.

    A file's size and time are looked at, its bytes only where its time differs. Pictures that were left out are looked
    at too: one that was faulty and is whole, and one that was equal to another and is not, change the data set as well.
    The data set must hold the files as they were seen. `work` takes what has to be unpacked for a look.
    """
    real_root = os.path.realpath(root)
    quarantined = _quarantined(prepared / QUARANTINE)
    known = _ImageRows(prepared)
    left_out: list[tuple[bytes, Change]] = []
    for done, (source, row, image, member) in enumerate(_listed(listing), 1):
        name = image if member is None else unpacked_path(image, member)
        why_quarantined = quarantined.get((source, row, member or image))
        seen = known.take(source, row, name)
        if seen is not None:
            reason = _change(real_root, prepared, image, member, seen, follow_links)
            if reason:
                yield Change(source, row, member or image, reason)
        elif why_quarantined is not None:
            if why_quarantined != TWO_LABELS and "fault" not in look_at(
                real_root, image, member, str(work), follow_links
            ):
                yield Change(source, row, member or image, REPAIRED)
        else:
            digest = _digest(real_root, image, member, follow_links)
            left_out.append((digest[:_KEY_BYTES], Change(source, row, member or image, PARTED)))
        on_rows(done)
    if left_out:
        keys = np.array([int.from_bytes(key, "little") for key, _ in left_out], np.uint64)
        for at in np.flatnonzero(~np.isin(keys, known.keys())).tolist():
            yield left_out[at][1]


def refuse_changed(changes: Iterable[Change], prepared: Path, num_pictures: int, quarantine: Quarantine) -> None:
    """Raises `DataError` where there are any, which names the first and says where all are listed."""
    named: list[str] = []
    for change in changes:
        quarantine.add(change.source, change.row, change.image, change.reason)
        if len(named) < _NUM_NAMED:
            named.append(f"\n  {change.source}:{change.row}: {change.image}: {change.reason}")
    if named:
        raise DataError(
            f"{prepared}: {len(quarantine)} of its {num_pictures} pictures are no longer as they were prepared:"
            f"{''.join(named)}\nAll are listed in {quarantine.path}. Remove {prepared} or give another folder, and "
            "prepare them anew; or put the old files back"
        )


def _change(root: str, prepared: Path, image: str, member: str | None, seen: Seen, follow_links: bool) -> str | None:
    """Why a picture is not as it was seen; None where it is."""
    try:
        if member is None:
            path = resolve_inside(root, image, follow_links)
            status = path.stat()
            same = seen.is_(status.st_size, status.st_mtime_ns, lambda: read_image_file(path))
            return None if same else CHANGED
        read_image_file(prepared / unpacked_path(image, member), seen)
        package = Path(root, image)
        if package.is_file() and package.stat().st_mtime_ns != seen.time_ns:  # its pictures are kept unpacked
            return None if hashlib.sha256(read_packed(package, member)).hexdigest() == seen.sha256 else CHANGED
        return None
    except ImageError as error:
        return error.reason


def _digest(root: str, image: str, member: str | None, follow_links: bool) -> bytes:
    """The hash of a picture's bytes; nothing where it cannot be read."""
    try:
        path = resolve_inside(root, image, follow_links)
        return hashlib.sha256(read_image_file(path) if member is None else read_packed(path, member)).digest()
    except ImageError:
        return bytes(32)


def _listed(listing: Listing) -> Iterator[tuple[str, int, str, str | None]]:
    file = listing.batches()
    for number in range(file.num_record_batches):
        batch = file.get_batch(number)
        yield from zip(*(batch.column(c).to_pylist() for c in ("source", "row", "image", "member")), strict=True)


def _quarantined(path: Path) -> dict[tuple[str, int, str], str]:
    """(source, row, picture) → reason."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {(r["source"], int(r["row"]), r["value"]): r["reason"] for r in csv.DictReader(stream)}


class _ImageRows:
    """The rows of a prepared set, taken one after the other: they are listed in the same order."""

    def __init__(self, prepared: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(prepared / IMAGES_MAPPED)))
        self._rows = self._read()
        self._next: tuple[Any, ...] | None = next(self._rows, None)

    def _read(self) -> Iterator[tuple[Any, ...]]:
        names = ("source", "row", "path", "unpacked", "num_bytes", "file_time_ns", "sha256")
        for number in range(self._file.num_record_batches):
            batch = self._file.get_batch(number)
            yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)

    def take(self, source: str, row: int, name: str) -> Seen | None:
        """The picture as it was seen, if the next row is this one."""
        if self._next is None or self._next[:3] != (source, row, name):
            return None
        *_, num_bytes, time_ns, sha256 = self._next
        self._next = next(self._rows, None)
        return Seen(num_bytes, time_ns, sha256.hex())

    def keys(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The first bytes of all hashes."""
        found = [self._file.get_batch(n).column("sha256") for n in range(self._file.num_record_batches)]
        return np.array([int.from_bytes(d.as_py()[:_KEY_BYTES], "little") for c in found for d in c], np.uint64)
