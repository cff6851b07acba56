"""The same table as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

_LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "×": r"$\times$",
     "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
)  # fmt: skip


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; the first column is text, the others are set right."""
    lines = [
        "| " + " | ".join(map(_markdown, header)) + " |",
        "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|",
    ]
    lines += ["| " + " | ".join(map(_markdown, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def latex_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, footnote: str = ""
) -> str:
    """A `table` environment with booktabs rules, the footnote below the table."""
    body = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption.translate(_LATEX)}}}\label{{{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            " & ".join(cell.translate(_LATEX) for cell in header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\footnotesize {footnote.translate(_LATEX)}"] if footnote else []),
            r"\end{table}",
            "",
        ]
    )


def _markdown(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
