"""How a report speaks of what names the images, one judge or two, and of what is not judged or not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taxadiffusion.evaluate.results import Results
from taxadiffusion.metrics.naming import FIRST_JUDGE, SECOND_JUDGE
from taxadiffusion.report.blocks import Cell, text
from taxadiffusion.report.charts import IntervalRow, interval_chart
from taxadiffusion.report.page import Html

ONE_TRAINING = "of this model: one training"
"""Beside a method trained once: its interval is over taxa and pictures, and says nothing of another training."""


@dataclass(frozen=True, slots=True)
class Column:
    """A judge's column: the metric that holds its figures, and how it is headed."""

    metric: str
    judge: str
    """The network; "" where there is one judge alone, and nothing to tell apart."""

    def head(self, words: str) -> str:
        """`words`, and the judge where there are two."""
        return f"{words} · {self.judge}" if self.judge else words


def judge_columns(results: Results) -> tuple[Column, ...]:
    """One for each judge, in their order."""
    judges = results.protocol.judges
    if len(judges) < 2:
        return (Column(FIRST_JUDGE, ""),)
    return tuple(
        Column(metric, judge.extractor) for metric, judge in zip((FIRST_JUDGE, SECOND_JUDGE), judges, strict=True)
    )


def method_cell(results: Results, name: str) -> Cell:
    """A method's name; of one training, that its intervals are of this model."""
    return Cell(name, ONE_TRAINING if results.trainings.get(name) == 1 else "")


def named_right_by_judge(results: Results, unseen: str) -> tuple[list[str], list[list[Cell]]]:
    """How often images are named right, for a narrow screen: a row for each method and rank, a column for each judge.

    unseen: what the row of unseen photographs is called. No rows where no taxon is judged.
    """
    judges = judge_columns(results)
    rows = []
    for name, ranks in [*results.methods.items(), (unseen, results.real)]:
        for scores in ranks:
            intervals = [scores.metrics.get(judge.metric) for judge in judges]
            cells = [
                Cell(f"{i.mean:.3f}", f"{i.low:.3f} to {i.high:.3f}" if i.known else "too few images for an interval")
                if i is not None
                else Cell("–")
                for i in intervals
            ]
            if any(intervals):
                rows.append([method_cell(results, name), Cell(scores.rank), *cells])
    return ["method", "rank", *(judge.judge or "named right" for judge in judges)], rows


def named_chart(
    rows: Sequence[IntervalRow],
    columns: Sequence[str],
    *,
    x_label: str,
    caption: str = "",
    marks: Sequence[tuple[str, float]] = (),
) -> Html:
    """`interval_chart` of how often images are named right, or a sentence where no taxon is judged."""
    if all(interval is None for row in rows for interval in row.intervals):
        return text("None of these taxa is judged, so there is no share of images named right to draw.")
    return interval_chart(rows, columns, x_label=x_label, caption=caption, marks=marks)


def judges_words(results: Results) -> str:
    """How the judges were fitted, as sentences."""
    parts = []
    judges = results.protocol.judges
    if judges and not judges[0].num_taxa:  # all are fitted on the same photographs
        return (
            f"Whether images are named right is not told: fewer than two taxa have {judges[0].fewest_photographs} "
            f"photographs (split {' and '.join(judges[0].splits)}), and with fewer nothing is told apart. More "
            "photographs of these taxa, in the split train or judge, would tell."
        )
    for judge in judges:
        how = f", C = {judge.inverse_penalty:g}" if judge.inverse_penalty is not None else ""
        parts.append(
            f"{judge.extractor}: {judge.namer}{how}, fitted on {judge.num_photographs:,} photographs of "
            f"{judge.num_taxa:,} taxa (split {' and '.join(judge.splits)})"
        )
    return f"Named right by {'; and by '.join(parts)}." if parts else ""


def not_judged_words(results: Results) -> str:
    """How many taxa the judges do not know, as a sentence; "" where they know all."""
    if not results.not_judged:
        return ""
    judge = results.protocol.judges[0]
    fewest = judge.fewest_photographs
    found = ", ".join(f"{number:,} of {of:,} at rank {rank}" for rank, (number, of) in results.not_judged.items())
    if not judge.num_taxa:
        return f"Taxa not judged: {found}."
    return f"Taxa not judged, since judges have fewer than {fewest} photographs of them: {found}."


def left_out_words(results: Results) -> str:
    """Which images were not measured, as a sentence; "" where all were."""
    if not results.left_out:
        return ""
    found = ", ".join(f"{number:,} of {name}" for name, number in results.left_out.items())
    return f"Images left out, since they show no taxon of {', '.join(results.protocol.ranks)}: {found}."


def told_with_results(results: Results) -> list[str]:
    """What names the images, and what was not judged or not measured: sentences to stand beside the figures."""
    return [words for words in (judges_words(results), not_judged_words(results), left_out_words(results)) if words]
