"""The demo's report: pictures first, then how they came to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.demo.plan import TRAIN_FILE, Plan
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.report.blocks import Picture, PictureRow, code, facts, note, picture_grid, table, text
from taxadiffusion.report.charts import Band, Series, line_chart
from taxadiffusion.report.page import Section, page
from taxadiffusion.report.tree import Tip, tree

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Gallery:
    """Pictures of a shipped model, made at `size_px`: each species', and the same seed from coarse to fine."""

    title: str
    photographs: str
    size_px: int
    rows: dict[Lineage, list[Images]]
    strips: dict[Lineage, list[Images]]


@dataclass(frozen=True)
class CladeShown:
    """The simulated clade: real and made pictures, trait errors by rank, training pictures a species, losses."""

    ranks: tuple[Rank, ...]
    real: dict[Lineage, list[Images]]
    made: dict[tuple[Lineage, Rank], list[Images]]
    errors: dict[str, float]
    num_training: dict[Lineage, int]
    losses: list[tuple[int, str, float]]


@dataclass(frozen=True)
class DemoStory:
    """All that the report tells."""

    galleries: list[Gallery]
    clade: CladeShown
    plan: Plan
    seconds: dict[str, float]


def write_report(path: Path, story: DemoStory) -> Path:
    """Write the page, whole, to `path`."""
    galleries = [section for gallery in story.galleries for section in (_species(gallery), _strips(gallery))]
    sections = [*galleries, _in_browser(), *_clade(story.clade), _timings(story)]
    html = page(
        "TaxaDiffusion", "Pictures of species from their taxonomy; every one below is synthetic or simulated.", sections
    )
    with whole(path) as aside:
        aside.write_text(html, encoding="utf-8")
    return path


def _row(name: str, *groups: list[Images], small: str = "") -> PictureRow:
    return PictureRow(name, tuple(tuple(Picture(image) for image in group) for group in groups), small)


def _species(gallery: Gallery) -> Section:
    words = f"{gallery.photographs} Made at {gallery.size_px} pixels by a model that comes with the package."
    if len(next(iter(gallery.rows.values()))) > 1:
        rows = [_row(taxon.label, images, small=taxon.get("family") or "") for taxon, images in gallery.rows.items()]
        columns = "Each row is one species; each column has one seed, the same in every row."
        return Section(gallery.title, (text(f"{words} {columns}"), picture_grid(rows, shown_px=112)))
    families: dict[str, list[Picture]] = {}
    for taxon, images in gallery.rows.items():
        families.setdefault(taxon.get("family") or "", []).append(Picture(images[0], taxon.label))
    rows = [PictureRow(family, (tuple(pictures),)) for family, pictures in families.items()]
    words = f"{words} One picture of each species, by family; the same seed for all."
    return Section(gallery.title, (text(words), picture_grid(rows, shown_px=128)))


def _strips(gallery: Gallery) -> Section:
    rows = [
        _row(lineage.label, *([image] for image in images), small=" → ".join(lineage.ranks))
        for lineage, images in gallery.strips.items()
    ]
    words = (
        "The same noise under a longer and longer lineage: what each rank adds. A taxon above the species looks like "
        "any of its species."
    )
    heads = next(iter(gallery.strips)).ranks
    return Section(
        f"{gallery.title}, from coarse to fine", (text(words), picture_grid(rows, heads=heads, shown_px=128))
    )


def _in_browser() -> Section:
    words = (
        "The fish as a page: find one by its scientific or common name, draw it at every rank, mix two of them. "
        "Zanclus cornutus, say, is two clicks away: its name in the list of species, then “Draw it at every rank”."
    )
    return Section("Any of them in the browser", (text(words), code("make page")))


def _clade(clade: CladeShown) -> list[Section]:
    finest = clade.ranks[-1]
    tips = [
        Tip(lineage, f"{clade.num_training[lineage]} pictures", (pictures[0], clade.made[lineage, finest][0]))
        for lineage, pictures in clade.real.items()
    ]
    grown = Section(
        "A simulated clade",
        (
            text(
                "These animals do not exist. A tree grew by birth and death, traits evolved along it, and each species "
                "was drawn in many poses, commonly or rarely. The model saw only pictures and names. Beside each name: "
                "a drawn picture, then one the model made."
            ),
            tree(tips, clade.ranks),
        ),
    )
    rows = [
        _row(
            lineage.label,
            clade.real[lineage][:2],
            *(clade.made[lineage, rank][:2] for rank in clade.ranks),
            small=f"{clade.num_training[lineage]} training pictures",
        )
        for lineage in clade.real
    ]
    heads = ["drawn", *(f"made at {rank}" for rank in clade.ranks)]
    beside = Section("Real beside generated, at every rank", (picture_grid(rows, heads=heads, shown_px=52),))
    return [grown, beside, _traits(clade), _curves(clade)]


def _traits(clade: CladeShown) -> Section:
    words = (
        "Because the true traits are known, what a rank taught can be measured: how far the traits read from generated "
        "pictures lie from the truth of the species, in standard deviations between species. Less is better; drawn "
        "pictures, read by the same instrument, show its own error."
    )
    rows = [[name, f"{error:.2f}"] for name, error in clade.errors.items()]
    return Section("What each rank taught", (text(words), table(["pictures made at", "trait error"], rows)))


def _curves(clade: CladeShown) -> Section:
    window = max(1, len(clade.losses) // 80)
    kept = clade.losses[window - 1 :: window]
    smooth = [
        float(np.mean([loss for _, _, loss in clade.losses[max(0, i - window + 1) : i + 1]]))
        for i in range(len(clade.losses))
    ]
    stages = list(dict.fromkeys(stage for _, stage, _ in clade.losses))
    bands = [
        Band(stage, min(steps) - 1, max(steps))
        for stage in stages
        if (steps := [step for step, name, _ in clade.losses if name == stage])
    ]
    series = Series("training loss", [step for step, _, _ in kept], smooth[window - 1 :: window])
    chart = line_chart([series], x_label="step", y_label="loss", bands=bands)
    return Section("Training, stage by stage", (chart, note(f"Mean over {window} steps. A stage learns one rank.")))


def _timings(story: DemoStory) -> Section:
    rows = [[part, f"{seconds:.0f} s"] for part, seconds in story.seconds.items()]
    settings = story.plan.settings
    figures = {
        "steps a stage": str(settings.stages.steps),
        "batch": str(settings.training.batch_size),
        "learning rate": f"{settings.optimiser.learning_rate:g}",
        "LoRA rank": str(settings.lora.rank),
    }
    words = f"In an empty folder, save this as {TRAIN_FILE}; the commands below it then make all that is shown here."
    return Section(
        "How long it took, and how to do it yourself",
        (
            table(["part", "time"], rows),
            facts(figures),
            text(words),
            code(story.plan.train_file),
            code("\n".join(story.plan.commands)),
        ),
    )
