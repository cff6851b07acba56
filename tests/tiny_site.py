"""The pages of a tiny model that draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxadiffusion.adapter import save_adapter
from taxadiffusion.web.guard import AsgiApp
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.serve import Address, Beside, opened
from taxadiffusion.web.worker import Opening
from taxadiffusion.web.workshop import Workshop
from tests.site_taxa import RANKS, TAXONOMY
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

NOTHING = Beside()


def write_model(folder: Path) -> Opening:
    """A tiny base and an adapter on it; pictures go beside them."""
    base = write_tiny_base(folder / "base")
    save_adapter(folder / "fish", make(base, ranks=RANKS, taxonomy=TAXONOMY), TAXONOMY, recipe={}, read_me="# Fish\n")
    return Opening(str(folder / "fish"), str(base), "cpu", folder / "served")


@contextmanager
def serving(opening: Opening, limits: Limits, beside: Beside = NOTHING) -> Iterator[tuple[AsgiApp, Workshop]]:
    with opened(opening, beside, Address(), lambda _: None, limits) as (app, workshop):
        yield app, workshop
