"""An evaluation as a report: methods by rank, best and worst taxa, confusions, memorisation, recipe."""

from __future__ import annotations

import json
from dataclasses import asdict

from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.naming import FIRST_JUDGE
from taxadiffusion.report.blocks import code, facts, folded, heading, note, table, text
from taxadiffusion.report.charts import IntervalRow
from taxadiffusion.report.copies import copies_blocks, copies_cell, copies_words
from taxadiffusion.report.figures import (
    DIFFERENCE,
    REAL,
    accuracy_by_frequency,
    difference_table,
    figure_at,
    method_tables,
    share_words,
)
from taxadiffusion.report.judges import judge_columns, named_chart, told_with_results
from taxadiffusion.report.matrix import confusion_matrix
from taxadiffusion.report.page import Html, Section

MOST_IN_MATRIX = 150
"""Taxa up to which confusions are a matrix; the matrix of a thousand is a million cells."""

NUM_CONFUSIONS = 40


def evaluation_sections(results: Results, *, command: str, size_px: int) -> tuple[Section, ...]:
    """The whole report of an evaluation; pictures are read from where `results` says they lie."""
    best = results.compared.name if _is_named(results) else results.best()
    finest = results.methods[best][-1]
    return (
        Section("At a glance", _glance(results, best)),
        Section("Methods by rank", metric_blocks(results)),
        Section("Common and rare taxa", frequency_block(results)),
        Section("Best and worst taxa", taxa_block(results, finest, best)),
        Section("What is taken for what", confusion_block(finest, best)),
        *trait_sections(results, best),
        Section("Copies of training photographs", copies_blocks(results, size_px)),
        Section("Recipe", (code(command), code(json.dumps(asdict(results.protocol), indent=2, ensure_ascii=False)))),
    )


def _glance(results: Results, best: str) -> tuple[Html, ...]:
    figures = {}
    for scores in reversed(results.methods[best]):
        real = figure_at(results.real, scores.rank, FIRST_JUDGE)
        beside = f" (real photographs: {real.mean:.0%})" if real else ""
        ours = scores.metrics.get(FIRST_JUDGE)
        figures[f"{scores.rank} named right{beside}"] = f"{ours.mean:.0%}" if ours else "not judged"
    finest = results.methods[best][-1]
    return (
        text(
            f"{len(results.methods)} method(s) on {results.protocol.dataset}. The figures below are those of {best}"
            f"{_why(results, best)}: {finest.num_images} images at rank {finest.rank}."
            + (" Part of a picked method's lead is luck." if _why(results, best) and not _is_named(results) else "")
        ),
        facts(figures),
        text(copies_words(finest)),
        note(
            f"Features: {results.protocol.extractor}. Distances in the features of another network than Inception are "
            "not comparable with published FID or KID. Intervals: 95 %, over taxa, trainings and images; those of a "
            "method that was trained once are of this model, and say nothing of another training."
        ),
        *map(note, told_with_results(results)),
    )


def _why(results: Results, best: str) -> str:
    """Why the report shows this one of several methods; "" where there is no choice, or none is judged."""
    if len(results.methods) < 2 or FIRST_JUDGE not in results.at_finest()[best].metrics:
        return ""
    return (
        ", which was named before anything was measured" if _is_named(results) else ", which is named right most often"
    )


def _is_named(results: Results) -> bool:
    return results.compared.how == "named"


def metric_blocks(results: Results) -> tuple[Html, ...]:
    """Accuracy by rank as a chart, then a table for each metric: methods by rank."""
    columns = [(rank, judge) for rank in results.protocol.ranks for judge in judge_columns(results)]
    blocks: list[Html] = [
        named_chart(
            [
                IntervalRow(name, tuple(figure_at(scores, rank, judge.metric) for rank, judge in columns))
                for name, scores in [*results.methods.items(), (REAL, results.real)]
            ],
            [judge.head(rank) for rank, judge in columns],
            x_label="share of images named right",
            caption="Real test photographs are the ceiling: no probe names all of them.",
        )
    ]
    tables = method_tables(results)
    shown = {
        metric: table(*tables[metric.key], caption=metric.meaning)
        for metric in declared.METRICS
        if metric.key in tables
    }
    for metric, block in shown.items():
        if metric.at_once:
            blocks += [heading(metric.label), block]
    blocks += difference_block(results)
    rest = [part for m, block in shown.items() if not m.at_once for part in (heading(m.label), block)]
    return (*blocks, folded("All other metrics", rest))


