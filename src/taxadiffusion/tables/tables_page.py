"""The report of a reproduction: one self-contained page, and the same figures as JSON, Markdown and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taxadiffusion.config import Settings, flattened
from taxadiffusion.evaluate.results import Results
from taxadiffusion.images import image_grid, load_image
from taxadiffusion.report.blocks import Picture, PictureRow, code, heading, note, picture_grid, table, text
from taxadiffusion.report.charts import Band, Series, line_chart
from taxadiffusion.report.copies import copies_blocks
from taxadiffusion.report.evaluation import (
    confusion_block,
    frequency_block,
    metric_blocks,
    taxa_block,
    trait_sections,
)
from taxadiffusion.report.judges import judges_words, not_judged_words
from taxadiffusion.report.page import Html, Section, page
from taxadiffusion.report.table_files import write_tables
from taxadiffusion.tables.earlier import left_out_words
from taxadiffusion.tables.experiments import Experiment
from taxadiffusion.tables.search import footnote, search_document
from taxadiffusion.tables.story import TablesStory, table1_of
from taxadiffusion.tables.sweeps import guidance_blocks, made, named_series, picked, rare_blocks
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics

SHOWN_METHODS = ("zero_shot", "lora", "full", "taxadiffusion")

INTRODUCTIONS = {
    "table1": "The paper's first table: does training coarse to fine give more accurate images than the base, "
    "a LoRA or the whole U-Net trained on the same images, samples and seeds?",
    "strategies": "The same encoders trained one rank after another, all at once, or at a random depth in each step.",
    "guidance": "One model, sampled without guidance, away from its trained null, each ancestor, a sister, and what "
    "it was itself before its last stage.",
    "rare": "Species that have many images, trained as if they had few: what would rarity have done to them?",
}


def write_story(story: TablesStory, out: Path, *, command: str, config: Settings) -> Path:
    """`results.json`, `tables.md`, `tables.tex` for each experiment, and `report.html` in `out`; returns the report.

    The small form, to keep or to publish: `summary.json` (no details of single taxa and images) and `generated.png` (no
    photographs).
    """
    out.mkdir(parents=True, exist_ok=True)
    experiments = {name: results.to_json() for name, results in story.results.items()}
    document = {
        "schema": 1,
        "command": command,
        "table1": table1_of(story.results),
        "experiments": experiments,
        "settings": {name: _footnote(story, name, config) for name in story.results},
        "left_out": {name: rows for name, rows in story.left_out.items() if rows},
        "base_saw": story.base_saw or None,
        "search": search_document(story.choices, config) if story.choices else None,
        "training": {
            strategy: [{"samples": b.samples, "seconds": b.seconds} for b in budgets]
            for strategy, budgets in story.budgets.items()
        },
        "config": flattened(config, trajectory_only=False),
    }
    small = {name: _without_details(found) for name, found in experiments.items()}
    for name, content in (("results.json", document), ("summary.json", {**document, "experiments": small})):
        (out / name).write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    _generated_sheet(story).save(out / "generated.png")
    for name, results in story.results.items():
        (out / name).mkdir(exist_ok=True)
        write_tables(results, out / name, _footnote(story, name, config))
    report = out / "report.html"
    title = f"{story.dataset.path.name}: images of species, from their taxonomy"
    html = page(title, "What was trained, what it draws, and how right it is", _sections(story, command, config))
    report.write_text(html, encoding="utf-8")
    return report


def _footnote(story: TablesStory, name: Experiment, config: Settings) -> str:
    """What every table of an experiment says below its figures."""
    settings = footnote(story.models[name], story.choices, config)
    if name != "rare":
        return " ".join(words for words in (left_out_words(story.left_out.get(name, {})), settings) if words)
    same = f"Distances, recall and coverage: to photographs of the same {len(story.thinned)} taxa, all of them kept."
    return f"{story.base_saw} {same} {settings}"


def _without_details(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of single taxa and images nothing; what each rank taught of true traits stays."""
    small = {key: value for key, value in found.items() if key != "details"}
    traits = {
        method: {rank: details["traits"] for rank, details in by_rank.items() if details["traits"]}
        for method, by_rank in found["details"].items()
    }
    return small | ({"traits": traits} if any(traits.values()) else {})


def _sections(story: TablesStory, command: str, config: Settings) -> list[Section]:
    sections = [Section("Real beside generated", _grid(story))] if "table1" in story.results else []
    for name, results in story.results.items():
        blocks: list[Html] = [text(INTRODUCTIONS[name])]
        if name == "guidance":
            blocks += guidance_blocks(results, story)
        elif name == "rare":
            blocks += rare_blocks(results, story)
        else:
            blocks += metric_blocks(results)
        blocks.append(note(_footnote(story, name, config)))
        sections.append(Section(_TITLES[name], tuple(blocks)))
    if "table1" in story.results:
        results = story.results["table1"]
        best = results.best()
        finest = results.methods[best][-1]
        sections += [
            Section("Common and rare taxa", (*frequency_block(results), *_by_number(results, best))),
            Section("Best and worst taxa", taxa_block(results, finest, best)),
            Section("What is taken for what", confusion_block(finest, best)),
            *trait_sections(results, best),
            Section("Copies of training photographs", copies_blocks(results, story.size_px, number=2)),
        ]
    sections.append(Section("Training", tuple(_training(story))))
    settings = json.dumps(flattened(config, trajectory_only=False), indent=1, default=str)
    protocol = next(iter(story.results.values())).protocol
    some = next(iter(story.results.values()))
    told = (f"Features: {protocol.extractor}, sha256 {protocol.extractor_sha256}.", judges_words(some),
            not_judged_words(some))  # fmt: skip
    sections.append(Section("Recipe", (code(command), *(note(words) for words in told if words), code(settings))))
    return sections


