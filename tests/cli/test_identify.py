"""`identify` and `check --with` as they are typed, on a random model and real files."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.identify import main as measure
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.adapter import save_adapter
from taxadiffusion.cli import app
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import DataError, TaxaDiffusionError
from taxadiffusion.names import Lineage
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make

RANKS = ("order", "family", "genus", "species")
TAXA = [
    Lineage.of({"order": "Perciformes", "family": family, "genus": genus, "species": epithet})
    for family, genus, epithet in (("Pomacentridae", "Amphiprion", "clarkii"), ("Zanclidae", "Zanclus", "cornutus"))
]
TAXONOMY = taxonomy_of(TAXA, RANKS)


def typed(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, TaxaDiffusionError):
        return result.exception.exit_code, result.output + str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "adapter"
    save_adapter(path, make(base, ranks=RANKS, taxonomy=TAXONOMY), TAXONOMY, recipe={}, read_me="", image_size_px=16)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    source = folder / "source"
    source.mkdir()
    with (source / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", *RANKS, "split"])
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(source / f"{number}.png")
            names = dict(TAXA[number % 2].names)
            split = "train" if number < 2 else "test"
            table.writerow([f"{number}.png", *(names[rank] for rank in RANKS), split])
    prepare(source, folder / "prepared")
    return folder / "prepared"


def test_photographs_are_named_calibrated_compared_and_doubted(
    model: Path, prepared: Path, base: Path, tmp_path: Path
) -> None:
    photographs = sorted((prepared.parent / "source").glob("*.png"))[:2]
    ours = ["--base", base, "--device", "cpu", "--max-draws", "8"]
    code, said = typed("identify", model, *photographs, *ours, "--json", tmp_path / "names.json")
    assert code == 0, said
    assert "uncalibrated" in said
    document = json.loads((tmp_path / "names.json").read_text())
    assert [entry["file"] for entry in document] == [str(path) for path in photographs]
    assert [name["rank"] for name in document[0]["names"]] == list(RANKS)
    assert document[0]["predictions"] == 16, "one round of the two species"

    code, said = typed("identify", model, "--calibrate", prepared, *ours)
    assert code == 0, said
    assert "family:" in said
    assert "of 4 right" in said
    code, said = typed("identify", model, photographs[0], *ours)
    assert code == 0, said
    assert "probability" in said
    other_way = ["identify", model, photographs[0], *ours, "--beam", "2"]
    code, said = typed(*other_way)
    assert (code, "beam: 3 there, 2 now" in said, "uncalibrated" in said) == (0, True, True)
    code, said = typed(*other_way, "--calibration", model / "identify.json")
    assert (code, "beam: 3 there, 2 now" in said) == (4, True), "asked for, it is refused"

    other = tmp_path / "other.csv"
    other.write_text("order,family,genus,species\nPerciformes,Zanclidae,Amphiprion,Amphiprion clarkii\n")
    code, said = typed("identify", model, "--compare", other, "--data", prepared, *ours)
    assert code == 0, said
    assert "Amphiprion, order: Perciformes > family: Pomacentridae or order: Perciformes > family: Zanclidae" in said
    assert "note: the model learnt Amphiprion under Pomacentridae" in said

    table = tmp_path / "doubts.csv"
    code, said = typed("check", prepared, "--with", model, "--doubts", table, "--base", base, "--device", "cpu")
    assert code == 0, said
    assert len(table.read_text().splitlines()) == 5


def test_what_cannot_be_is_refused(model: Path, prepared: Path, base: Path, tmp_path: Path) -> None:
    photograph = prepared.parent / "source" / "0.png"
    assert typed("identify", model)[0] == 2
    assert typed("identify", model, photograph, "--calibrate", prepared)[0] == 2
    assert typed("identify", model, "--compare", prepared)[0] == 2
    assert typed("identify", model, photograph, "--limit", "2")[0] == 2
    assert typed("check", prepared, "--limit", "2")[0] == 2
    assert typed("check", prepared, "--with", model, "--synonyms", photograph)[0] == 2
    missing = [tmp_path / "none.png", "--calibration", tmp_path / "none.json"]
    assert typed("identify", model, *missing, "--base", base)[0] == 4
    (model / "identify.json").unlink(missing_ok=True)
    assert typed("identify", model, missing[0], "--base", base)[0] == 3
    code, said = typed("identify", model, "--compare", prepared, "--data", prepared, "--base", base)
    assert (code, "nothing to compare" in said) == (3, True)


@pytest.mark.parametrize("what", ["ranks", "growth", "doubts"])
def test_a_measurement_goes_on_with_more_photographs(
    what: str, model: Path, prepared: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = []
    for limit in ("2", "4"):
        words = [what, "--model", model, "--data", prepared, "--out", tmp_path, "--base", base, "--limit", limit]
        words += ["--device", "cpu", "--max-draws", "4", "--sizes", "1", "--planted", "0.5"]
        monkeypatch.setattr(sys, "argv", ["identify", *map(str, words)])
        measure()
        journals.append({path.name: path.read_text() for path in tmp_path.glob("*.jsonl")})
    found = json.loads((tmp_path / f"{what}.json").read_text())
    assert all(journals[1][name].startswith(text) for name, text in journals[0].items())
    assert sum(map(len, journals[1].values())) > sum(map(len, journals[0].values()))
    if what == "ranks":
        assert found["right"]["species, all"]["photographs"] == 4
        assert found["predictions_per_photograph"] >= 8
    elif what == "growth":
        assert [row["species"] for row in found["growth"]] == [1, 2]
        assert found["growth"][0]["predictions"] == 0
    else:
        assert found["photographs"] == 4
        assert [row["standard_errors"] for row in found["doubts"]] == [1, 2, 3, 4, 5, 7, 10]


def test_a_genus_that_was_left_out_is_compared_in_every_other_family(
    model: Path, prepared: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(data: Path) -> dict[str, Any]:
        words = ["moved", "--model", model, "--data", data, "--out", tmp_path, "--base", base]
        monkeypatch.setattr(sys, "argv", ["identify", *map(str, words), "--device", "cpu", "--max-draws", "4"])
        measure()
        found: dict[str, Any] = json.loads((tmp_path / "moved.json").read_text())["experiments"]["moved"]
        return found

    with pytest.raises(DataError, match="no genus that the model did not learn"):
        moved(prepared)
    source = prepared.parent / "source"
    rows = (source / "metadata.csv").read_text().replace("Amphiprion,clarkii", "Dascyllus,aruanus")
    (source / "moved.csv").write_text(rows)
    prepare(source / "moved.csv", tmp_path / "prepared")
    found = moved(tmp_path / "prepared")
    (one,) = found["comparisons"]
    assert (one["taxon"], one["photographs"], one["species"], one["learnt"]) == ("Dascyllus", 2, 1, False)
    assert (one["own"], one["other"]) == tuple(
        f"order: Perciformes > family: {f}" for f in ("Pomacentridae", "Zanclidae")
    )
    table = found["table1"]["family"]
    assert (table["genera"], table["places"]) == (1, 1)
    assert table["own"] + table["other"] + table["undecided"] == 1
    assert table == found["table1"]["Dascyllus"]
    assert table["gain_percent"]["mean"] == pytest.approx(one["gain_percent"]["mean"])
