"""The figures of an evaluation as tables: methods by rank, by frequency, and against one another."""

from __future__ import annotations

from collections.abc import Sequence

from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.frequency import BUCKETS
from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.metrics.metric import Metric
from taxadiffusion.metrics.naming import FIRST_JUDGE, RANK_ACCURACY, SECOND_JUDGE
from taxadiffusion.names import Rank
from taxadiffusion.report.blocks import Cell
from taxadiffusion.report.charts import IntervalRow
from taxadiffusion.report.judges import Column, judge_columns, method_cell

REAL = "real test photographs"

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
        ranks = [rank for rank in results.protocol.ranks if any(figure_at(s, rank, metric.key) for _, s in rows)]
        if ranks and metric.table:
            judges = judge_columns(results) if metric.key == FIRST_JUDGE else (Column(metric.key, ""),)
            columns = [(rank, judge) for rank in ranks for judge in judges]
            best = {(rank, judge): _best(results, rank, declared.declared(judge.metric)) for rank, judge in columns}
            body = [
                [
                    method_cell(results, name),
                    *(
                        figure_cell(figure_at(scores, rank, j.metric), metric, name == best[rank, j])
                        for rank, j in columns
                    ),
                ]
                for name, scores in rows
            ]
            tables[metric.key] = (["method", *(judge.head(rank) for rank, judge in columns)], body)
    return tables


def difference_table(results: Results) -> tuple[list[str], list[list[Cell]]]:
    """How much more often the compared method is named right: header and rows; no rows where there is one method."""
    columns = [(rank, judge) for rank in results.protocol.ranks for judge in judge_columns(results)]
    by_judge = {FIRST_JUDGE: results.differences, SECOND_JUDGE: results.differences_second}
    rows = [
        [
            Cell(f"{results.against[name]} above {name}") if name in results.against else method_cell(results, name),
            *(figure_cell(by_judge[j.metric].get(name, {}).get(rank), RANK_ACCURACY) for rank, j in columns),
        ]
        for name in results.differences
    ]
    return ["method", *(judge.head(rank) for rank, judge in columns)], rows


def accuracy_by_frequency(results: Results) -> tuple[Rank, list[str], list[IntervalRow]]:
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


def figure_at(scores: Sequence[RankScores], rank: Rank, metric: str) -> Interval | None:
    """A method's figure at a rank, where it is known."""
    return next((s.metrics.get(metric) for s in scores if s.rank == rank), None)


def _best(results: Results, rank: Rank, metric: Metric) -> str | None:
    """The one best of two or more methods, where the metric has a better side."""
    found = {name: i.mean for name, scores in results.methods.items() if (i := figure_at(scores, rank, metric.key))}
    if len(found) < 2 or metric.better == "neither":
        return None
    best = min(found.values()) if metric.better == "less" else max(found.values())
    names = [name for name, value in found.items() if value == best]
    return names[0] if len(names) == 1 else None


def figure_cell(interval: Interval | None, metric: Metric, best: bool = False) -> Cell:
    """A figure with its interval in small print; `best` stands out."""
    if interval is None:
        return Cell("–")
    if not interval.known:
        return Cell(f"{interval.mean:.{metric.decimals}f}", "too few images for an interval", best)
    low, high = (f"{v:.{metric.decimals}f}" for v in (interval.low, interval.high))
    return Cell(f"{interval.mean:.{metric.decimals}f}", f"{low} to {high}", best)