_TITLES = {"table1": "Methods", "strategies": "Strategies", "guidance": "Guidance", "rare": "Fewer and fewer images"}


def _generated_sheet(story: TablesStory) -> Image.Image:
    """A row for every row of the tables: the first image of each picked or thinned taxon that it shows."""
    lineages = [story.dataset.taxonomy.lineage(taxon).only(story.ranks) for taxon in picked(story)]
    lineages += [lineage for lineage in story.thinned if lineage not in lineages]
    made_of = {lineage for pictures in story.pictures.values() for lineage in pictures.lineages}
    lineages = [lineage for lineage in lineages if lineage in made_of]
    images, captions = [], []
    blank = np.full((3, story.size_px, story.size_px), 255, np.uint8)
    for name, pictures in story.pictures.items():
        for column, lineage in enumerate(lineages):
            position = next((i for i, shown in enumerate(pictures.lineages) if shown == lineage), None)
            images.append(blank if position is None else load_image(Path(pictures.files[position]), story.size_px))
            captions.append(f"{name}: {lineage.label}" if column == 0 else lineage.label)
    return image_grid(images, len(lineages), captions, cell_px=2 * story.size_px)


def _grid(story: TablesStory) -> tuple[Html, ...]:
    """A few species, common to rare: photographs, then the same seeds by each method."""
    shown = [name for name in SHOWN_METHODS if name in story.pictures]
    counts = story.dataset.counts("train")
    chosen = picked(story)
    rows_of = story.dataset.rows("train")
    ids = story.dataset.taxon_ids(rows_of)
    rows = []
    for taxon in chosen:
        lineage = story.dataset.taxonomy.lineage(taxon).only(story.ranks)
        photographs = tuple(Picture(story.dataset.image(int(row), story.size_px)) for row in rows_of[ids == taxon][:2])
        groups = [photographs]
        groups += [made(story, name, lineage, 2) for name in shown]
        rows.append(PictureRow(lineage.label, tuple(groups), f"{int(counts[taxon])} photographs"))
    return (picture_grid(rows, heads=["photographs", *shown], shown_px=64),)


def _by_number(results: Results, best: str) -> tuple[Html, ...]:
    """Accuracy of each taxon against its number of training photographs."""
    taxa = sorted(results.methods[best][-1].taxa, key=lambda t: t.num_photographs)
    numbers = [float(t.num_photographs) for t in taxa]
    series = [
        *named_series(results, taxa, numbers),
    ]
    told = [t for t in taxa if t.copies]
    if told:
        counts = [float(t.num_photographs) for t in told]
        series.append(Series("flagged as copies", counts, [t.copies.share for t in told if t.copies]))
    chart = line_chart(series, x_label="training photographs of the taxon", y_label="share", log_x=True, joined=False)
    return (heading(f"Each taxon, {best}"), chart)


def _training(story: TablesStory) -> list[Html]:
    rows = []
    for strategy, budgets in story.budgets.items():
        minutes = [b.seconds / 60 for b in budgets]
        rows.append([strategy, str(len(budgets)), f"{budgets[0].samples:,}", f"{np.mean(minutes):.1f}"])
    blocks = [table(["strategy", "trainings", "samples seen", "minutes of training"], rows)]
    for strategy, run_dir in story.curves.items():
        lines = read_metrics(run_dir / METRICS_FILE)
        steps = [line for line in lines if line["event"] == "StepDone"]
        if steps:
            blocks += [heading(strategy), _curve(steps, [line for line in lines if line["event"] == "Validated"])]
        compared = [line["spread"] for line in lines if line["event"] == "NamesCompared"]
        if compared:
            found = ", ".join(f"{rank} {spread:.3f}" for rank, spread in compared[-1].items())
            blocks.append(note(f"How far apart its encoders put names (0: all are one): {found}."))
    return blocks


def _curve(steps: Sequence[dict[str, float]], validations: Sequence[dict[str, float]]) -> Html:
    """Training loss as means of a hundredth of the run, validation loss, and the stages."""
    size = max(1, len(steps) // 100)
    chunks = [steps[i : i + size] for i in range(0, len(steps), size)]
    x = [float(chunk[-1]["step"]) for chunk in chunks]
    series = [Series("training", x, [float(np.mean([line["loss"] for line in chunk])) for chunk in chunks])]
    if validations:
        series.append(Series("validation", [v["step"] for v in validations], [v["loss"] for v in validations]))
    bands: list[Band] = []
    for line in steps:
        name = str(line["stage"])
        if not bands or bands[-1].name != name:
            bands.append(Band(name, line["step"], line["step"]))
        bands[-1] = Band(name, bands[-1].start, line["step"])
    return line_chart(series, x_label="step", y_label="loss", bands=bands if len(bands) > 1 else ())
