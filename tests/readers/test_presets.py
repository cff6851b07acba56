"""Each file in configs/ runs whole, by the commands that it states, on a source of the published shape."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from taxadiffusion import cli
from taxadiffusion.config import load
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.report import command
from taxadiffusion.trainer.watchers import read_metrics
from tests import preset_sources as sources
from tests.tiny_base import write_sd15_shaped_base
from tests.tiny_run import tiny_base

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

SHAPES: dict[str, Callable[[Path], Path]] = {
    "PATH/TO/FishNet": sources.fishnet_source,
    "PATH/TO/BIOSCAN": sources.bioscan_source,
    "PATH/TO/inat2021": sources.inaturalist_source,
    "PATH/TO/TreeOfLife": sources.treeoflife_source,
    "PATH/TO/GBIF": sources.gbif_source,
    "../shared/data/reef-fish": sources.reef_fish_source,
    "../shared/data/butterflies": sources.butterflies_source,
}
"""What a preset's `prepare` names as its source → what makes one of that shape."""

RUNS = sorted(
    path.stem for path in CONFIGS.glob("*.yaml") if "stages:" in path.read_text() or "sd15" in path.read_text()
)
EVERY_METHOD = ("reef-fish-tables", "clade-tables")
"""Presets of which all methods are planned; of the others one, for each method costs a second."""
DEEP = ("fishnet", "inaturalist-2021")
"""Presets that run on a base with all of Stable Diffusion's levels (five ranks, seven); each costs seconds more."""
SMALL = {"simulate": ["--num-species", "3", "--num-images", "90", "--size-px", "16"], "prepare": ["--workers", "1"]}


def test_every_file_is_a_run_or_the_repairs_of_one() -> None:
    others = {path.stem for path in CONFIGS.glob("*.yaml")} - set(RUNS)
    assert others == {"fishnet-fixes"}
    assert "--fix configs/fishnet-fixes.yaml" in (CONFIGS / "fishnet.yaml").read_text()


class Thumbnails:
    """Features: the image at 4 px."""

    name = "thumbnails"
    content_hash = "t" * 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch, channels, height, width = images.shape
        tiles = images.reshape(batch, channels, 4, height // 4, 4, width // 4).mean((3, 5))
        return tiles.reshape(batch, -1).astype(np.float32)


@dataclass(frozen=True)
class Desk:
    """A folder to work in, with configs/ as in the repository, and a base of Stable Diffusion's shape."""

    folder: Path
    sd15: Path

    def base(self, preset: str) -> tuple[Path, int]:
        """What stands in for the preset's own base, and the side of its images in pixels."""
        return (self.sd15, 64) if preset in DEEP else (tiny_base(), 16)

    def run(self, *words: str) -> str:
        result = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def prepare(self, preset: str) -> Path:
        """By the commands that the preset states; one that is done is not done again."""
        settings = load(CONFIGS / f"{preset}.yaml")
        for words in stated(preset):
            if words[0] in SMALL and not (self.folder / settings.data.path / "report.json").exists():
                self.run(words[0], *(self._source(word) for word in words[1:]), *SMALL[words[0]])
        return settings.data.path

    def _source(self, word: str) -> str:
        if word not in SHAPES:
            return word
        return str(SHAPES[word](self.folder / "sources" / Path(word).name))


def stated(preset: str) -> list[list[str]]:
    """The commands in the file's head, or in the head of the file that it is compared with."""
    text = (CONFIGS / f"{preset}.yaml").read_text(encoding="utf-8")
    lines = re.sub(r" \\\n# *", " ", text).splitlines()
    found = [line.removeprefix("#").strip() for line in lines if line.startswith("#   taxadiffusion ")]
    if not found:
        (other,) = re.findall(r"configs/([a-z0-9-]+)\.yaml", text)
        return stated(other)
    return [shlex.split(part)[1:] for line in found for part in line.split(" && ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(CONFIGS)
    return Desk(folder, write_sd15_shaped_base(folder / "base"))


@pytest.fixture(autouse=True)
def _threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shrunk(settings_steps: int | dict[str, int], base: Path, size_px: int) -> list[str]:
    """What makes a preset small: another base, a step a stage, one picture; the rest is the preset's own."""
    steps = 1 if isinstance(settings_steps, int) else dict.fromkeys(settings_steps, 1)
    small = {
        "base.path": str(base),
        "base.image_size_px": size_px,
        "stages.steps": steps,
        "training.batch_size": 2,
        "validation.num_samples": 2,
        "preview.num_taxa": 1,
        "preview.num_steps": 1,
        "num_workers": 0,
        "num_threads": 1,
    }
    return [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.parametrize("preset", RUNS)
def test_a_preset_runs_from_source_to_report(preset: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    monkeypatch.setattr(command, "open_extractor", lambda *_: Thumbnails())
    config = f"configs/{preset}.yaml"
    settings = load(Path(config))
    prepared = PreparedDataset.open(desk.prepare(preset))
    assert set(settings.data.ranks or ()) <= set(prepared.ranks)
    where, size_px = desk.base(preset)
    small = shrunk(settings.stages.steps, where, size_px)
    told = desk.run("train", config, *small)
    run_dir = settings.output.path
    _check_run(run_dir, settings.data.ranks or prepared.ranks, told, validates=settings.validation.every_steps > 0)
    base = ["--base", str(where)]
    desk.run("generate", str(run_dir), "--all-species", "-n", "2", "--steps", "1", "--out", f"{run_dir}-drawn", *base)
    evaluated = ["--data", str(settings.data.path), "--size-px", "16", "--ranks", "species"]
    desk.run("evaluate", f"{run_dir}-drawn", *evaluated, "--out", f"{run_dir}-results")
    results = json.loads((Path(f"{run_dir}-results") / "results.json").read_text())
    assert results["protocol"]["unseen_split"] == ("test" if len(prepared.rows("test")) else "val")
    every = ["all"] if preset in EVERY_METHOD else ["table1", "--method", "taxadiffusion"]
    planned = desk.run("reproduce", *every, "--config", config, "--out", f"{run_dir}-tables", "--plan", *small)
    assert "trainings, about" in planned


def _check_run(run_dir: Path, ranks: Sequence[str], told: str, *, validates: bool) -> None:
    card = json.loads((run_dir / "adapter/adapter.json").read_text())
    assert card["ranks"] == list(ranks)
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert [line["stage"] for line in lines if line["event"] == "StepDone"] == list(ranks)
    assert all(np.isfinite(line["loss"]) for line in lines if line["event"] == "StepDone")
    assert sum(line["event"] == "Validated" for line in lines) == (len(ranks) if validates else 0), told
    assert len(list((run_dir / "previews").iterdir())) >= 1
