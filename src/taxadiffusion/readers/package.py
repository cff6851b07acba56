"""Pictures inside packages: one entry of a zip or tar archive, of an HDF5 or a Parquet file, as bytes."""

from __future__ import annotations

import math
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.readers import bounded
from taxadiffusion.readers.parquet import read_picture

PACKAGE_SUFFIXES = (".zip", ".tar", ".h5", ".hdf5", ".parquet")


def read_member(package: Path, member: str) -> bytes:
    """The bytes of one entry. Open packages and their indices are kept, a few at a time, in each process, until
    the file at their path has another size or time.

    HDF5 keys are looked up at the root and under the group `bioscan_dataset`; a Parquet entry is named by its row
    (`parquet.picture_member`). Raises `FileNotFoundError` for a missing entry, `OSError` for a damaged one or one
    beyond the bounds of `bounded`, `DataError` for an unknown kind of package or a missing h5py.
    """
    suffix = package.suffix.lower()
    try:
        if suffix == ".zip":
            return _zip_entry(_open_zip(package, _stamp(package)), member)
        if suffix == ".tar":
            return _tar_entry(*_open_tar(package, _stamp(package)), member)
        if suffix in (".h5", ".hdf5"):
            return _hdf5_entry(_open_hdf5(package, _stamp(package)), member)
        if suffix == ".parquet":
            return read_picture(package, member, _stamp(package))
    except bounded.BoundError as error:
        raise OSError(error.reason) from error
    raise DataError(f"{package}: not a package this software reads ({', '.join(PACKAGE_SUFFIXES)})")


def _stamp(package: Path) -> tuple[int, int]:
    status = package.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _open_zip(package: Path, _: tuple[int, int]) -> zipfile.ZipFile:
    try:
        return bounded.open_zip(package)
    except zipfile.BadZipFile as error:
        raise OSError(f"damaged zip archive: {error}") from error


def _zip_entry(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        return bounded.read_zip_entry(archive, member, bounded.MAX_MEMBER_BYTES)
    except KeyError as error:
        raise FileNotFoundError(f"no entry {member!r}") from error
    except (*bounded.DAMAGED, RuntimeError) as error:
        raise OSError(f"damaged or encrypted entry: {error}") from error


@lru_cache(maxsize=4)
def _open_tar(package: Path, _: tuple[int, int]) -> tuple[bounded.TarArchive, dict[str, tarfile.TarInfo]]:
    try:
        archive = bounded.TarArchive(package)
        return archive, {entry.name: entry for entry in archive.entries()}
    except tarfile.TarError as error:
        raise OSError(f"damaged tar archive: {error}") from error


def _tar_entry(archive: bounded.TarArchive, entries: dict[str, tarfile.TarInfo], member: str) -> bytes:
    entry = entries.get(member)
    if entry is None:
        raise FileNotFoundError(f"no entry {member!r}")
    return archive.read(entry, bounded.MAX_MEMBER_BYTES)


@lru_cache(maxsize=4)
def _open_hdf5(package: Path, _: tuple[int, int]) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{package}: reading HDF5 needs h5py: pip install 'taxadiffusion[data]'") from error
    return h5py.File(package, "r")


def _hdf5_entry(file: Any, member: str) -> bytes:
    import h5py

    for key in (member, f"bioscan_dataset/{member}"):
        if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
            raise OSError("the entry is a link into another file; refused")
        if key not in file:
            continue
        data = file[key]
        is_array = isinstance(data, h5py.Dataset) and data.dtype.kind in "iuSV"
        if not is_array or data.is_virtual or data.external or data.file.filename != file.filename:
            raise OSError("the entry is no array of bytes inside this file; refused")
        piece = math.prod(data.chunks or ()) * data.dtype.itemsize  # unpacked as a whole, even for one byte
        if max(data.nbytes, piece) > bounded.MAX_MEMBER_BYTES:
            raise OSError(f"the entry unpacks to {max(data.nbytes, piece)} bytes, more than {bounded.MAX_MEMBER_BYTES}")
        return bytes(data[()].tobytes())
    raise FileNotFoundError(f"no entry {member!r}")
