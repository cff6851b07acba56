"""A picked method's lead is not told from the pictures that it was picked by."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.pick import differences, pick
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.names import Lineage
from taxadiffusion.tables.experiments import comparison_of, rare_rows

TAXA = [Lineage.of({"family": f"F{i}"}) for i in range(10)]


def drawn(share: float, per_taxon: int, rng: np.random.Generator, runs: int = 2) -> tuple[RankScores, ...]:
    """A method of which so large a share is named right, whatever the picture."""
    right = {taxon: tuple((rng.random(per_taxon) < share).astype(float) for _ in range(runs)) for taxon in TAXA}

    class Scores:
        rank = "family"

    scores: Any = Scores()
    scores.right = right
    return (cast(RankScores, scores),)


def test_the_best_of_many_equal_settings_leads_where_it_was_picked_and_not_where_it_is_compared() -> None:
    rng = np.random.default_rng(0)
    picked = [pick({f"m{i}": drawn(0.3, 4, rng) for i in range(21)}) for _ in range(200)]
    assert {one.how for one in picked} == {"half"}
    assert np.mean([one.picked_at for one in picked]) > 0.40  # the luck of the best of 21
    assert np.mean([one.compared_at for one in picked]) == pytest.approx(0.3, abs=0.02)  # the truth


def test_differences_are_of_the_pictures_that_picked_nothing() -> None:
    rng = np.random.default_rng(1)
    methods = {"weak": drawn(0.0, 5, rng), "strong": drawn(1.0, 5, rng)}
    for runs in methods["strong"][0].right.values():
        for values in runs:
            values[0::2] = 0.0  # right on the pictures that pick alone
    picked = pick(methods)
    assert (picked.name, picked.picked_at, picked.compared_at) == ("strong", 1.0, 0.0)
    assert differences(methods, picked)["weak"]["family"].mean == 0.0
    assert "1.000 are named right" in picked.words
    assert "0.000 are" in picked.words


def test_a_single_picture_of_a_taxon_cannot_be_halved_and_the_words_say_so() -> None:
    rng = np.random.default_rng(2)
    picked = pick({"a": drawn(0.2, 1, rng), "b": drawn(0.9, 1, rng)})
    assert (picked.name, picked.how) == ("b", "same")
    assert picked.picked_at == picked.compared_at
    assert "part of its lead is luck" in picked.words


def test_a_method_named_in_advance_is_compared_on_all_pictures() -> None:
    rng = np.random.default_rng(3)
    methods = {"a": drawn(0.2, 4, rng), "b": drawn(0.9, 4, rng)}
    picked = pick(methods, "a")
    assert (picked.name, picked.how) == ("a", "named")
    every = np.mean([values for scores in methods["a"] for runs in scores.right.values() for values in runs])
    assert picked.compared_at == pytest.approx(every)
    with pytest.raises(SettingsError, match="'c' is none of the methods: a, b"):
        pick(methods, "c")


def test_only_a_sweep_picks_its_winner() -> None:
    rows = ("zero_shot", "lora", "taxadiffusion")
    assert comparison_of("table1", rows).named == comparison_of("strategies", rows).named == "taxadiffusion"
    assert comparison_of("table1", ("lora", "full")).named is None  # the method of the paper is not among them
    assert comparison_of("guidance", ("none", "null ×6")).named is None


def test_rare_species_are_compared_between_methods_at_the_same_number_of_photographs() -> None:
    alone = rare_rows((), (1, 5, 20))
    assert [(row.name, row.strategy) for row in alone] == [(f"{n}", "progressive") for n in (1, 5, 20)]
    found = comparison_of("rare", [row.name for row in alone], alone)
    assert (found.named, dict(found.against)) == ("20", {})  # the fewer against the most
    two = rare_rows(("class_embedding", "taxadiffusion"), (1, 5))
    assert {(row.strategy, row.number) for row in two} == {
        (s, n) for s in ("progressive", "class_embedding") for n in (1, 5)
    }
    found = comparison_of("rare", [row.name for row in two], two)
    assert found.named == "taxadiffusion, 5"
    assert found.against == {f"class_embedding, {n}": f"taxadiffusion, {n}" for n in (1, 5)}
    with pytest.raises(SettingsError, match="rare has no method named zero_shot; its methods: taxadiffusion, "):
        rare_rows(("zero_shot",), (1,))  # what trains nothing cannot be thinned out


def test_a_method_can_be_compared_with_another_one_than_the_picked() -> None:
    rng = np.random.default_rng(3)
    methods = {"none": drawn(0.0, 5, rng), "some": drawn(0.4, 5, rng), "all": drawn(1.0, 5, rng)}
    found = differences(methods, pick(methods, "all"), {"none": "some"})
    some = np.mean([values for runs in methods["some"][0].right.values() for values in runs])
    assert found["none"]["family"].mean == pytest.approx(some)
    assert found["some"]["family"].mean == pytest.approx(1.0 - some)
