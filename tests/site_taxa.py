"""The taxa of a tiny model that is served, with some names that are made to do harm. Without torch."""

from __future__ import annotations

from taxadiffusion.names import Lineage
from taxadiffusion.web.served import ModelFacts, ServedModel
from tests.taxa import taxonomy_of

IMAGE_PX = 16
RANKS = ("order", "family", "genus", "species")
HOSTILE = '"><script>alert(1)</script>'
CLARKII, OCELLARIS, CORNUTUS, HARMFUL, TURNED, BROKEN = (
    Lineage.of(dict(zip(RANKS, names, strict=True)))
    for names in (
        ("Ovalentaria/misc", "Pomacentridae", "Amphiprion", "clarkii"),
        ("Ovalentaria/misc", "Pomacentridae", "Amphiprion", "ocellaris"),
        ("Acanthuriformes", "Zanclidae", "Zanclus", "cornutus"),
        ("Acanthuriformes", "../../etc", "<b>Bad</b>", HOSTILE),
        ("Acanthuriformes", "\u202eeadilcnaZ", "{{ 7 * 7 }}", "' onerror='alert(1)"),
        ("Acanthuriformes", "javascript:alert(1)", "Two\r\nSet-Cookie: lines=1", "a\u2028b\x00c&amp;`${x}`"),
    )
)
TAXONOMY = taxonomy_of((CLARKII, OCELLARIS, CORNUTUS, HARMFUL, TURNED, BROKEN), RANKS)
FACTS = ModelFacts(RANKS, TAXONOMY.to_json(), IMAGE_PX, "local", "0" * 64, "a CPU")


def served_model(name: str = "fish") -> ServedModel:
    """Without weights."""
    return ServedModel(name, FACTS)
