"""Laws of the demo: one self-contained page, and nothing done twice after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taxadiffusion.demo import demonstration
from taxadiffusion.demo.demonstration import Size, demo
from taxadiffusion.pictures.generate import Sampling

SMALL = Size(
    num_species=4,
    num_images=80,
    steps_per_stage=1,
    images_per_species=2,
    gallery_columns=1,
    strip_taxa=2,
    sampling=Sampling(num_steps=2, batch_size=32),
)


class InterruptedHereError(Exception):
    pass


def interrupted_at(phase: str) -> Callable[[str, int, int], None]:
    def on_progress(what: str, done: int, total: int) -> None:
        if what == phase and done:
            raise InterruptedHereError(f"{done} of {total}")

    return on_progress


def times_of_change(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))}


def test_the_demo_goes_on_after_an_interruption_and_writes_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstration, "_NUM_CALIBRATION", 60)
    with pytest.raises(InterruptedHereError):
        demo(tmp_path, size=SMALL, on_progress=interrupted_at("pictures of the clade"))
    made = times_of_change(tmp_path / "reef-fish")
    trained = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert made
    assert trained
    assert not (tmp_path / "report.html").exists()

    report = demo(tmp_path, size=SMALL)
    assert times_of_change(tmp_path / "reef-fish") == made
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == trained
    page = report.read_text(encoding="utf-8")
    assert report == tmp_path / "report.html"
    assert page.count("data:image/") > 20  # grids, strips and curves are in the page itself
    assert 'src="http' not in page
    assert 'href="http' not in page
    for words in ("Amphiprion clarkii", "order", "family", "genus", "species", "real pictures"):
        assert words in page
