"""Laws of the weaker model: an earlier commit is what the run was then, and what does not belong is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion import checkpoint
from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.cli import app
from taxadiffusion.config import parse
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.pictures.weaker import open_weaker
from tests.tiny_adapter import TAXONOMY, make
from tests.tiny_base import write_tiny_base
from tests.tiny_command import run_all
from tests.tiny_run import tiny_base


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages of two steps, every step of which was committed and kept."""
    folder = tmp_path_factory.mktemp("weaker")
    rng = np.random.default_rng(0)
    lines = ["file_name,family,genus,species"]
    for family, genus, epithet in (("Labridae", "Coris", "aygula"), ("Zanclidae", "Zanclus", "cornutus")):
        for number in range(4):
            (folder / "fish").mkdir(exist_ok=True)
            picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            picture.save(folder / "fish" / f"{genus}-{number}.png")
            lines.append(f"{genus}-{number}.png,{family},{genus},{epithet}")
    (folder / "fish" / "metadata.csv").write_text("\n".join(lines) + "\n")
    prepare(folder / "fish", folder / "prepared")
    values = {
        "data": {"path": str(folder / "prepared"), "ranks": ["family", "species"]},
        "base": {"path": str(tiny_base()), "image_size_px": 16},
        "conditioner": {"num_heads": 2, "num_layers": 1},
        "stages": {"steps": 2},
        "training": {"batch_size": 4},
        "optimiser": {"learning_rate": 0.01},
        "checkpoint": {"every_steps": 1, "keep_last": 9},
        "preview": {"num_taxa": 0},
        "output": {"path": str(folder / "run"), "tensorboard": False},
    }
    run_all(parse(values))
    return folder / "run"


@pytest.fixture(scope="module")
def adapter(run_dir: Path) -> Adapter:
    return open_model(str(run_dir), base=str(tiny_base()))


def test_a_commit_is_the_model_of_its_step_cut_at_its_stage(run_dir: Path, adapter: Adapter) -> None:
    early = open_weaker(run_dir / "step-1", adapter, base=str(tiny_base()))
    tensors = checkpoint.latest(run_dir).tensors("model")  # type: ignore[union-attr]
    then = checkpoint.Committed(run_dir / "step-1", checkpoint.verify(run_dir / "step-1")).tensors("model")
    own = {name: p for group in early.weaker.denoiser.groups().values() for name, p in group.items()}
    assert all(torch.equal(own[name], tensor) for name, tensor in then.items())
    assert not all(torch.equal(then[name], tensor) for name, tensor in tensors.items())
    assert early.weaker.rank == "family"
    # At a stage's end the encoder of the next one has learnt nothing.
    assert open_weaker(run_dir / "step-2", adapter, base=str(tiny_base())).weaker.rank == "family"
    assert open_weaker(run_dir / "step-3", adapter, base=str(tiny_base())).weaker.rank == "species"
    assert open_weaker(run_dir / "step-4", adapter, base=str(tiny_base())).weaker.rank is None
    hashes = {open_weaker(run_dir / f"step-{n}", adapter, base=str(tiny_base())).sha256 for n in (1, 2, 3)}
    assert len(hashes) == 3


def test_what_does_not_belong_is_refused(run_dir: Path, adapter: Adapter, tmp_path: Path) -> None:
    from taxadiffusion.adapter import save_adapter

    shutil.copytree(run_dir / "step-1", tmp_path / "step-1")
    model = tmp_path / "step-1" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="the manifest says"):
        open_weaker(tmp_path / "step-1", adapter, base=str(tiny_base()))
    other = replace(adapter, card=adapter.card.model_copy(update={"taxonomy_hash": "0" * 64}))
    with pytest.raises(CheckpointError, match="belongs to another taxonomy"):
        open_weaker(run_dir / "step-1", other, base=str(tiny_base()))
    foreign = write_tiny_base(tmp_path / "base")
    save_adapter(tmp_path / "foreign", make(foreign), TAXONOMY, recipe={}, read_me="x\n")
    with pytest.raises(CheckpointError, match="belongs to another base"):
        open_weaker(tmp_path / "foreign", adapter, base=str(foreign))


def test_the_command_guides_with_a_commit_and_says_so_in_the_recipe(run_dir: Path, tmp_path: Path) -> None:
    asked = ["generate", str(run_dir), "--base", str(tiny_base()), "Coris aygula", "-n", "1", "--steps", "2"]
    asked += ["--device", "cpu"]

    def drawn(out: str, *options: str) -> list[str]:
        result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / out), *options])
        assert result.exit_code == 0, result.exception
        return (tmp_path / out / "metadata.csv").read_text().splitlines()

    head, row = (line.split(",") for line in drawn("weak", "--guide-with", str(run_dir / "step-1")))
    recipe = dict(zip(head, row, strict=True))
    assert recipe["guidance_rank"] == "weaker model"
    assert len(recipe["weaker_sha256"]) == 64
    head, row = (line.split(",") for line in drawn("sister", "--guidance-rank", "sister"))
    assert "cornutus" in dict(zip(head, row, strict=True))["sister"]
    refused = CliRunner().invoke(
        app, [*asked, "--out", str(tmp_path / "none"), "--guide-with", str(run_dir), "--guidance-rank", "family"]
    )
    assert isinstance(refused.exception, SettingsError)
    assert "no other base" in str(refused.exception)
    refused = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "none"), "--confusions", "x.json"])
    assert "give it with --guidance-rank sister" in str(refused.exception)
    assert not (tmp_path / "none").exists()
