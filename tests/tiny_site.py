"""The pages of a tiny model, with some names that are made to do harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxadiffusion.adapter import save_adapter
from taxadiffusion.names import Lineage
from taxadiffusion.web.guard import AsgiApp
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.serve import Address, Beside, opened
from taxadiffusion.web.served import ModelFacts, ServedModel
from taxadiffusion.web.worker import Opening
from taxadiffusion.web.workshop import Workshop
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import IMAGE_PX, write_tiny_base

RANKS = ("order", "family", "genus", "species")
HOSTILE = '"><script>alert(1)</script>'
CLARKII, OCELLARIS, CORNUTUS, HARMFUL = (
    Lineage.of(dict(zip(RANKS, names, strict=True)))
    for names in (
        ("Ovalentaria/misc", "Pomacentridae", "Amphiprion", "clarkii"),
        ("Ovalentaria/misc", "Pomacentridae", "Amphiprion", "ocellaris"),
        ("Acanthuriformes", "Zanclidae", "Zanclus", "cornutus"),
        ("Acanthuriformes", "../../etc", "<b>Bad</b>", HOSTILE),
    )
)
NOTHING = Beside()
TAXONOMY = taxonomy_of((CLARKII, OCELLARIS, CORNUTUS, HARMFUL), RANKS)


def served_model(name: str = "fish") -> ServedModel:
    """Without weights."""
    return ServedModel(name, ModelFacts(RANKS, TAXONOMY.to_json(), IMAGE_PX, "local", "0" * 64, "a CPU"))


def write_model(folder: Path) -> Opening:
    """A tiny base and an adapter on it; pictures go beside them."""
    base = write_tiny_base(folder / "base")
    save_adapter(folder / "fish", make(base, ranks=RANKS, taxonomy=TAXONOMY), TAXONOMY, recipe={}, read_me="# Fish\n")
    return Opening(str(folder / "fish"), str(base), "cpu", folder / "served")


@contextmanager
def serving(opening: Opening, limits: Limits, beside: Beside = NOTHING) -> Iterator[tuple[AsgiApp, Workshop]]:
    with opened(opening, beside, Address(), lambda _: None, limits) as (app, workshop):
        yield app, workshop
