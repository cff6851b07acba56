"""An evaluation as a report: methods by rank, best and worst taxa, confusions, memorisation, recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.frequency import BUCKETS
from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.metrics.metric import Metric
from taxadiffusion.metrics.naming import FIRST_JUDGE, RANK_ACCURACY, SECOND_JUDGE
from taxadiffusion.names import Rank
from taxadiffusion.report.blocks import (
    Cell,
    code,
    facts,
    folded,
    heading,
    note,
    table,
    text,
)
from taxadiffusion.report.charts import IntervalRow
from taxadiffusion.report.copies import (
    MEANING,
    copies_blocks,
    copies_cell,
    copies_table,
    copies_words,
    not_looked_words,
)
from taxadiffusion.report.judges import (
    Column,
    judge_columns,
    judges_words,
    method_cell,
    named_chart,
    not_judged_words,
)
from taxadiffusion.report.matrix import confusion_matrix
from taxadiffusion.report.page import Html, Section
from taxadiffusion.report.tables import latex_table, markdown_table

REAL = "real test photographs"
MOST_IN_MATRIX = 150
"""Taxa up to which confusions are a matrix; the matrix of a thousand is a million cells."""

NUM_CONFUSIONS = 40

DIFFERENCE = (
    "Difference of the shares, with an interval of its own: taxa are paired, since some are hard for every method. An "
    "interval above 0 tells them apart even where their own intervals overlap."
)


def method_tables(results: Results) -> dict[str, tuple[list[str], list[list[Cell]]]]:
    """For each metric present: header and rows (methods, then real photographs) of a table with a column per rank.

    How often images are named right has a column per rank and judge.
    """
    rows = [*results.methods.items(), (REAL, results.real)]
    tables = {}
    for metric in declared.METRICS:
        ranks = [rank for rank in results.protocol.ranks if any(_at(s, rank, metric.key) for _, s in rows)]
        if ranks and metric.table:
            judges = judge_columns(results) if metric.key == FIRST_JUDGE else (Column(metric.key, ""),)
            columns = [(rank, judge) for rank in ranks for judge in judges]
            best = {(rank, judge): _best(results, rank, declared.declared(judge.metric)) for rank, judge in columns}
            body = [
                [
                    method_cell(results, name),
                    *(_cell(_at(scores, rank, j.metric), metric, name == best[rank, j]) for rank, j in columns),
                ]
                for name, scores in rows
            ]
            tables[metric.key] = (["method", *(judge.head(rank) for rank, judge in columns)], body)
    return tables


def evaluation_sections(results: Results, *, command: str, size_px: int) -> tuple[Section, ...]:
    """The whole report of an evaluation; pictures are read from where `results` says they lie."""
    best = results.best()
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


def left_out_words(results: Results) -> str:
    """Which images were not measured, as a sentence; "" where all were."""
    if not results.left_out:
        return ""
    found = ", ".join(f"{number:,} of {name}" for name, number in results.left_out.items())
    return f"Images left out, since they show no taxon of {', '.join(results.protocol.ranks)}: {found}."


def told_with_results(results: Results) -> list[str]:
    """What names the images, and what was not judged or not measured: sentences to stand beside the figures."""
    return [words for words in (judges_words(results), not_judged_words(results), left_out_words(results)) if words]


def write_tables(results: Results, out: Path, footnote: str = "") -> None:
    """`tables.md` and `tables.tex` in `out`: one table a metric, figures with their intervals, and the footnote."""
    markdown, latex = [], []
    for key, (header, body) in method_tables(results).items():
        metric = declared.declared(key)
        rows = _plain(body)
        markdown.append(f"### {metric.label}\n\n{metric.meaning}\n\n{markdown_table(header, rows)}")
        latex.append(
            latex_table(
                header, rows, caption=f"{metric.label}. {metric.meaning}", label=f"tab:{key}", footnote=footnote
            )
        )
    header, body = difference_table(results)
    if body:
        rows = _plain(body)
        title, words = (
            f"Named right: {results.compared.name} above each method",
            f"{results.compared.words} {DIFFERENCE}",
        )
        markdown.insert(1, f"### {title}\n\n{words}\n\n{markdown_table(header, rows)}")
        latex.insert(1, latex_table(header, rows, caption=f"{title}. {words}", label="tab:difference"))
    rank, buckets, by_frequency = _by_frequency(results)
    rows = _plain(
        [
            [method_cell(results, row.name), *(_cell(i, RANK_ACCURACY, False) for i in row.intervals)]
            for row in by_frequency
        ]
    )
    title = f"Named right at rank {rank}, by training photographs of the taxon"
    markdown.append(f"### {title}\n\n{markdown_table(['method', *buckets], rows)}")
    latex.append(latex_table(["method", *buckets], rows, caption=f"{title}.", label="tab:frequency"))
    header, body = copies_table(results)
    words = "\n\n".join(words for words in (MEANING, not_looked_words(results)) if words)
    rows = _plain(body)
    markdown.append(f"### Copies of training photographs\n\n{words}\n\n{markdown_table(header, rows) if rows else ''}")
    latex.append(latex_table(header, rows, caption=words.replace("\n\n", " "), label="tab:copies"))
    extractor = f"Features: {results.protocol.extractor}, sha256 {results.protocol.extractor_sha256}."
    opening = [f"{words}\n" for words in (extractor, *told_with_results(results))]
    closing = [f"{footnote}\n"] if footnote else []
    (out / "tables.md").write_text("\n".join([*opening, *markdown, *closing]), encoding="utf-8")
    (out / "tables.tex").write_text("\n".join(latex), encoding="utf-8")


def _plain(body: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Cells as text, the small print in brackets."""
    return [[f"{c.value} ({c.small})" if c.small else c.value for c in row] for row in body]


