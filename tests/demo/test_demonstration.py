"""Laws of the demo: one self-contained page that says how to make all it shows, and nothing done twice after an
interruption."""

from __future__ import annotations

import html
import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import taxadiffusion.dataset
import taxadiffusion.pictures.generate
import taxadiffusion.run
import taxadiffusion.simulate
from taxadiffusion.adapter import Adapter
from taxadiffusion.cli import app
from taxadiffusion.config import Settings, flattened
from taxadiffusion.demo import demonstration
from taxadiffusion.demo.demonstration import demo
from taxadiffusion.demo.plan import Plan, Shown, read_plan
from taxadiffusion.trainer.signals import StopSignal
from tests.tiny_shipped import ship_tiny

RUN = {
    "simulate": taxadiffusion.simulate,
    "prepare": taxadiffusion.dataset,
    "train": taxadiffusion.run,
    "generate": taxadiffusion.pictures.generate,
}
"""What the demo and the commands call, and where the commands find it."""
HEARERS = {"on_image", "on_progress", "stop", "world", "progress", "begin", "on_event"}
"""Arguments by which calls are heard and stopped: they decide nothing that is made."""


def small(shown: Shown, quick: dict[str, int]) -> Shown:
    strips = shown.strips.model_copy(update={**quick, "taxa": shown.strips.taxa[:2]})
    return shown.model_copy(update={"gallery": shown.gallery.model_copy(update=quick), "strips": strips})


def small_plan() -> Plan:
    plan = read_plan()
    quick = {"num_steps": 2, "num_images": 1}
    return plan.model_copy(
        update={
            "simulate": plan.simulate.model_copy(update={"num_species": 4, "num_images": 80}),
            "train": {**plan.train, "stages": {"steps": 1}},
            "shipped": tuple(small(shown, quick) for shown in plan.shipped),
            "pictures": plan.pictures.model_copy(update={**quick, "num_images": 2}),
        }
    )


SIZE_PX = 64


class InterruptedHereError(Exception):
    pass


def interrupted_at(phase: str) -> Callable[[str, int, int], None]:
    def on_progress(what: str, done: int, total: int) -> None:
        if what == phase and done:
            raise InterruptedHereError(f"{done} of {total}")

    return on_progress


def times_of_change(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))}


def plain(value: Any) -> Any:
    """An argument as two calls are compared: paths in full, settings by key, a model by its card."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Settings):
        places = {"data.path": str(value.data.path.absolute()), "output.path": str(value.output.path.absolute())}
        return flattened(value) | places
    if isinstance(value, Adapter):
        return value.card
    return list(value) if isinstance(value, list | tuple) else value or None


def recorded(
    monkeypatch: pytest.MonkeyPatch, place: ModuleType, name: str, calls: list[tuple[str, Any]], *, works: bool
) -> None:
    """Have each call noted with all of its arguments; and then done, or broken off."""
    original = getattr(place, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append((name, {key: plain(value) for key, value in bound.arguments.items() if key not in HEARERS}))
        if works:
            return original(*args, **kwargs)
        raise InterruptedHereError

    monkeypatch.setattr(place, name, call)


def printed_commands(page: str) -> list[list[str]]:
    blocks = [html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    (commands,) = (block for block in blocks if block.startswith("taxadiffusion "))
    return [shlex.split(line)[1:] for line in commands.splitlines()]


def test_the_demo_goes_on_after_an_interruption_and_its_page_prints_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstration, "_NUM_CALIBRATION", 60)
    plan = small_plan()
    for shown in plan.shipped:
        species = [*shown.strips.taxa, "Amphiprion clarkii"]
        ship_tiny(tmp_path / "weights", shown.gallery.model, species, SIZE_PX, monkeypatch)
    ran: list[tuple[str, Any]] = []
    with monkeypatch.context() as patched:
        for name in RUN:
            recorded(patched, demonstration, name, ran, works=True)
        with pytest.raises(InterruptedHereError):
            demo(tmp_path, plan=small_plan(), on_progress=interrupted_at("pictures of the clade"))
    folders = [tmp_path / shown.gallery.out for shown in plan.shipped]
    made = [times_of_change(folder) for folder in folders]
    trained = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert all(made)
    assert trained
    assert not (tmp_path / "report.html").exists()

    report = demo(tmp_path, plan=small_plan())
    assert [times_of_change(folder) for folder in folders] == made
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == trained
    page = report.read_text(encoding="utf-8")
    assert report == tmp_path / "report.html"
    assert page.count("data:image/") > 20  # grids, strips and curves are in the page itself
    assert 'src="http' not in page
    assert 'href="http' not in page
    for words in ("Amphiprion clarkii", "order", "family", "genus", "species", "real pictures", "make page"):
        assert words in page

    # The commands that the page prints, typed in the demo's folder, call what the demo called.
    assert (tmp_path / "train.yaml").read_text(encoding="utf-8") in html.unescape(page)
    typed: list[tuple[str, Any]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StopSignal, "install", lambda _: None)
    for name, place in RUN.items():
        recorded(monkeypatch, place, name, typed, works=False)
    for words in printed_commands(page):
        with pytest.raises(InterruptedHereError):
            app(words, standalone_mode=False)
    shipped = ["generate", "generate"] * len(plan.shipped)
    assert [name for name, _ in typed] == [*shipped, "simulate", "prepare", "train", "generate"]
    assert typed == ran
