"""Laws of the command that evaluates: at which size it compares, and what it refuses before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.image_plan import ImagePlan
from taxadiffusion.evaluate.networks import Networks
from taxadiffusion.report.command import Extractors, Measured, evaluate_command
from tests.coloured_dataset import dataset
from tests.coloured_pictures import RANKS, SPECIES, Colours, paint, write_folder

__all__ = ["dataset"]


class Sides(Colours):
    """Colours, and the sides of what it looked at."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.add(images.shape[-1])
        return super().__call__(images)


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Sides:
    found = Sides()
    monkeypatch.setattr(Extractors, "open", lambda *_: Networks(found))
    return found


def folder_of(path: Path, side: int) -> Path:
    rng = np.random.default_rng(side)
    shown = [(s, paint(SPECIES[s][0], rng).resize((side, side)), {"seed": str(i)}) for s in SPECIES for i in range(6)]
    return write_folder(path, shown)


@pytest.mark.parametrize(("asked", "used"), [(None, 24), (40, 40)])
def test_pictures_and_photographs_are_compared_at_the_pictures_own_size_unless_one_is_named(
    dataset: PreparedDataset, sides: Sides, tmp_path: Path, asked: int | None, used: int
) -> None:
    made = folder_of(tmp_path / "made", 24)
    with Image.open(dataset.record(0).path) as photograph:
        assert photograph.size not in ((24, 24), (40, 40)), "or the photographs' size might be what was used"
    evaluate_command(
        Measured([str(made)], dataset.path, ImagePlan(6), ranks=RANKS, size_px=asked),
        tmp_path / "out",
        Extractors(["colours"]),
    )
    assert sides.seen == {used}


@pytest.mark.parametrize(("small", "large"), [("small", "large"), ("one", "one")])
def test_pictures_of_two_sizes_are_refused_before_anything_is_looked_at(
    dataset: PreparedDataset, sides: Sides, tmp_path: Path, small: str, large: str
) -> None:
    """Compared at the size of either, one of the two would be judged by pixels that were made up or thrown away."""
    entries = [f"{small}={folder_of(tmp_path / 'a', 24)}", f"{large}={folder_of(tmp_path / 'b', 48)}"]
    asked = Measured(entries, dataset.path, ImagePlan(6), ranks=RANKS)
    with pytest.raises(SettingsError, match=rf"{small} are 24 px wide and of {large} 48 px.*--size-px"):
        evaluate_command(asked, tmp_path / "out", Extractors(["colours"]))
    assert not sides.seen


@pytest.mark.usefixtures("sides")
def test_the_others_are_compared_with_the_method_that_was_named(dataset: PreparedDataset, tmp_path: Path) -> None:
    entries = [f"{name}={folder_of(tmp_path / name, 24)}" for name in ("one", "other")]
    asked = Measured(entries, dataset.path, ImagePlan(6), ranks=RANKS, against="other")
    found = evaluate_command(asked, tmp_path / "out", Extractors(["colours"]))
    assert found is not None
    assert (found.compared.name, found.compared.how) == ("other", "named")
    assert list(found.differences) == ["one"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "those of other, which was named before anything was measured" in page
    assert "lead is luck" not in page


def test_a_method_that_is_not_there_is_refused_before_anything_is_looked_at(
    dataset: PreparedDataset, sides: Sides, tmp_path: Path
) -> None:
    asked = Measured([f"one={folder_of(tmp_path / 'a', 24)}"], dataset.path, ImagePlan(6), ranks=RANKS, against="other")
    with pytest.raises(SettingsError, match="--against other: is none of one"):
        evaluate_command(asked, tmp_path / "out", Extractors(["colours"]))
    assert not sides.seen
