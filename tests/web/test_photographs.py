"""Laws of the photographs beside pictures: those that taught the model, with their licences, and no others."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import DataError
from taxadiffusion.pictures.png import save_picture
from taxadiffusion.web import looking
from taxadiffusion.web.limits import LIMITS, Limits
from taxadiffusion.web.photographs import Photographs
from taxadiffusion.web.served import ModelFacts, ServedModel
from tests.coloured_pictures import SPECIES, Colours, paint
from tests.site_taxa import served_model
from tests.taxa import taxonomy_of
from tests.tiny_base import write_tiny_base

RANKS = ("family", "genus", "species")
CLARUS, OBSCURUS, VIRIDIS, _ = SPECIES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Nine training photographs of each of two species, one of which states its licence; three for testing."""
    folder = tmp_path_factory.mktemp("photographs")
    source, rng = folder / "source", np.random.default_rng(0)
    source.mkdir()
    with (source / "metadata.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, ["file_name", *RANKS, "split", "license", "rightsHolder"], restval="")
        table.writeheader()
        for i in range(21):
            lineage, split = ((CLARUS, OBSCURUS)[i % 2], "train") if i < 18 else (CLARUS, "test")
            paint(SPECIES[lineage][0], rng).save(source / f"{i:02d}.png")
            more = {"license": "CC-BY", "rightsHolder": "A. Diver <b>"} if lineage == CLARUS else {}
            table.writerow({"file_name": f"{i:02d}.png", **dict(lineage.names), "split": split, **more})
    prepare(source, folder / "prepared")
    return PreparedDataset.open(folder / "prepared")


def model_of(*lineages: Any) -> ServedModel:
    facts = ModelFacts(RANKS, taxonomy_of(lineages, RANKS).to_json(), 16, "local", "0" * 64, "a CPU")
    return ServedModel("colours", facts)


def test_photographs_are_counted_with_those_below_and_shown_with_their_licence(dataset: PreparedDataset) -> None:
    model = model_of(CLARUS, OBSCURUS, VIRIDIS)
    photographs = Photographs(dataset, model, LIMITS)
    counts = [photographs.count(model.ids[one]) for one in (CLARUS, OBSCURUS, CLARUS.truncated("genus"), VIRIDIS)]
    assert counts == [9, 9, 18, 0]
    shown = photographs.shown(model.ids[CLARUS], 3)
    assert [(one.licence, one.holder, one.label) for one in shown] == [("CC-BY", "A. Diver <b>", "Ruber clarus")] * 3
    assert {one.row for one in shown} <= set(dataset.rows("train").tolist())
    assert photographs.shown(model.ids[VIRIDIS]) == []
    assert photographs.told(photographs.first(model.ids[OBSCURUS]) or 0).licence == ""


def test_only_training_photographs_of_the_model_are_given_out(dataset: PreparedDataset) -> None:
    model = model_of(OBSCURUS)
    photographs = Photographs(dataset, model, Limits(thumbnail_bytes=1))
    mine = [row for row in range(len(dataset)) if photographs.small(row) is not None]
    assert mine == [row for row in dataset.rows("train").tolist() if dataset.lineage(row).label == "Ruber obscurus"]
    with Image.open(io.BytesIO(photographs.small(mine[0]) or b"")) as image:
        assert image.format == "JPEG"
    assert photographs.small(len(dataset) + 5) is None


def test_photographs_of_other_taxa_are_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(DataError, match="none of its training photographs"):
        Photographs(dataset, served_model(), LIMITS)


def test_the_most_like_photograph_is_found_and_what_cannot_be_told_is_said(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training photograph given back is its own twin; of three unseen ones no threshold can be had."""
    from multiprocessing import Pipe

    monkeypatch.setattr("taxadiffusion.features.open_extractor", lambda *_: Colours())
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    where = (dataset.path, dataset.root, RANKS, str(write_tiny_base(tmp_path / "base")))
    ours, theirs = Pipe()
    thread = Thread(target=looking.look, args=(theirs, looking.Looking(*where, "inception", None, tmp_path)))
    thread.start()
    words = []
    while not (words and words[-1].ready):
        assert ours.poll(60)
        words.append(ours.recv())
        assert not words[-1].fault, words
    row = int(dataset.rows("train")[4])
    save_picture(dataset.image(row, looking.SIZE_PX), tmp_path / "copy.png", _recipe())
    ours.send(looking.Picture("0123456789", tmp_path / "copy.png", dataset.lineage(row)))
    assert ours.poll(60)
    twin = ours.recv()
    assert (twin.id, twin.row, twin.flagged) == ("0123456789", row, False)
    assert twin.verdict.startswith("cannot tell: 3 unseen photographs are too few")
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def _recipe() -> dict[str, str]:
    return {"scientific_name": "Ruber clarus", "software": "test", "source_taxon_id": ""}
