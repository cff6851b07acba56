"""Pictures named as relatives of what they were asked to show: counted, and told from chance."""

from __future__ import annotations

from typing import Any

import pytest
from training.relatives import namings, shares

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage

SPECIES = {
    f"{genus} {name}": Lineage.of({"family": family, "genus": genus, "species": name})
    for family, genus in (("A", "Aa"), ("B", "Bb"), ("C", "Cc"), ("D", "Dd"))
    for name in ("major", "minor")
}


def measured(named: dict[str, list[str]]) -> dict[str, Any]:
    """As `results.json` holds it."""
    return {
        "taxa": [
            {"label": true, "num_images": len(names), "named_right": names.count(true) / len(names)}
            for true, names in named.items()
        ],
        "confusions": [
            {"true": true, "predicted": name, "count": names.count(name)}
            for true, names in named.items()
            for name in sorted({*names} - {true})
        ],
    }


def test_every_naming_is_counted() -> None:
    named = {"Aa major": ["Aa minor", "Aa major", "Bb major"], "Bb major": ["Bb minor"] * 2}
    found = namings(measured(named), SPECIES)
    assert {one.label: sorted(two.label for two in names) for one, names in found.items()} == {
        true: sorted(names) for true, names in named.items()
    }


def test_relatives_are_told_from_chance_and_chance_is_not() -> None:
    majors = [label for label in SPECIES if label.endswith("major")]
    relatives = {SPECIES[label]: [SPECIES[label.replace("major", "minor")]] * 10 for label in majors}
    share, chance, p = shares(relatives, "family")
    assert share == 1
    assert chance == pytest.approx(1 / 4, abs=0.02)
    assert p == pytest.approx(1 / 24, abs=0.01)  # one of the 4! orders
    alike = {SPECIES[label]: list(SPECIES.values()) for label in majors}
    share, chance, p = shares(alike, "family")
    assert share == pytest.approx(chance)
    assert p == 1


def test_a_file_of_other_data_or_without_all_namings_is_refused() -> None:
    with pytest.raises(DataError, match="shows no Ee major"):
        namings(measured({"Ee major": ["Aa major"]}), SPECIES)
    short = measured({"Aa major": ["Aa minor", "Bb major"]})
    short["confusions"] = short["confusions"][:1]
    with pytest.raises(DataError, match="1 of 2 namings"):
        namings(short, SPECIES)
