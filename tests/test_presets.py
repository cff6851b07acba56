"""Each preset's own `prepare` command, as its header states it, runs on a source of the published shape."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import data
from taxadiffusion.config import load
from taxadiffusion.dataset import PreparedDataset
from tests import test_export as sources
from tests import test_readers_inaturalist as inaturalist
from tests import test_readers_treeoflife as treeoflife

REPOSITORY = Path(__file__).resolve().parents[1]


def inaturalist_2021(root: Path) -> Path:
    folder = "02912_Animalia_Chordata_Actinopterygii_Siluriformes_Ictaluridae_Ameiurus_nebulosus"
    category = {"id": 0, "name": "Ameiurus nebulosus", "kingdom": "Animalia", "phylum": "Chordata"}
    category |= {"class": "Actinopterygii", "order": "Siluriformes", "family": "Ictaluridae", "genus": "Ameiurus"}
    category |= {"specific_epithet": "nebulosus", "image_dir_name": folder}
    for seed, split in enumerate(("train", "val")):
        name = f"{split}/{folder}/{seed}.jpg"
        sources.picture(root / name, seed)
        inaturalist.write_json(root / f"{split}.json", [category], [{"id": 7, "file_name": name}], [(7, 0)])
    return root


def tree_of_life(root: Path) -> Path:
    samples = {}
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        samples[f"uuid-{seed}"] = {"jpg": buffer.getvalue(), "com.txt": b"raven"}
    treeoflife.write_shard(root / "dataset/EOL/shard-000000.tar", samples)
    rows = [f"train,uuid-{i},,,,,,,,Metazoa,Chordata,Aves,Passeriformes,Corvidae,Corvus,corax,raven" for i in range(2)]
    treeoflife.write_catalog(root, *rows)
    return root


def gbif(root: Path) -> Path:
    sources.darwincore_source(root)
    (root / "media").mkdir()
    for path in root.glob("*.jpg"):
        path.rename(root / "media" / path.name)
    return root


SHAPES: dict[str, Callable[[Path], Path]] = {
    "fishnet": sources.fishnet_source,
    "bioscan-1m": sources.bioscan_source,
    "inaturalist-2021": inaturalist_2021,
    "treeoflife": tree_of_life,
    "gbif": gbif,
}


@pytest.mark.parametrize("preset", SHAPES)
def test_the_stated_command_prepares_what_the_preset_trains_on(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = REPOSITORY / f"configs/{preset}.yaml"
    (stated,) = re.findall(r"^#   taxadiffusion (prepare .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    settings = load(path)
    command, source, out, *options = shlex.split(stated)
    assert source.startswith("PATH/TO/")
    assert Path(out) == settings.data.path
    monkeypatch.chdir(REPOSITORY)
    app = typer.Typer()
    app.callback()(lambda: None)
    data.register(app)
    made = SHAPES[preset](tmp_path / "source")
    arguments = [command, str(made), str(tmp_path / "out"), *options, "--limit", "2", "--workers", "1"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    prepared = PreparedDataset.open(tmp_path / "out")
    assert len(prepared) == 2
    assert settings.data.ranks is not None
    assert set(settings.data.ranks) <= set(prepared.ranks)
    assert json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["rows"] == 2
