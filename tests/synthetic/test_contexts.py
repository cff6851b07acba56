"""Laws of captions that a set draws from: by seed alone, the same for every species."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.image_plan import picture_seed
from taxadiffusion.guidance import CONTEXT_SCALE, Context
from taxadiffusion.names import Lineage
from taxadiffusion.simulate.captions import COLOURS
from taxadiffusion.synthetic.contexts import drawn_context, read_contexts
from taxadiffusion.synthetic.making import Making

CONTEXTS = tuple(Context(f"over {colour}") for colour in ("green", "black", "white", "pink"))
TAXA = [Lineage.of({"genus": genus, "species": "ruber"}) for genus in ("Danaus", "Actias")]


def test_a_caption_is_drawn_by_the_seed_and_not_by_the_species() -> None:
    making = Making(contexts=CONTEXTS)
    for seed in range(100):
        one, other = (making.request(taxon, seed) for taxon in TAXA)
        assert one.context == other.context == drawn_context(CONTEXTS, seed)
    assert Making().request(TAXA[0], 1).context is None


def test_every_species_has_every_caption_as_often_but_for_chance() -> None:
    """By the seeds of a set's pictures: of 2,000 each is drawn 500 times, with a standard deviation of 19."""
    for taxon in TAXA:
        drawn = Counter(drawn_context(CONTEXTS, picture_seed(0, taxon, number)) for number in range(2000))
        assert set(drawn) == set(CONTEXTS)
        assert all(abs(number - 500) < 5 * 19.4 for number in drawn.values())


def test_a_file_holds_a_caption_a_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("over green\n\n  over dark rock \nover green\n", encoding="utf-8")
    assert read_contexts(path) == (CONTEXTS[0], Context("over dark rock", CONTEXT_SCALE), CONTEXTS[0])
    assert {one.scale for one in read_contexts(path, 0.5)} == {0.5}
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no caption"):
        read_contexts(path)
    path.write_bytes(b"over \xff\n")
    for wrong in (path, tmp_path / "none.txt"):
        with pytest.raises(DataError, match="the captions cannot be read"):
            read_contexts(wrong)


def test_the_file_that_is_shipped_holds_the_base_s_colours() -> None:
    path = Path(__file__).parents[2] / "configs/surroundings.txt"
    assert [one.caption for one in read_contexts(path)] == [f"over {colour}" for colour in COLOURS]
