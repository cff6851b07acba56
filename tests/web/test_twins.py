"""Laws of the search for twins beside the pages: lazily, never in their way, and what goes wrong is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taxadiffusion.names import Lineage
from taxadiffusion.web import twins
from taxadiffusion.web.looking import Looking, Twin
from taxadiffusion.web.store import Kept
from tests import fake_processes

FISH = Lineage.of({"genus": "Zanclus", "species": "cornutus"})


def kept(number: int, name: str = "fish.png") -> Kept:
    return Kept(f"{number:010x}", Path(name), {}, FISH, 1)


@contextmanager
def looking(monkeypatch: pytest.MonkeyPatch, extractor: str = "inception") -> Iterator[twins.Twins]:
    monkeypatch.setattr(twins, "look", fake_processes.look)
    begun = twins.Twins(Looking(Path(), Path(), ("genus", "species"), "nano", extractor, None, Path()))
    begun.begin()
    yield begun
    begun.close()


def until(true: Callable[[], object], patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_twin_is_looked_for_when_it_is_first_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with looking(monkeypatch) as found:
        before = found.version
        assert found.of(kept(1)) is None
        assert found.of(kept(1)) is None
        until(lambda: found.of(kept(1)))
        assert found.of(kept(1)) == Twin(kept(1).id, 7, False, "no copy")
        assert found.version > before
        until(lambda: found.of(kept(2)))


@pytest.mark.parametrize(("extractor", "words"), [("unknown", "unknown extractor"), ("inception", "was lost")])
def test_what_went_wrong_is_said(monkeypatch: pytest.MonkeyPatch, extractor: str, words: str) -> None:
    with looking(monkeypatch, extractor) as found:
        found.of(kept(1, "bad"))
        until(lambda: words in found.state)
        time.sleep(0.3)
        assert words in found.state
        assert found.of(kept(2)) is None