def difference_block(results: Results) -> list[Html]:
    """`difference_table` with its heading; [] where there is nothing to compare."""
    header, rows = difference_table(results)
    if not rows:
        return []
    title = f"Named right: {results.compared.name} above each method"
    return [heading(title), table(header, rows, caption=f"{results.compared.words} {DIFFERENCE}")]


def frequency_block(results: Results) -> tuple[Html, ...]:
    """Accuracy at the finest rank by how often taxa occur in training."""
    rank, columns, rows = accuracy_by_frequency(results)
    return (
        named_chart(
            rows,
            columns,
            x_label=f"share of images named right at rank {rank}",
            caption="Taxa grouped by how many training photographs they have.",
        ),
    )


def taxa_block(results: Results, scores: RankScores, method: str, number: int = 5) -> tuple[Html, ...]:
    """The `number` best and worst taxa of a method, of those that are judged."""
    judges = judge_columns(results)
    judged = [taxon for taxon in scores.taxa if taxon.named_right is not None]
    order = sorted(judged, key=lambda t: (-(t.named_right or 0.0), t.error_height or 0.0))
    kept = order if len(order) <= 2 * number else [*order[:number], *order[-number:]]
    rows = [
        [
            taxon.taxon.label,
            str(taxon.num_photographs),
            *(share_words(share) for share in (taxon.named_right, taxon.named_right_second)[: len(judges)]),
            f"{taxon.error_height:.2f}",
            copies_cell(taxon.copies),
        ]
        for taxon in kept
    ]
    named = (judge.head("named right") for judge in judges)
    header = ["taxon", "training photographs", *named, "height of errors", "flagged as copies"]
    return (table(header, rows, caption=f"{method} at rank {scores.rank}."),)


def confusion_block(scores: RankScores, method: str) -> tuple[Html, ...]:
    """What each taxon is named as: a matrix, or of many taxa the confusions that take the most of theirs."""
    if len(scores.taxa) > MOST_IN_MATRIX:
        rows = [[c.true.label, c.predicted.label, f"{c.count} of {c.of}"] for c in scores.confusions[:NUM_CONFUSIONS]]
        caption = f"{method} at rank {scores.rank}: the {len(rows)} largest of {len(scores.confusions):,} confusions."
        return (table(["asked for", "named as", "images"], rows, caption=caption),)
    shares = {(c.true, c.predicted): c.count / c.of for c in scores.confusions}
    judged = {t.taxon: t.named_right for t in scores.taxa if t.named_right is not None}
    shares |= {(taxon, taxon): share for taxon, share in judged.items()}
    caption = f"{method} at rank {scores.rank}. Rows: asked for. Columns: named as. Relatives are neighbours."
    return (confusion_matrix(list(judged), shares, caption=caption),)


def trait_sections(results: Results, method: str) -> tuple[Section, ...]:
    """Of a simulated clade: what the method's images at each rank tell of each true trait; () for other data."""
    at = {scores.rank: scores.traits for scores in results.methods[method] if scores.traits}
    real = results.real[-1].traits if results.real else {}
    if not at or not real:
        return ()
    gain = {name: next(iter(at.values()))[name] - list(at.values())[-1][name] for name in real}
    rows = [
        [name.replace("_", " "), *(f"{traits[name]:.2f}" for traits in at.values()), f"{real[name]:.2f}"]
        for name in sorted(real, key=lambda name: -gain[name])
    ]
    caption = (
        f"{method}: distance of the mean reading of images at each rank from the species' true value, in standard "
        "deviations between species; what falls from left to right is what a rank taught. Last: drawn pictures, the "
        "instrument's own error."
    )
    return (Section("Traits learned at each rank", (table(["trait", *at, REAL], rows, caption=caption),)),)
