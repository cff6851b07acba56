"""A base says what it has seen, and a report repeats that and no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.training_record import Source, TrainingRecord, read_record, what_was_seen, write_record
from taxadiffusion.base.weights import base_files
from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Lineage
from tests.tiny_run import tiny_base

CORNUTUS = Lineage.of({"genus": "Zanclus", "species": "cornutus"})
CLARKII = Lineage.of({"genus": "Amphiprion", "species": "clarkii"})


def test_a_record_says_what_was_seen_what_was_not_and_that_nothing_is_known() -> None:
    record = TrainingRecord(sources=(Source(name="web", num_images=9, taxa={"Zanclus cornutus": 2}),
                                     Source(name="more", num_images=3, taxa={"Zanclus cornutus": 1})))  # fmt: skip
    assert record.num_seen(CORNUTUS) == 3
    assert "3 of Zanclus cornutus; none of Amphiprion clarkii (web; more)" in what_was_seen(record, (CORNUTUS, CLARKII))
    assert what_was_seen(record, (CLARKII,)) == "By its record the base saw no picture of these taxa."
    assert "not recorded" in what_was_seen(None, (CLARKII,))


def test_a_record_travels_with_its_base_and_changes_no_hash_of_it(tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base(), tmp_path / "base"))
    before = Backbone.load(str(base)).content_hash
    assert read_record(base) is None
    record = TrainingRecord(sources=(Source(name="web", num_images=9, splits=("train",), taxa={"Labridae": 4}),))
    write_record(record, base)
    assert read_record(base) == record
    assert base / "training.json" in base_files(base)
    assert Backbone.load(str(base)).content_hash == before


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "JSON object"),
        (json.dumps({"sources": [{"name": "x", "num_images": -1}]}), r"sources.0.num_images"),
        (json.dumps({"sources": [], "format": "other"}), "format"),
        (json.dumps({"sources": [{"name": "x", "num_images": 1, "taxa": {"A": -2}}]}), r"taxa.A"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, broken: str, message: str) -> None:
    (tmp_path / "training.json").write_text(broken)
    with pytest.raises(CheckpointError, match=rf"training\.json.*{message}"):
        read_record(tmp_path)
