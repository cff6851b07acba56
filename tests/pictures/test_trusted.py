"""Laws of the file that says to which rank pictures are trusted: counts are nested, and it is read as written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.trusted import Trusted, judged_taxa

RANKS = ("family", "genus", "species")


def taxon(family: int, genus: int, species: int) -> Lineage:
    names = {"family": f"F{family}", "genus": f"G{family}{genus}", "species": f"s{family}{genus}{species}"}
    return Lineage.of(names)


def of_judgements(wrong_at_species: int) -> Trusted:
    """Forty species of eight pictures; of the first ones every picture is taken for the sister species."""
    asked, named = [], []
    every = [taxon(i % 4, i // 4 % 5, i // 20) for i in range(40)]
    for number, one in enumerate(every):
        sister = Lineage.of({**dict(one.names), "species": "sister"})
        asked += [one] * 8
        named += [sister if number < wrong_at_species else one] * 8
    taxa, left_out = judged_taxa(asked, named, frozenset(every), RANKS)
    assert not left_out
    return Trusted(model_sha256="a" * 64, judge="colours", ranks=list(RANKS), taxa=taxa)


def test_taxa_whose_sisters_they_are_taken_for_are_trusted_to_their_genus() -> None:
    depths = of_judgements(30).depths(0.1)
    assert list(depths.values()).count("genus") == 30
    assert list(depths.values()).count("species") == 10
    assert depths[taxon(0, 0, 0)] == "genus"
    assert depths[taxon(3, 4, 1)] == "species"


def test_what_cannot_be_judged_is_counted() -> None:
    one, other = taxon(0, 0, 0), taxon(0, 0, 1)
    asked = [one, one, other, taxon(1, 0, 0), one.truncated("genus")]
    taxa, left_out = judged_taxa(asked, [other, one, other, one, one], frozenset([one, other]), RANKS)
    (found,) = taxa
    assert (found.scored, found.held_out) == ([1, 1, 0], [1, 1, 1])
    assert sorted(left_out.values()) == [1, 1, 1]


def test_a_picture_right_by_chance_below_a_wrong_name_is_wrong() -> None:
    asked = taxon(0, 0, 0)
    named = Lineage.of({"family": "other", "genus": "G00", "species": "s000"})
    (found,), _ = judged_taxa([asked] * 2, [named, asked], frozenset([asked]), RANKS)
    assert (found.scored, found.held_out) == ([0, 0, 0], [1, 1, 1])


def test_it_is_read_as_it_was_written_and_nothing_else_is(tmp_path: Path) -> None:
    found, file = of_judgements(5), tmp_path / "trusted.json"
    found.write(file)
    assert Trusted.read(file) == found
    document = json.loads(file.read_text())
    rng = np.random.default_rng(0)
    for change in ({"schema": 2}, {"taxa": []}, {"ranks": ["family"]}, {str(rng.random()): 1}):
        file.write_text(json.dumps(document | change))
        with pytest.raises(CheckpointError, match="`taxadiffusion trust` writes it"):
            Trusted.read(file)
    document["taxa"][0]["scored"] = [1, 2, 3]
    file.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="must fall from coarse to fine"):
        Trusted.read(file)
