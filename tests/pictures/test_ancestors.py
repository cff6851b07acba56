"""Laws of drawn ancestors: a cloud about a mean, the same from the same seed, and a way that leads through it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.cli import app
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.ancestors import cloud, way
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

RANKS = ("family", "genus", "species")
TAXA = [
    Lineage.of({"family": family, "genus": genus, "species": epithet})
    for family, genus, epithet in (
        ("Labridae", "Coris", "aygula"),
        ("Labridae", "Coris", "gaimard"),
        ("Labridae", "Cheilinus", "undulatus"),
        ("Zanclidae", "Zanclus", "cornutus"),
    )
]
LABRIDAE = TAXA[0].truncated("family")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    path = tmp_path_factory.mktemp("adapters") / "fish"
    taxonomy = taxonomy_of(TAXA, RANKS)
    save_adapter(path, make(base, ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Fish\n")
    return path, base


@pytest.fixture(scope="module")
def adapter(model: tuple[Path, Path]) -> Adapter:
    return load_adapter(model[0], base=str(model[1]))


def test_each_picture_of_a_cloud_has_an_ancestor_of_its_own_that_its_seed_decides(adapter: Adapter) -> None:
    seeds = range(400)
    requests, note = cloud(adapter, LABRIDAE, seeds, Guidance(2.0))
    weights = np.array([[weight for _, weight in request.blend] for request in requests])
    assert {lineage for lineage, _ in requests[0].blend} == set(TAXA[:3])
    assert len({request.blend for request in requests}) == 400
    means, _ = cloud(adapter, LABRIDAE, [0, 1], Guidance(2.0), mean=True)
    mean = np.array([weight for _, weight in means[0].blend])
    assert means[0].blend == means[1].blend
    assert np.all(np.abs(weights.mean(0) - mean) < 5 * weights.std(0) / 20)
    assert weights.std(0).min() > 0.1
    # two of one genus at 1/2 + 1 together, one at 2: the inverse of their variances
    assert sorted(mean) == pytest.approx(sorted([(2 / 3) / (2 / 3 + 1 / 2) / 2] * 2 + [(1 / 2) / (2 / 3 + 1 / 2)]))
    assert cloud(adapter, LABRIDAE, [7], Guidance(2.0))[0] == [requests[7]]
    assert "3 descendants" in note


def test_the_way_leads_from_one_through_the_ancestor_to_the_other(adapter: Adapter) -> None:
    requests, _ = way(adapter, TAXA[0], TAXA[2], 3, 5, Guidance(2.0))
    (mean,), _ = cloud(adapter, LABRIDAE, [5], Guidance(2.0), mean=True)
    assert requests[0].blend == ((TAXA[0], 1.0),)
    assert dict(requests[1].blend) == dict(mean.blend)
    assert requests[2].blend == ((TAXA[2], 1.0),)
    with pytest.raises(DataError, match="have no ancestor in common"):
        way(adapter, TAXA[0], TAXA[3], 3, 0, Guidance())
    for other in (TAXA[0], LABRIDAE):
        with pytest.raises(DataError, match="there is no way between"):
            way(adapter, TAXA[0], other, 3, 0, Guidance())


def test_the_command_draws_and_notes_what_it_drew(model: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ["ancestors", str(model[0]), "--base", str(model[1]), "--steps", "2", "--device", "cpu", "-n", "2"]
    done = CliRunner().invoke(app, [*asked, "Labridae", "Coris", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
    with (tmp_path / "out" / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["scientific_name"] for row in rows] == ["Labridae"] * 2 + ["Coris"] * 2
    assert all(row["blend"] and "a draw of the ancestor" in row["note"] for row in rows)
    again = CliRunner().invoke(app, [*asked, "Labridae", "Coris", "--out", str(tmp_path / "out")])
    assert "0 pictures made, of 4" in again.output
    between = CliRunner().invoke(app, [*asked, "Coris aygula", "Cheilinus", "--way", "--out", str(tmp_path / "way")])
    assert between.exit_code == 0, between.exception
    tree = tmp_path / "dated.nwk"
    tree.write_text("(((Coris_aygula:1,Coris_gaimard:1):3,Zanclus_cornutus:4):6,Other_one:10);", encoding="utf-8")
    dated = CliRunner().invoke(
        app, [*asked, "Labridae", "--mean", "--tree", str(tree), "--out", str(tmp_path / "tree")]
    )
    assert dated.exit_code == 0, dated.exception
    with (tmp_path / "tree" / "metadata.csv").open(newline="") as stream:
        notes = {row["note"] for row in csv.DictReader(stream)}
    assert "2 descendants tell of it, by Brownian motion on dated.nwk, which lacks 1 more" in notes.pop()
    tree.write_text("(Other_one:1,Other_two:1);", encoding="utf-8")
    elsewhere = ["Labridae", "--tree", str(tree)]
    for wrong, kind in ((["Labridae", "--way"], SettingsError), (["Coris aygula"], DataError), (elsewhere, DataError)):
        refused = CliRunner().invoke(app, [*asked, *wrong, "--out", str(tmp_path / "none")])
        assert isinstance(refused.exception, kind)
    assert not (tmp_path / "none").exists()
