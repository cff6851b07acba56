"""Published figures against the files they are written from: tables and intervals, computed again.

Read are README.md, docs/results.md, docs/log.md and the pages in docs/results/, but not docs/results/metrics/, which
programs wrote.

A comment `<!-- figures … -->` stands before a table, or anywhere in the section of a sentence. It is YAML:

    file: results/reef-fish.json      below docs/; JSON as `reproduce` writes it (summary.json), or its Markdown tables
    experiment: table1
    rows: [zero_shot, null, …]        what each row of the table is called there; null: not from this file
    columns: [table1 order.rank_accuracy 2, null, differences species 3 interval]
    unchecked: why rows or columns are null
    values: [differences lora.species 3 interval]      of sentences: strings that the section must hold

A column is SOURCE, path and decimals; `interval` adds the limits. SOURCE: `table1` (a rank and a metric of the row),
`differences` (a rank; of the compared method over the row; `-differences` its negative) or `traits` (method and rank).
A row or value may name another file and experiment: {file: …, experiment: …, row: …}.
Figures are rounded, halves upward; those of Markdown, rounded before, may differ by one in the last place. A table that
is not from such a file says so instead: `<!-- figures not from results/: where they come from -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "results.md", DOCS / "log.md", *sorted((DOCS / "results").glob("*.md"))]
MARKER = re.compile(r"<!-- figures\n(.*?)-->", re.DOTALL)
ELSEWHERE = re.compile(r"<!-- figures not from results/: .{10,}?-->", re.DOTALL)
NUMBER = r"-?\d+(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)|\(({NUMBER}), ({NUMBER}) to ({NUMBER})\)")


@dataclass(frozen=True)
class Table:
    line: int
    marker: dict[str, Any] | None
    """None: said to be from elsewhere."""
    rows: tuple[tuple[str, ...], ...]


def plain(text: str) -> str:
    return text.replace("−", "-").replace("*", "").strip()


@cache
def figures(file: str, experiment: str) -> dict[str, Any]:
    """`table1`, `differences` and `traits` of one experiment."""
    path = DOCS / file.removeprefix("docs/")
    if path.suffix == ".json":
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["experiments"][experiment]
        return found
    labels = {"Named right": "rank_accuracy", "Fréchet distance": "frechet_distance", "Trait error": "trait_error"}
    table: dict[str, Any] = {}
    for section in path.read_text(encoding="utf-8").split("\n### ")[1:]:
        title = next((key for label, key in labels.items() if section.startswith(label)), None)
        lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        if title is None or ":" in section.splitlines()[0] or "training photographs" in section.splitlines()[0]:
            continue
        for name, *cells in lines[2:]:
            for rank, cell in zip(lines[0][1:], cells, strict=True):
                numbers = [float(n) for n in re.findall(NUMBER, cell.replace("−", "-"))]
                if numbers:
                    mean, low, high = numbers
                    ranks = table.setdefault(name.replace("\\", ""), {}).setdefault(rank.strip(), {})
                    ranks[title] = {"mean": mean, "low": low, "high": high}
    return {"table1": table}


def written(value: Any, decimals: int, interval: bool, sign: int = 1) -> str:
    """As the text has it; a plain number, or a mean with its limits."""
    if not isinstance(value, dict):
        return rounded(sign * value, decimals)
    ends = sorted((sign * value["low"], sign * value["high"]))
    mean, low, high = (rounded(n, decimals) for n in (sign * value["mean"], *ends))
    return f"{mean} ({low} to {high})" if interval else mean


def rounded_twice(cell: str, should: str) -> bool:
    """Equal to one in the last place: a figure of a Markdown table has been rounded once already."""
    ours, theirs = ([Decimal(n) for n in re.findall(NUMBER, text)] for text in (cell, should))
    return len(ours) == len(theirs) and all(
        a.as_tuple().exponent == b.as_tuple().exponent and abs(a - b) <= Decimal(1).scaleb(int(b.as_tuple().exponent))
        for a, b in zip(ours, theirs, strict=True)
    )


def rounded(value: float, decimals: int) -> str:
    """Halves away from zero; what parts from a half by less than a billionth is one (0.92499999999 is 0.925)."""
    near = Decimal(f"{value:.9f}").quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{abs(near) if near == 0 else near}"


def looked_up(found: dict[str, Any], source: str, row: str, path: list[str]) -> Any:
    """None: this row is the one that others are compared with."""
    if source.endswith("differences"):
        differences = found["differences"]
        return None if differences["from"] == row else differences["rank_accuracy"][row][path[0]]
    value: Any = found["traits"] if source == "traits" else found[source][row]
    for key in [*path, row] if source == "traits" else path:
        value = value[key]
    return value


def expected(marker: dict[str, Any], row: Any, column: str) -> str:
    if isinstance(row, dict):
        marker, row = {**marker, **row}, row["row"]
    source, path, decimals, *interval = column.split()
    keys = path.split(".")
    value = looked_up(figures(marker["file"], marker["experiment"]), source, row, keys)
    return "" if value is None else written(value, int(decimals), bool(interval), -1 if source[0] == "-" else 1)


def tables(text: str) -> Iterator[Table]:
    """Every table with the marker that ends directly before it; raises for one that has none."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if not line.startswith("|") or lines[start - 1].startswith("|"):
            continue
        end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
        before = "\n".join(lines[:start]).rstrip()
        comment = before[before.rfind("<!--") :] if before.endswith("-->") else ""
        marker = MARKER.fullmatch(comment)
        if not marker and not ELSEWHERE.fullmatch(comment):
            raise AssertionError(f"line {start + 1}: a table without a marker; see tests/test_published_figures.py")
        rows = tuple(tuple(plain(cell) for cell in row.strip("|").split("|")) for row in lines[start + 2 : end])
        yield Table(start + 1, yaml.safe_load(marker[1]) if marker else None, rows)


