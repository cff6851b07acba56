"""Pictures inside packages: one entry of a zip or tar archive or an HDF5 file, as bytes."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError

PACKAGE_SUFFIXES = (".zip", ".tar", ".h5", ".hdf5")
MAX_MEMBER_BYTES = 256 << 20


def read_member(package: Path, member: str) -> bytes:
    """The bytes of one entry. Open packages and their indices are kept, a few at a time, in each process, until
    the file at their path has another size or time.

    HDF5 keys are looked up at the root and under the group `bioscan_dataset`. Raises `FileNotFoundError` for a missing
    entry, `OSError` for a damaged or oversized one, `DataError` for an unknown kind of package or a missing h5py.
    """
    suffix = package.suffix.lower()
    if suffix == ".zip":
        return _zip_entry(_open_zip(package, _stamp(package)), member)
    if suffix == ".tar":
        return _tar_entry(*_open_tar(package, _stamp(package)), member)
    if suffix in (".h5", ".hdf5"):
        return _hdf5_entry(_open_hdf5(package, _stamp(package)), member)
    raise DataError(f"{package}: not a package this software reads ({', '.join(PACKAGE_SUFFIXES)})")


def _stamp(package: Path) -> tuple[int, int]:
    status = package.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _open_zip(package: Path, _: tuple[int, int]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(package)
    except zipfile.BadZipFile as error:
        raise OSError(f"damaged zip archive: {error}") from error


def _zip_entry(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        if archive.getinfo(member).file_size > MAX_MEMBER_BYTES:
            raise OSError(f"entry larger than {MAX_MEMBER_BYTES} bytes")
        return archive.read(member)
    except KeyError as error:
        raise FileNotFoundError(f"no entry {member!r}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise OSError(f"damaged or encrypted entry: {error}") from error


@lru_cache(maxsize=4)
def _open_tar(package: Path, _: tuple[int, int]) -> tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]:
    try:
        archive = tarfile.open(package, "r:")  # noqa: SIM115 - kept open by the cache
        return archive, {entry.name: entry for entry in archive if entry.isreg()}
    except tarfile.TarError as error:
        raise OSError(f"damaged tar archive: {error}") from error


def _tar_entry(archive: tarfile.TarFile, entries: dict[str, tarfile.TarInfo], member: str) -> bytes:
    entry = entries.get(member)
    if entry is None:
        raise FileNotFoundError(f"no entry {member!r}")
    if entry.size > MAX_MEMBER_BYTES:
        raise OSError(f"entry larger than {MAX_MEMBER_BYTES} bytes")
    file = archive.extractfile(entry)
    data = file.read() if file else b""
    if len(data) != entry.size:
        raise OSError("the archive ends inside this entry")
    return data


@lru_cache(maxsize=4)
def _open_hdf5(package: Path, _: tuple[int, int]) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{package}: reading HDF5 needs h5py: pip install 'taxadiffusion[data]'") from error
    return h5py.File(package, "r")


def _hdf5_entry(file: Any, member: str) -> bytes:
    for key in (member, f"bioscan_dataset/{member}"):
        if key in file:
            data = file[key]
            if getattr(data, "nbytes", 0) > MAX_MEMBER_BYTES:
                raise OSError(f"entry larger than {MAX_MEMBER_BYTES} bytes")
            return bytes(data[()].tobytes())
    raise FileNotFoundError(f"no entry {member!r}")
