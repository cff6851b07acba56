"""Laws of generated sets: only our own pictures are shared, and card and Croissant describe them to machines."""

from __future__ import annotations

import csv
import io
import json
import shutil
from datetime import date
from pathlib import Path

import mlcroissant
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.errors import DataError
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, SOURCE, save_picture
from taxadiffusion.sharing.generated_set import is_generated, read_generated, set_files

RECIPE = {
    "genus": "Zanclus", "species": "cornutus", "scientific_name": "Zanclus cornutus", "taxon_rank": "species",
    "source_taxon_id": "", "note": "", "guidance_scale": "2.5", "guidance_rank": "unconditional", "fraction": "0",
    "num_steps": "25", "scheduler": "default", "model_sha256": "0" * 64, "base": "nano", "base_sha256": "1" * 64,
    "software": "taxadiffusion 0", "source": SOURCE, "digital_source_type": DIGITAL_SOURCE_TYPE,
}  # fmt: skip
LARGE = 2**63 - 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `generate` leaves it, with a stranger's photograph in it that no table lists."""
    rows = []
    for seed in (0, 1, LARGE):
        recipe = RECIPE | {"seed": str(seed)}
        image = np.random.default_rng(seed % 7).integers(0, 256, (3, 16, 16), dtype=np.uint8)
        save_picture(image, tmp_path / "set/zanclus" / f"{seed}.png", recipe)
        rows.append({"file_name": f"zanclus/{seed}.png", **recipe})
    with (tmp_path / "set/metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    Image.new("RGB", (8, 8)).save(tmp_path / "set/holiday.jpg")
    return tmp_path / "set"


def rewritten(folder: Path, row: int, **values: str) -> None:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[row] |= values
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / "metadata.csv").write_text(stream.getvalue(), encoding="utf-8")


def shared(folder: Path) -> dict[str, bytes | Path]:
    found = read_generated(folder)
    return set_files(found, repo="me/moorish-idols", licence="cc0-1.0", published=date(2026, 1, 2))


def test_what_is_shared_is_what_the_table_lists(folder: Path) -> None:
    assert is_generated(folder)
    assert read_generated(folder).left_out == 1
    files = shared(folder)
    assert set(files) == {
        "README.md", "croissant.json", "metadata.csv", "zanclus/0.png", "zanclus/1.png", f"zanclus/{LARGE}.png",
    }  # fmt: skip


def test_the_hub_reads_the_card(folder: Path) -> None:
    content = shared(folder)["README.md"]
    assert isinstance(content, bytes)
    card = DatasetCard(content.decode())
    assert card.data.license == "cc0-1.0"
    assert card.data.size_categories == ["n<1K"]
    assert {"synthetic", "taxadiffusion"} <= set(card.data.tags)
    for told in ("3 synthetic pictures", "| species | 1 |", "| num_steps | 25 |", "must not be used for"):
        assert told in card.content


def test_croissant_is_valid_and_its_records_are_the_pictures(folder: Path, tmp_path: Path) -> None:
    for name, content in shared(folder).items():
        path = tmp_path / "shared" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    dataset = mlcroissant.Dataset(str(tmp_path / "shared/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert (dataset.metadata.name, dataset.metadata.version) == ("moorish-idols", "1.0.0")
    rows = list(dataset.records("pictures"))
    assert [row["pictures/file_name"].decode() for row in rows] == [f"zanclus/{seed}.png" for seed in (0, 1, LARGE)]
    assert [int(row["pictures/seed"]) for row in rows] == [0, 1, LARGE]
    assert {float(row["pictures/guidance_scale"]) for row in rows} == {2.5}
    pixels = {row["pixels/path"].decode(): row["pixels/image"] for row in dataset.records("pixels")}
    with Image.open(folder / "zanclus/1.png") as image:
        assert np.array_equal(np.asarray(pixels["zanclus/1.png"]), np.asarray(image))
    assert len(pixels) == 3


def test_a_strangers_photograph_is_never_shared(folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "zanclus/0.png")
    with pytest.raises(DataError, match="is no picture that `taxadiffusion generate` made"):
        read_generated(folder)
    shutil.copy(folder / "holiday.jpg", folder / "zanclus/0.png")
    with pytest.raises(DataError, match="is no picture that"):
        read_generated(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"file_name": "../outside.png"}, "line 2: '../outside.png' leads out of the folder"),
        ({"file_name": "zanclus/gone.png"}, "line 2: zanclus/gone.png is missing"),
        ({"species": "canescens"}, "line 2: species is not what the picture itself says"),
    ],
)
def test_a_table_that_says_otherwise_is_refused(folder: Path, values: dict[str, str], message: str) -> None:
    rewritten(folder, 0, **values)
    with pytest.raises(DataError, match=message):
        read_generated(folder)


def test_other_folders_are_models_or_nothing(folder: Path, tmp_path: Path) -> None:
    assert not is_generated(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,species\n")
    assert not is_generated(tmp_path)
    (folder / "metadata.csv").write_text((folder / "metadata.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="lists no picture"):
        read_generated(folder)


def test_a_dry_run_lists_what_would_be_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    result = CliRunner().invoke(app, ["push", str(folder), "me/set", "--license", "cc0-1.0", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "6 files" in result.output
    assert "for the dataset me/set; nothing was sent" in result.output
    assert "1 files that the table does not list stay here" in result.output
    assert "holiday" not in result.output
    assert json.loads(bytes(shared(folder)["croissant.json"]))["recordSet"]  # type: ignore[arg-type]
