"""The report's sections on guidance and on rare species: figures and pictures of every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import TaxonScores
from taxadiffusion.images import load_image
from taxadiffusion.metrics.declared import declared
from taxadiffusion.metrics.naming import FIRST_JUDGE
from taxadiffusion.names import Lineage
from taxadiffusion.report.blocks import Cell, Picture, PictureRow, heading, picture_grid, table
from taxadiffusion.report.charts import IntervalRow, Series, line_chart
from taxadiffusion.report.copies import copies_blocks, copies_cell
from taxadiffusion.report.evaluation import difference_block
from taxadiffusion.report.figures import REAL, method_tables, share_words
from taxadiffusion.report.judges import judge_columns, method_cell, named_chart
from taxadiffusion.report.page import Html
from taxadiffusion.tables.experiments import RareRow
from taxadiffusion.tables.story import TablesStory

SHOWN_TAXA = 8

_TRAINED = "training images"


def guidance_blocks(results: Results, story: TablesStory) -> list[Html]:
    """Accuracy, Fréchet distance and copies of every setting of the sweep."""
    shown = (FIRST_JUDGE, "frechet_distance", "kernel_distance", "density", "diversity")
    measured = next(iter(results.methods.values()))[0].metrics
    judges = [judge for judge in judge_columns(results) if judge.metric in measured]
    right, *others = map(declared, shown)
    named = [replace(right, key=judge.metric, label=judge.head(right.label)) for judge in judges]
    metrics = [*named, *(metric for metric in others if metric.key in measured)]
    rows: list[list[Cell | str]] = []
    chart = []
    for name, (scores,) in results.methods.items():
        chart.append(IntervalRow(name, tuple(scores.metrics[judge.metric] for judge in judges)))
        cells = [(scores.metrics[m.key], m.decimals) for m in metrics]
        limits = [f"{i.low:.{d}f} to {i.high:.{d}f}" if i.known else "" for i, d in cells]
        rows.append(
            [
                method_cell(results, name),
                *(Cell(f"{i.mean:.{d}f}", low) for (i, d), low in zip(cells, limits, strict=True)),
            ]
        )
    marks = [(REAL, found.mean) for scores in results.real[-1:] if (found := scores.metrics.get(FIRST_JUDGE))]
    species = [story.dataset.taxonomy.lineage(taxon).only(story.ranks) for taxon in picked(story)]
    pictures = [PictureRow(name, tuple(made(story, name, t, 1) for t in species)) for name in results.methods]
    return [
        named_chart(chart, [m.label for m in named], x_label="share of images named right", marks=marks),
        table(
            ["guidance", *(m.label for m in metrics)], rows, caption="base ×scale, and the interval of noise if limited"
        ),
        *difference_block(results),
        picture_grid(pictures, heads=[t.label for t in species], shown_px=64),
        heading("Copies of training photographs"),
        *copies_blocks(results, story.size_px, number=1),
    ]


def rare_blocks(results: Results, story: TablesStory) -> list[Html]:
    """Accuracy and copies of each thinned species against the images it was left with; of several methods, first over
    all of these species, side by side."""
    found = {row: _by_species(results, story, row) for row in story.rare}
    rows = [[row.name, *(_thinned_cell(taxa[t], row.number) for t in story.thinned)] for row, taxa in found.items()]
    pictures = [
        PictureRow(f"{row.name} at most", tuple(made(story, row.name, t, 3) for t in story.thinned)) for row in found
    ]
    pictures.append(PictureRow("photographs", tuple(_photographs(story, t, 3) for t in story.thinned)))
    return [
        heading("Named right"),
        *_rare_chart(results, story),
        table(
            [_TRAINED, *(t.label for t in story.thinned)],
            rows,
            caption=f"Named right by each judge, flagged as copies. {story.base_saw}",
        ),
        picture_grid(pictures, heads=[t.label for t in story.thinned], shown_px=64),
        heading("Copies of training photographs"),
        *copies_blocks(results, story.size_px, number=2),
    ]


def _rare_chart(results: Results, story: TablesStory) -> list[Html]:
    """A curve a species; of several methods a curve a method, over the species, with the figures and differences."""
    strategies = tuple(dict.fromkeys(row.strategy for row in story.rare))
    curves, further = [], []
    if len(strategies) > 1:
        header, rows = method_tables(results)[FIRST_JUDGE]
        further = [table(header, rows, caption="Over these species."), *difference_block(results)]
        curves = [curve for strategy in strategies for curve in _mean_series(results, story, strategy)]
    else:
        for species in story.thinned:
            taxa = [_by_species(results, story, row)[species] for row in story.rare]
            curves += named_series(results, taxa, [float(one.num_photographs) for one in taxa], species.label)
    x = [at for curve in curves for at in curve.x]
    log_x = len(set(x)) > 1 and min(x) > 0
    charts = [line_chart(curves, x_label=_TRAINED, y_label="share", log_x=log_x, caption=story.base_saw)]
    return [*(charts if curves else []), *further]


def _mean_series(results: Results, story: TablesStory, strategy: str) -> list[Series]:
    """By each judge, over all thinned species."""
    found = []
    method = next(row.name for row in story.rare if row.strategy == strategy).rpartition(", ")[0]
    for judge in judge_columns(results):
        points = [
            (float(row.number), results.methods[row.name][-1].metrics[judge.metric].mean)
            for row in story.rare
            if row.strategy == strategy and judge.metric in results.methods[row.name][-1].metrics
        ]
        if points:
            found.append(Series(judge.head(method), [at for at, _ in points], [share for _, share in points]))
    return found


def _by_species(results: Results, story: TablesStory, row: RareRow) -> dict[Lineage, TaxonScores]:
    return {scores.taxon.only(story.ranks): scores for scores in results.methods[row.name][-1].taxa}


def _thinned_cell(scores: TaxonScores, number: int) -> str:
    """A species that has fewer images than asked for says how many it kept."""
    kept = f" (of {scores.num_photographs} images)" if scores.num_photographs < number else ""
    second = "" if scores.named_right_second is None else f" and {share_words(scores.named_right_second)}"
    return f"{share_words(scores.named_right)}{second}, {copies_cell(scores.copies)}{kept}"


def named_series(
    results: Results, taxa: Sequence[TaxonScores], x: Sequence[float], name: str = "named right"
) -> list[Series]:
    """How often the taxa are named right, by each judge; without those that are not judged."""
    found = []
    for judge in judge_columns(results):
        shares = [t.named_right if judge.metric == FIRST_JUDGE else t.named_right_second for t in taxa]
        points = [(at, share) for at, share in zip(x, shares, strict=True) if share is not None]
        if points:
            found.append(Series(judge.head(name), [at for at, _ in points], [share for _, share in points]))
    return found


def made(story: TablesStory, name: str, taxon: Lineage, number: int) -> tuple[Picture, ...]:
    """The first images of a taxon by the first model of a row."""
    pictures = story.pictures[name]
    mine = [i for i, lineage in enumerate(pictures.lineages) if lineage == taxon][:number]
    return tuple(Picture(load_image(Path(pictures.files[i]), story.size_px)) for i in mine)


def _photographs(story: TablesStory, taxon: Lineage, number: int) -> tuple[Picture, ...]:
    rows = map(int, story.dataset.rows("train"))
    mine = (row for row in rows if story.dataset.lineage(row).only(story.ranks) == taxon)
    return tuple(Picture(story.dataset.image(row, story.size_px)) for row in islice(mine, number))


def picked(story: TablesStory) -> list[int]:
    """A few taxa of the finest rank, common to rare."""
    counts = story.dataset.counts("train")
    taxa = sorted(
        (t for t in story.dataset.taxonomy.at_rank(story.ranks[-1]) if counts[t]), key=lambda t: -int(counts[t])
    )
    return [taxa[i] for i in np.unique(np.linspace(0, len(taxa) - 1, min(SHOWN_TAXA, len(taxa))).astype(int))]
