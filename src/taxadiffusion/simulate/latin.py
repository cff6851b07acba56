"""Latin-like names for taxa that do not exist."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taxadiffusion.names import Rank

_ONSETS = ("b", "br", "c", "ch", "cl", "d", "f", "g", "gl", "l", "m", "n", "p", "ph", "pl", "r", "s", "sc", "st", "t",
           "th", "tr", "v", "x", "z")  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ae", "eu", "y")
_CODAS = ("", "", "l", "n", "r", "s", "x", "nth", "ct", "mb")
_GENUS_ENDINGS = ("us", "is", "ops", "odon", "ichthys", "ella", "ia", "urus")
_EPITHET_ENDINGS = ("us", "ensis", "atus", "inus", "ifer", "oides", "ulus", "ior", "ax", "escens", "icola", "osus")
_RANK_ENDINGS: dict[Rank, str] = {
    "domain": "ota", "kingdom": "alia", "phylum": "ata", "subphylum": "atina", "superclass": "omorpha",
    "class": "opsida", "subclass": "idia", "infraclass": "acea", "superorder": "omorphi", "order": "iformes",
    "suborder": "oidei", "infraorder": "aria", "superfamily": "oidea", "family": "idae", "subfamily": "inae",
    "tribe": "ini", "subgenus": "oma", "subspecies": "illus",
}  # fmt: skip


def _stem(rng: np.random.Generator, syllables: int) -> str:
    return "".join(
        str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + (str(rng.choice(_CODAS)) if last else "")
        for last in (index == syllables - 1 for index in range(syllables))
    )


def _unused(make: Callable[[], str], used: set[str]) -> str:
    while (name := make()) in used:
        continue
    used.add(name)
    return name


class LatinNamer:
    """Gives every taxon a name of its own: genera and epithets from syllables, higher taxa from a genus in them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._used: set[str] = set()

    def stem(self) -> str:
        """The stem of a new genus; taxa above may take their names from it, as a family does from its type genus."""
        return _unused(lambda: _stem(self._rng, int(self._rng.integers(2, 4))), self._used)

    def genus(self, stem: str) -> str:
        return _unused(lambda: (stem + str(self._rng.choice(_GENUS_ENDINGS))).capitalize(), self._used)

    def epithet(self) -> str:
        return _unused(lambda: _stem(self._rng, 2) + str(self._rng.choice(_EPITHET_ENDINGS)), self._used)

    def higher(self, stem: str, rank: Rank) -> str:
        """The name of a taxon of `rank` whose type genus has `stem`."""
        name = (stem + _RANK_ENDINGS[rank]).capitalize()
        self._used.add(name)
        return name
