"""Laws of what is asked for: a form is read under limits, and a picture's recipe leads back to the same ask."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.web.ask import Ask, command_line, python_lines, read_ask
from taxadiffusion.web.limits import LIMITS
from tests.site_taxa import CLARKII, CORNUTUS, HARMFUL, RANKS, served_model

MODEL = served_model()
NUMBER = {lineage: str(taxon) for lineage, taxon in MODEL.ids.items()}


def test_a_form_of_the_taxon_alone_has_the_defaults_of_the_command() -> None:
    assert read_ask({"taxon": NUMBER[CLARKII]}, MODEL, LIMITS) == Ask(CLARKII)


def test_every_field_is_read() -> None:
    form = {
        "taxon": NUMBER[CLARKII], "number": "3", "seed": "7", "scale": "2.5", "rank": "order", "steps": "9",
        "towards": NUMBER[CORNUTUS], "fraction": "0.25",
    }  # fmt: skip
    expected = Ask(CLARKII, 3, 7, Guidance(2.5, "order"), 9, CORNUTUS, 0.25)
    assert read_ask(form, MODEL, LIMITS) == expected
    assert [seed for _, seed in expected.drawn] == [7, 8, 9]


def test_at_every_rank_the_seeds_are_the_same_coarse_to_fine() -> None:
    ask = read_ask({"taxon": NUMBER[CLARKII], "number": "2", "every": "1"}, MODEL, LIMITS)
    assert ask.drawn == tuple((CLARKII.truncated(rank), seed) for rank in RANKS for seed in (0, 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "0"), ("number", "17"), ("number", "1e3"), ("number", "²"), ("number", "9" * 5000), ("seed", "-1"),
        ("seed", str(2**63 - 1)), ("steps", "101"), ("steps", "nan"), ("scale", "nan"), ("scale", "inf"),
        ("scale", "31"), ("fraction", "1.5"), ("rank", "phylum"), ("rank", "<script>"), ("every", "yes"),
        ("colour", "red"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_by_its_field(field: str, value: str) -> None:
    with pytest.raises(SettingsError, match=field if field != "colour" else "no field 'colour'"):
        read_ask({"taxon": NUMBER[CLARKII], "towards": NUMBER[CORNUTUS], field: value}, MODEL, LIMITS)


def test_too_many_pictures_at_every_rank_and_a_mix_of_two_depths_are_refused() -> None:
    with pytest.raises(SettingsError, match="20 pictures"):
        read_ask({"taxon": NUMBER[CLARKII], "number": "5", "every": "1"}, MODEL, LIMITS)
    family = NUMBER[CORNUTUS.truncated("family")]
    form = {"taxon": NUMBER[CLARKII], "towards": family, "rank": "genus"}
    with pytest.raises(SettingsError, match="differ in depth"):
        read_ask(form, MODEL, LIMITS)
    with pytest.raises(DataError, match="no taxon 999"):
        read_ask({"taxon": "999"}, MODEL, LIMITS)


def test_the_command_and_the_lines_hold_names_that_are_made_to_do_harm_as_text() -> None:
    model = served_model("fish; rm -rf /")
    ask = Ask(HARMFUL, towards=CLARKII, fraction=0.5)
    words = shlex.split(command_line(ask, model))
    assert words[:3] == ["taxadiffusion", "generate", "fish; rm -rf /"]
    assert words[words.index("--towards") + 1] == "Amphiprion clarkii"
    compile(python_lines(ask, model), "lines", "exec")
    compile(python_lines(replace(ask, towards=None, every_rank=True), model), "lines", "exec")
