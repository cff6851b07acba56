"""Which versions are recorded: of what is installed, of our own also where it runs from its source."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

import taxadiffusion.versions
from taxadiffusion import __version__
from taxadiffusion.versions import UNKNOWN, versions


def test_every_package_that_is_asked_for_has_its_version() -> None:
    found = versions("taxadiffusion", "torch", "no-such-package")
    assert found["taxadiffusion"] == __version__
    assert found["torch"][0].isdigit()
    assert found["no-such-package"] == UNKNOWN


def test_from_source_our_own_version_is_known_though_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(taxadiffusion.versions, "version", nothing)
    assert versions("taxadiffusion", "peft") == {"taxadiffusion": __version__, "peft": UNKNOWN}