def wrong_cells(text: str) -> list[str]:
    """What a table says against what its file says, for every cell that parts from it."""
    wrong = []
    for table in tables(text):
        if table.marker is None:
            continue
        marker = table.marker
        rows, columns = marker["rows"], marker["columns"]
        assert (None not in rows and None not in columns) or marker.get("unchecked"), f"line {table.line}: why null?"
        assert len(rows) == len(table.rows), f"line {table.line}: {len(table.rows)} rows, {len(rows)} in the marker"
        for row, cells in zip(rows, table.rows, strict=True):
            assert len(cells) == len(columns) + 1, f"line {table.line}: {len(cells)} cells; one more than columns?"
            for column, cell in zip(columns, cells[1:], strict=True):
                if row is None or column is None:
                    continue
                should = expected(marker, row, column)
                if cell != should and not (marker["file"].endswith(".md") and rounded_twice(cell, should)):
                    wrong.append(f"line {table.line}, {row}, {column}: {cell!r} for {should!r}")
    return wrong


def wrong_sentences(text: str) -> list[str]:
    """Values that their section lacks, and intervals in sentences that no marker of the section or table has."""
    wrong = []
    in_tables = {
        expected(table.marker, row, column)
        for table in tables(text)
        if table.marker
        for row in table.marker["rows"]
        for column in table.marker["columns"]
        if row is not None and column is not None
    }
    for section in re.split(r"\n(?=##+ )", text):
        known = set()
        for found in MARKER.finditer(section):
            marker = yaml.safe_load(found[1])
            for value in marker.get("values", ()):
                source, rest = value.split(" ", 1)
                path, form = re.fullmatch(r"(.+?)((?: \d+)(?: interval)?)", rest).groups()  # a row may hold blanks
                row, *keys = path.split(".")
                known.add(expected(marker, row, f"{source} {'.'.join(keys)}{form}"))
        prose = re.sub(r"<!--.*?-->", "", section, flags=re.DOTALL)
        prose = "\n".join(line for line in prose.splitlines() if not line.startswith(("|", "    ")))
        sentences = " ".join(plain(prose).split())
        numbers = set(re.findall(rf"(?<![\d.]){NUMBER}(?![\d.]*\d)", sentences))
        said = set()
        for match in INTERVAL.finditer(sentences):
            mean, low, high = match.groups()[:3] if match[1] else match.groups()[3:]
            said.add(f"{mean} ({low} to {high})")
        title = section.strip().partition("\n")[0]
        wrong += [f"{title}: {value} is in no sentence" for value in sorted(known - said - numbers)]
        wrong += [f"{title}: {value} is in no marker" for value in sorted(said - known - in_tables)]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_table_and_interval_is_what_its_file_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert wrong_cells(text) == []
    assert wrong_sentences(text) == []


def test_the_read_me_says_what_the_files_say() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert MARKER.search(text)
    assert wrong_cells(text) == wrong_sentences(text) == []


EXAMPLE = """
## Strategies
<!-- figures
file: results/reef-fish-strategies.json
experiment: strategies
rows: [taxadiffusion_random]
columns: [table1 order.rank_accuracy 2, table1 species.rank_accuracy 3 interval]
values: [table1 taxadiffusion_random.species.rank_accuracy 2, differences taxadiffusion_random.species 3 interval,
  -differences taxadiffusion_random.order 3 interval]
-->
| named right | order | species |
|---|---|---|
| random depth | **0.37** | 0.058 (0.008 to 0.149) |

It is named right less often (0.06), by 0.225 (0.101 to 0.361), and at order more often (0.139, −0.028 to 0.343).
"""


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("**0.37**", "0.38"),
        ("0.058 (0.008", "0.058 (0.009"),
        ("to 0.361", "to 0.362"),
        ("−0.028", "0.028"),
        ("(0.06)", "(0.07)"),
    ],
)
def test_a_figure_that_parts_from_its_file_is_noticed(true: str, false: str) -> None:
    assert wrong_cells(EXAMPLE) == wrong_sentences(EXAMPLE) == []
    changed = EXAMPLE.replace(true, false)
    assert changed != EXAMPLE
    assert wrong_cells(changed) or wrong_sentences(changed)


def test_a_table_needs_a_marker_and_a_gap_a_reason() -> None:
    bare = re.sub(r"<!--.*?-->\n", "", EXAMPLE, flags=re.DOTALL)
    with pytest.raises(AssertionError, match="line 3: a table without a marker"):
        wrong_cells(bare)
    elsewhere = bare.replace("| named", "<!-- figures not from results/: the log of a run -->\n| named", 1)
    assert wrong_cells(elsewhere) == []
    assert len(wrong_sentences(elsewhere)) == 2  # its intervals are nobody's
    gap = EXAMPLE.replace("columns: [table1 order.rank_accuracy 2", "columns: [null")
    with pytest.raises(AssertionError, match="why null"):
        wrong_cells(gap)
