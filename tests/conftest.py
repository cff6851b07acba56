"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs, tables and weights beside the checkout; tests that need them skip where they are missing."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("needs the real photographs and tables in ../shared, which is not beside this checkout")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base in diffusers' layout, of the test file's own."""
    from tests.tiny_base import write_tiny_base  # most tests need no torch

    return write_tiny_base(tmp_path_factory.mktemp("base"))
