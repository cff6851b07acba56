"""Laws of what is told of an evaluation: it is this model's, and each figure stands at its rank and taxon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.web.evaluated import Share, found_evaluation, read_evaluation
from tests.site_taxa import CLARKII, CORNUTUS, served_model

MODEL = served_model()


def taxon(lineage: Any, named_right: float | None) -> dict[str, Any]:
    names = {"kingdom": "Animalia", **dict(lineage.names)}
    return {"taxon": names, "named_right": named_right, "num_images": 6, "num_photographs": 15}


def document(*methods: str) -> dict[str, Any]:
    figure = {"rank_accuracy": {"mean": 0.75, "low": 0.5, "high": 0.9}}
    taxa = [taxon(CLARKII, 0.5), taxon(CORNUTUS, None)]
    names = (*methods, "real_test_photographs")
    return {
        "table1": {name: {"kingdom": figure, "species": figure} for name in names},
        "details": {name: {"species": {"taxa": taxa}} for name in names},
    }


def written(folder: Path, value: object) -> Path:
    (folder / "results.json").write_text(json.dumps(value))
    return folder


def test_shares_stand_at_their_rank_and_taxon_over_the_ranks_of_the_model(tmp_path: Path) -> None:
    found = read_evaluation(written(tmp_path, document("other", "fish")), MODEL)
    assert found.method == "fish"
    assert found.ranks == found.real == {"species": Share(0.75, 0.5, 0.9)}
    assert found.taxa == {CLARKII: Share(0.5, num_images=6)}
    assert found.num_photographs == {CLARKII: 15, CORNUTUS: 15}


def test_the_only_method_needs_no_name_and_of_several_none_is_guessed(tmp_path: Path) -> None:
    assert read_evaluation(written(tmp_path, document("mine")) / "results.json", MODEL).method == "mine"
    with pytest.raises(DataError, match="none of them called 'fish'"):
        read_evaluation(written(tmp_path, document("one", "two")), MODEL)


@pytest.mark.parametrize("value", [[], {}, {"table1": {}, "details": {}}, {"table1": {"fish": 3}, "details": {}}])
def test_what_is_no_evaluation_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"results\.json"):
        read_evaluation(written(tmp_path, value), MODEL)
    with pytest.raises(DataError, match="no evaluation"):
        read_evaluation(tmp_path / "nowhere.json", MODEL)


def test_an_evaluation_in_the_folder_of_the_model_is_found(tmp_path: Path) -> None:
    assert found_evaluation(str(tmp_path)) is None
    (tmp_path / "evaluation").mkdir()
    written(tmp_path / "evaluation", document("fish"))
    assert found_evaluation(str(tmp_path)) == tmp_path / "evaluation" / "results.json"


def test_an_evaluation_of_another_model_is_refused_and_of_several_methods_this_models_is_taken(tmp_path: Path) -> None:
    mine, other = MODEL.facts.sha256, "b" * 64
    two = document("fish", "renamed") | {"models": {"fish": [other], "renamed": [other, mine]}}
    assert read_evaluation(written(tmp_path, two), MODEL).method == "renamed"
    with pytest.raises(DataError, match="measures another model"):
        read_evaluation(written(tmp_path, document("fish") | {"models": {"fish": [other]}}), MODEL)
    partly = document("fish", "old") | {"models": {"fish": [other]}}  # what "old" was drawn by, nobody knows
    with pytest.raises(DataError, match="none of them called"):
        read_evaluation(written(tmp_path, partly), MODEL)
    assert read_evaluation(written(tmp_path, document("fish") | {"models": {}}), MODEL).method == "fish"