def _at(scores: Sequence[RankScores], rank: Rank, metric: str) -> Interval | None:
    return next((s.metrics.get(metric) for s in scores if s.rank == rank), None)


def _best(results: Results, rank: Rank, metric: Metric) -> str | None:
    """The one best of two or more methods, where the metric has a better side."""
    found = {name: i.mean for name, scores in results.methods.items() if (i := _at(scores, rank, metric.key))}
    if len(found) < 2 or metric.better == "neither":
        return None
    best = min(found.values()) if metric.better == "less" else max(found.values())
    names = [name for name, value in found.items() if value == best]
    return names[0] if len(names) == 1 else None


def _cell(interval: Interval | None, metric: Metric, best: bool) -> Cell:
    if interval is None:
        return Cell("–")
    if not interval.known:
        return Cell(f"{interval.mean:.{metric.decimals}f}", "too few images for an interval", best)
    low, high = (f"{v:.{metric.decimals}f}" for v in (interval.low, interval.high))
    return Cell(f"{interval.mean:.{metric.decimals}f}", f"{low} to {high}", best)


def _glance(results: Results, best: str) -> tuple[Html, ...]:
    figures = {}
    for scores in reversed(results.methods[best]):
        real = _at(results.real, scores.rank, FIRST_JUDGE)
        beside = f" (real photographs: {real.mean:.0%})" if real else ""
        ours = scores.metrics.get(FIRST_JUDGE)
        figures[f"{scores.rank} named right{beside}"] = f"{ours.mean:.0%}" if ours else "not judged"
    finest = results.methods[best][-1]
    return (
        text(
            f"{len(results.methods)} method(s) on {results.protocol.dataset}. The figures below are those of {best}"
            f"{_why(results, best)}: {finest.num_images} images at rank {finest.rank}."
            + (" Part of a picked method's lead is luck." if _why(results, best) else "")
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
    return ", which is named right most often"


def metric_blocks(results: Results) -> tuple[Html, ...]:
    """Accuracy by rank as a chart, then a table for each metric: methods by rank."""
    columns = [(rank, judge) for rank in results.protocol.ranks for judge in judge_columns(results)]
    blocks: list[Html] = [
        named_chart(
            [
                IntervalRow(name, tuple(_at(scores, rank, judge.metric) for rank, judge in columns))
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


def difference_table(results: Results) -> tuple[list[str], list[list[Cell]]]:
    """How much more often the compared method is named right: header and rows; no rows where there is one method."""
    columns = [(rank, judge) for rank in results.protocol.ranks for judge in judge_columns(results)]
    by_judge = {FIRST_JUDGE: results.differences, SECOND_JUDGE: results.differences_second}
    rows = [
        [
            method_cell(results, name),
            *(_cell(by_judge[j.metric].get(name, {}).get(rank), RANK_ACCURACY, False) for rank, j in columns),
        ]
        for name in results.differences
    ]
    return ["method", *(judge.head(rank) for rank, judge in columns)], rows


def difference_block(results: Results) -> list[Html]:
    """The table above with its heading; [] where there is nothing to compare."""
    header, rows = difference_table(results)
    if not rows:
        return []
    title = f"Named right: {results.compared.name} above each method"
    return [heading(title), table(header, rows, caption=f"{results.compared.words} {DIFFERENCE}")]


def frequency_block(results: Results) -> tuple[Html, ...]:
    """Accuracy at the finest rank by how often taxa occur in training."""
    rank, columns, rows = _by_frequency(results)
    return (
        named_chart(
            rows,
            columns,
            x_label=f"share of images named right at rank {rank}",
            caption="Taxa grouped by how many training photographs they have.",
        ),
    )


def _by_frequency(results: Results) -> tuple[Rank, list[str], list[IntervalRow]]:
    """The finest rank, its frequency buckets that have taxa (by each judge), and the accuracy of each row in them."""
    scores = results.at_finest()
    rank = next(iter(scores.values())).rank
    real = next((found for found in results.real if found.rank == rank), None)
    if real is not None:
        scores[REAL] = real
    buckets = [b.name for b in BUCKETS if any(b.name in found.buckets for found in scores.values())]
    columns = [(bucket, judge) for bucket in buckets for judge in judge_columns(results)]
    rows = [
        IntervalRow(name, tuple(found.buckets.get(bucket, {}).get(judge.metric) for bucket, judge in columns))
        for name, found in scores.items()
    ]
    return rank, [judge.head(bucket) for bucket, judge in columns], rows


def share_words(share: float | None) -> str:
    """A share as a percentage."""
    return "not judged" if share is None else f"{share:.0%}"


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
