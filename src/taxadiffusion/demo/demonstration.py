"""The demo's work, step by step; every step finds what an interrupted one left and goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.config import Settings, given, load
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.demo.demo_page import CladeShown, DemoStory, Gallery, write_report
from taxadiffusion.demo.plan import TRAIN_FILE, Drawing, Plan, Shown, read_plan
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.pictures.generate import generate
from taxadiffusion.pictures.png import read_picture
from taxadiffusion.run import train
from taxadiffusion.sampler import Request
from taxadiffusion.simulate import TraitMeter, simulate, species_spread, taxon_truth, trait_error
from taxadiffusion.simulate.clade import Clade as SimulatedClade
from taxadiffusion.trainer import events
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World

OnCount = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and of how much."""

_NUM_CALIBRATION = 1200  # simulated pictures the trait meter is fitted on

Images = NDArray[np.uint8]


@dataclass
class Clock:
    """Seconds of each part, kept over interruptions."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> Clock:
        return cls(path, json.loads(path.read_text()) if path.is_file() else {})

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - start
            self.path.write_text(json.dumps(self.seconds))


def demo(
    out: Path,
    *,
    plan: Plan | None = None,
    device: str = "cpu",
    stop: StopSignal | None = None,
    on_progress: OnCount = lambda _what, _done, _total: None,
) -> Path:
    """Make the demo in `out` and return the path of its report, `out/report.html` (one self-contained file).

    First pictures of all species of the shipped models and the same seeds from coarse to fine; then a simulated clade
    is drawn, prepared, learned progressively by the shipped base and generated, as `plan` has it (none: `read_plan()`).
    The same call again goes on where this one was interrupted. Raises every `TaxaDiffusionError`.
    """
    plan = plan or read_plan()
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock.at(out / "seconds.json")
    galleries = []
    for shown in plan.shipped:
        with clock.timing(f"pictures: {shown.title}"):
            galleries.append(_gallery(out, shown, device, on_progress))
    settings = _settings(out, plan)
    with clock.timing("drawing the simulated clade"):
        source = out / plan.simulate.out
        if not source.exists():
            simulate(
                source,
                **plan.simulate.model_dump(exclude={"out"}),
                on_image=lambda done, total: on_progress("drawing a simulated clade", done, total),
            )
    with clock.timing("preparing it"):
        prepare(
            source,
            settings.data.path,
            on_progress=lambda p: on_progress(f"preparing: {p.phase}", p.done, p.total or p.done),
        )
    with clock.timing("training, four stages"):
        _train(settings, device, stop, on_progress)
    with clock.timing("pictures of the clade"):
        clade = _clade(out, plan, settings, device, on_progress)
    return write_report(out / "report.html", DemoStory(galleries, clade, plan, dict(clock.seconds)))


def _settings(out: Path, plan: Plan) -> Settings:
    """Of the file that is written for `train`, its paths below `out`."""
    with whole(out / TRAIN_FILE) as aside:
        aside.write_text(plan.train_file, encoding="utf-8")
    below = {"data.path": out / plan.settings.data.path, "output.path": out / plan.settings.output.path}
    return load(out / TRAIN_FILE, given(**below))


def _train(settings: Settings, device: str, stop: StopSignal | None, on_progress: OnCount) -> None:
    total = 0

    def begin(run: object) -> None:
        nonlocal total
        total = sum(stage.num_steps for stage in run.plan)  # type: ignore[attr-defined]

    def show(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            on_progress(f"training: {event.stage}", event.step, total)

    world = World(device=torch.device(device))
    train(settings, stop=stop, world=world, progress=on_progress, begin=begin, on_event=show)


def _drawn(
    adapter: Adapter, drawing: Drawing, out: Path, what: str, on_progress: OnCount
) -> dict[Lineage, list[Images]]:
    """The pictures of each taxon, in the order of their seeds."""
    requests = drawing.requests(adapter)
    paths: dict[Request, Path] = {}
    on_progress(what, 0, len(requests))
    for made in generate(adapter, requests, out / drawing.out, drawing.sampling):
        paths[made.request] = made.path
        on_progress(what, len(paths), len(requests))
    pictures: dict[Lineage, list[Images]] = {}
    for request in requests:
        pictures.setdefault(request.lineage, []).append(read_picture(paths[request]))
    return pictures


def _gallery(out: Path, shown: Shown, device: str, on_progress: OnCount) -> Gallery:
    adapter = open_model(shown.gallery.model, device=device)
    rows = _drawn(adapter, shown.gallery, out, f"pictures: {shown.title}", on_progress)
    drawn = _drawn(adapter, shown.strips, out, f"{shown.title}, coarse to fine", on_progress)
    strips = {
        lineage: [drawn[lineage.truncated(rank)][0] for rank in lineage.ranks]
        for lineage in shown.strips.lineages(adapter)
    }
    return Gallery(shown.title, shown.photographs, adapter.card.image_size_px, rows, strips)


def _clade(out: Path, plan: Plan, settings: Settings, device: str, on_progress: OnCount) -> CladeShown:
    grown = SimulatedClade.grow(plan.simulate.seed, plan.simulate.num_species)
    adapter = open_model(str(out / plan.pictures.model), device=device)
    ranks = adapter.card.ranks
    drawn = _drawn(adapter, plan.pictures, out, "pictures of the clade", on_progress)
    made = {(lineage, rank): drawn[lineage.truncated(rank)] for lineage in grown.species for rank in ranks}
    real = _real_pictures(settings.data.path, grown.species, plan.pictures.num_images)
    on_progress("measuring traits", 0, 1)
    errors = _trait_errors(grown, ranks, made, real)
    on_progress("measuring traits", 1, 1)
    return CladeShown(
        ranks=ranks,
        real=real,
        made=made,
        errors=errors,
        num_training=_training_counts(settings.data.path, grown.species),
        losses=_losses(settings.output.path),
    )


def _trait_errors(
    grown: SimulatedClade,
    ranks: tuple[Rank, ...],
    made: dict[tuple[Lineage, Rank], list[Images]],
    real: dict[Lineage, list[Images]],
) -> dict[str, float]:
    """Of the pictures made at each rank, and of the drawn ones."""
    meter, spread, truth = TraitMeter.calibrated(_NUM_CALIBRATION), species_spread(grown), taxon_truth(grown, ranks[-1])

    def mean_error(pictures: dict[Lineage, list[Images]]) -> float:
        shown = [lineage for lineage, images in pictures.items() for _ in images]
        images = np.stack([image for images in pictures.values() for image in images])
        return trait_error(meter, images, shown, truth, spread).mean

    errors = {rank: mean_error({lineage: made[lineage, rank] for lineage in grown.species}) for rank in ranks}
    return {**errors, "real pictures": mean_error(real)}


def _real_pictures(prepared: Path, species: Sequence[Lineage], number: int) -> dict[Lineage, list[Images]]:
    """Drawn pictures of each species, as many as there are made ones; a rare species' are taken again."""
    dataset = PreparedDataset.open(prepared)
    found: dict[Lineage, list[Images]] = {lineage: [] for lineage in species}
    for row in dataset.rows():
        pictures = found[dataset.lineage(int(row))]
        if len(pictures) < number:
            pictures.append(read_picture(dataset.record(int(row)).path))
    return {lineage: [pictures[i % len(pictures)] for i in range(number)] for lineage, pictures in found.items()}


def _training_counts(prepared: Path, species: Sequence[Lineage]) -> dict[Lineage, int]:
    dataset = PreparedDataset.open(prepared)
    counts = dataset.counts("train")
    return {lineage: int(counts[dataset.taxonomy.id_of(lineage)]) for lineage in species}


def _losses(run_dir: Path) -> list[tuple[int, str, float]]:
    """(step, stage, loss) of every step in the run's log."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["stage"], r["loss"]) for r in records if "loss" in r and "stage" in r]
