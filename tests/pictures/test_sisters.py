"""Laws of sisters: nearest in the tree, chosen by confusions where they are known, and the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.errors import DataError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.sisters import NO_SISTER, Sisters, read_confusions, with_sisters
from taxadiffusion.request import Request
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

RANKS = ("family", "genus", "species")


def species(family: str, genus: str, epithet: str) -> Lineage:
    return Lineage.of({"family": family, "genus": genus, "species": epithet})


A, B, C = (species("Labridae", "Coris", epithet) for epithet in ("aygula", "batuensis", "cuvieri"))
ALONE = species("Labridae", "Zonus", "solus")
FAR = species("Zanclidae", "Zanclus", "cornutus")
ALL = [C, FAR, A, ALONE, B, *(one.truncated(rank) for one in (A, ALONE, FAR) for rank in ("family", "genus"))]


def test_the_sister_is_the_nearest_of_its_rank_and_the_next_by_name() -> None:
    sisters = Sisters(ALL)
    assert [sisters.of(one) for one in (A, B, C)] == [B, C, A]
    assert sisters.of(ALONE) == A  # none in its genus: of its family
    assert sisters.of(FAR) == A  # none in its family: of all
    assert sisters.of(A.truncated("genus")) == ALONE.truncated("genus")
    assert sisters.of(A.truncated("family")) == FAR.truncated("family")
    assert Sisters(reversed(ALL)).of(B) == C
    assert Sisters([FAR]).of(FAR) is None
    assert sisters.of(Lineage()) is None


def test_confusions_choose_among_the_nearest_alone() -> None:
    sisters = Sisters(ALL, {(A.label, C.label): 3, (A.label, B.label): 1, (A.label, FAR.label): 9})
    assert sisters.of(A) == C
    assert sisters.of(B) == C  # nothing is known of it: by name


def test_confusions_are_read_from_an_evaluation(tmp_path: Path) -> None:
    pair = {"true": A.label, "predicted": C.label, "count": 2, "of": 9}
    details = {"real_test_photographs": {"species": {"confusions": [pair]}, "genus": {"confusions": []}}, "ours": {}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"details": details}))
    assert read_confusions(tmp_path / "evaluation.json") == {(A.label, C.label): 2}
    for name, text in {"list": "[]", "cut": "{", "other": '{"details": {"ours": {}}}'}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=f"{name}: no evaluation with confusions"):
            read_confusions(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_confusions(tmp_path / "none")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    path = tmp_path_factory.mktemp("adapters") / "fish"
    taxonomy = taxonomy_of([A, B, FAR], RANKS)
    save_adapter(path, make(base, ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Fish\n")
    return load_adapter(path, base=str(base))


def test_a_picture_keeps_the_sister_it_was_guided_from(adapter: Adapter, tmp_path: Path) -> None:
    guidance = Guidance(2.0, base="sister")
    plain = [Request(A, 0, Guidance(2.0))]
    assert with_sisters(adapter, plain) == (plain, {})
    requests, notes = with_sisters(adapter, [Request(A, 0, guidance), Request(FAR, 0, guidance)])
    assert [request.sister for request in requests] == [B, A]
    assert notes == {}
    _, notes = with_sisters(adapter, [Request(Lineage(), 0, guidance)])
    assert notes == {Lineage(): NO_SISTER}
    list(generate(adapter, requests, tmp_path, Sampling(num_steps=2)))
    rows = (tmp_path / "metadata.csv").read_text().splitlines()
    head = rows[0].split(",")
    assert [row.split(",")[head.index("sister")] for row in rows[1:]] == [str(B), str(A)]
    assert {row.split(",")[head.index("guidance_rank")] for row in rows[1:]} == {"sister"}
