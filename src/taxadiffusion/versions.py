"""Which versions of which packages are here: for records that must tell runs apart."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from taxadiffusion import __version__

OWN = "taxadiffusion"
UNKNOWN = "unknown"


def versions(*packages: str) -> dict[str, str]:
    """Package → version; our own also where it runs from its source; "unknown" of what is there without saying its."""
    return {name: __version__ if name == OWN else _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN
