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
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.demo.demo_page import CladeShown, DemoStory, Gallery, write_report
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.asked import species_of
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.png import read_picture
from taxadiffusion.run import train
from taxadiffusion.sampler import Request
from taxadiffusion.simulate import (
    DEFAULT_RANKS,
    TraitError,
    TraitMeter,
    simulate,
    species_spread,
    taxon_truth,
    trait_error,
)
from taxadiffusion.simulate.clade import Clade as SimulatedClade
from taxadiffusion.trainer import events
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World

OnCount = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and of how much."""

SHIPPED = "reef-fish"
GALLERY_GUIDANCE = Guidance(DEFAULT_SCALE)
CLADE_GUIDANCE = Guidance(2.0)  # traits are measured on these pictures, and more guidance overdraws them
_NUM_CALIBRATION = 2000  # simulated pictures the trait meter is fitted on

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Size:
    """How much the demo does; the default takes minutes on two CPU cores."""

    num_species: int = 16
    num_images: int = 960
    steps_per_stage: int = 130
    images_per_species: int = 6
    gallery_columns: int = 6
    strip_taxa: int = 5
    sampling: Sampling = field(default_factory=lambda: Sampling(num_steps=20, batch_size=32))


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
    model: str = SHIPPED,
    seed: int = 1,
    size: Size = Size(),
    device: str = "cpu",
    stop: StopSignal | None = None,
    on_progress: OnCount = lambda _what, _done, _total: None,
) -> Path:
    """Make the demo in `out` and return the path of its report, `out/report.html` (one self-contained file).

    First pictures of all species of `model` and the same seeds from coarse to fine; then a simulated clade is drawn,
    prepared, learned progressively from the nano base and generated. The same call again goes on where this one was
    interrupted. Raises every `TaxaDiffusionError`.
    """
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock.at(out / "seconds.json")
    with clock.timing("pictures of the shipped species"):
        gallery = _gallery(open_model(model, device=device), out / "reef-fish", size, on_progress)
    with clock.timing("drawing the simulated clade"):
        source = out / "clade"
        if not source.exists():
            simulate(
                source,
                seed=seed,
                num_species=size.num_species,
                num_images=size.num_images,
                on_image=lambda done, total: on_progress("drawing a simulated clade", done, total),
            )
    with clock.timing("preparing it"):
        prepare(
            source,
            out / "prepared",
            on_progress=lambda p: on_progress(f"preparing: {p.phase}", p.done, p.total or p.done),
        )
    settings = _settings(out, size)
    with clock.timing("training, four stages"):
        _train(settings, device, stop, on_progress)
    with clock.timing("pictures of the clade"):
        clade = _clade(out, seed, size, device, on_progress)
    return write_report(out / "report.html", DemoStory(gallery, clade, settings, dict(clock.seconds)))


def _settings(out: Path, size: Size) -> Settings:
    return parse(
        {
            "recipe": "best",
            "data": {"path": str(out / "prepared"), "ranks": list(DEFAULT_RANKS)},
            "stages": {"steps": size.steps_per_stage},
            "checkpoint": {"every_steps": 60},
            "preview": {"num_taxa": 6},
            "output": {"path": str(out / "run"), "tensorboard": False},
        },
        source="the demo's settings",
    )


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


def _pictures(
    adapter: Adapter, requests: Sequence[Request], out: Path, size: Size, what: str, on_progress: OnCount
) -> dict[Request, Images]:
    pictures: dict[Request, Images] = {}
    for made in generate(adapter, requests, out, size.sampling):
        pictures[made.request] = read_picture(made.path)
        on_progress(what, len(pictures), len(requests))
    return pictures


def _gallery(adapter: Adapter, out: Path, size: Size, on_progress: OnCount) -> Gallery:
    species = species_of(adapter)
    grid = [Request(lineage, seed, GALLERY_GUIDANCE) for lineage in species for seed in range(size.gallery_columns)]
    chosen = species[:: max(1, len(species) // size.strip_taxa)][: size.strip_taxa]
    strip = [
        Request(lineage.truncated(rank), 100 + k, GALLERY_GUIDANCE)
        for k, lineage in enumerate(chosen)
        for rank in lineage.ranks
    ]
    requests = list(dict.fromkeys([*grid, *strip]))
    made = _pictures(adapter, requests, out, size, f"pictures of {len(species)} species", on_progress)
    rows: dict[Lineage, list[Images]] = {}
    for request in grid:
        rows.setdefault(request.lineage, []).append(made[request])
    strips = {
        lineage: [made[Request(lineage.truncated(rank), 100 + k, GALLERY_GUIDANCE)] for rank in lineage.ranks]
        for k, lineage in enumerate(chosen)
    }
    return Gallery(rows, strips)


def _clade(out: Path, seed: int, size: Size, device: str, on_progress: OnCount) -> CladeShown:
    grown = SimulatedClade.grow(seed, size.num_species)
    adapter = open_model(str(out / "run"), device=device)
    ranks = adapter.card.ranks
    guidance = CLADE_GUIDANCE
    requests = [
        Request(lineage.truncated(rank), index, guidance)
        for rank in ranks
        for lineage in grown.species
        for index in range(size.images_per_species)
    ]
    unique = list(dict.fromkeys(requests))
    made = _pictures(adapter, unique, out / "generated", size, "pictures of the clade", on_progress)
    on_progress("measuring traits", 0, 1)
    meter, spread, truth = TraitMeter.calibrated(_NUM_CALIBRATION), species_spread(grown), taxon_truth(grown, ranks[-1])

    def error_of(images: list[Images]) -> TraitError:
        per_species = len(images) // len(grown.species)
        shown = [lineage for lineage in grown.species for _ in range(per_species)]
        return trait_error(meter, np.stack(images), shown, truth, spread)

    errors = {
        rank: error_of(
            [
                made[Request(lineage.truncated(rank), index, guidance)]
                for lineage in grown.species
                for index in range(size.images_per_species)
            ]
        )
        for rank in ranks
    }
    real = _real_pictures(out / "prepared", grown.species, size.images_per_species)
    errors["real pictures"] = error_of([image for lineage in grown.species for image in real[lineage]])
    on_progress("measuring traits", 1, 1)
    return CladeShown(
        ranks=ranks,
        real=real,
        made={
            (lineage, rank): [
                made[Request(lineage.truncated(rank), i, guidance)] for i in range(size.images_per_species)
            ]
            for lineage in grown.species
            for rank in ranks
        },
        errors={name: error.mean for name, error in errors.items()},
        num_training=_training_counts(out / "prepared", grown.species),
        losses=_losses(out / "run"),
    )


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
