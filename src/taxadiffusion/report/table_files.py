"""The tables of an evaluation as files to paste: Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taxadiffusion.evaluate.results import Results
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.naming import RANK_ACCURACY
from taxadiffusion.report.blocks import Cell
from taxadiffusion.report.copies import MEANING, copies_table, not_looked_words
from taxadiffusion.report.figures import DIFFERENCE, accuracy_by_frequency, difference_table, figure_cell, method_tables
from taxadiffusion.report.judges import method_cell, told_with_results
from taxadiffusion.report.tables import latex_table, markdown_table


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
    rank, buckets, by_frequency = accuracy_by_frequency(results)
    rows = _plain(
        [
            [method_cell(results, row.name), *(figure_cell(i, RANK_ACCURACY) for i in row.intervals)]
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
