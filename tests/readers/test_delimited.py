"""Rows of text tables: what a well-kept library writes is read back; what a stray mark ran together is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxadiffusion.readers import Record, Rejected, bounded, open_reader
from taxadiffusion.readers.delimited import Broken, Cells, declared_separator, guess_separator, split_rows
from taxadiffusion.readers.table import Row, Table

CELLS = st.text(alphabet=st.sampled_from('ab ,;"\n\r\t|é'), max_size=8)


def rows_of(text: str, separator: str = ",", quote: str = '"', num_columns: int | None = None) -> list[Cells | Broken]:
    lines = bounded.lines(io.StringIO(text, newline=""))
    return list(split_rows(lines, separator, quote, num_columns))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=2, max_size=5), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], separator: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(rows)
    found = rows_of(text.getvalue(), separator)
    assert [row.cells for row in found if isinstance(row, Cells)] == rows


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('a,"b,c",d\n', ["a", "b,c", "d"]),
        ('a,"b\nc",d\n', ["a", "b\nc", "d"]),
        ('a, "b, c" ,d', ["a", "b, c", "d"]),
        ('a, "b" c,d', ["a", ' "b" c', "d"]),
        ('a,"b" c,d', ["a", "b c", "d"]),
        ('a,5",d', ["a", '5"', "d"]),
        ('a,"say ""hi""",d', ["a", 'say "hi"', "d"]),
        ('a,"",d', ["a", "", "d"]),
        ("a,,", ["a", "", ""]),
        ("", None),
    ],
)
def test_cells_of_one_row(text: str, cells: list[str] | None) -> None:
    found = rows_of(text)
    assert [row.cells for row in found if isinstance(row, Cells)] == ([] if cells is None else [cells])


def test_separators_of_several_characters_and_other_marks() -> None:
    (row,) = rows_of("a||'b||c'||d\n", "||", "'")
    assert isinstance(row, Cells)
    assert row.cells == ["a", "b||c", "d"]


BEFORE, AFTER = "p1.jpg,Labridae,Thalassoma,lunare,ok\n", "p9.jpg,Labridae,Thalassoma,lunare,ok\n"


@pytest.mark.parametrize(
    ("swallowing", "num_lines"),
    [
        (
            'p2.jpg,Labridae,Thalassoma,lunare,"reef\np3.jpg,Zanclidae,Zanclus,cornutus,"cave\n',
            2,
        ),  # the next mark opens
        ('p2.jpg,Labridae,Thalassoma,lunare,"reef\np3.jpg,Zanclidae,Zanclus,cornutus,5"\n', 2),  # an inch closes it
        ('p2.jpg,"Labridae,Thalassoma,lunare,x\np3.jpg,a,b,c,ok\np4.jpg,5",Zanclus,cornutus,ok\n', 3),
        ('p2.jpg,Labridae,Thalassoma,lunare,"reef\np3.jpg,Zanclidae,Zanclus,cornutus,ok\n', 3),  # none closes it
    ],
)
def test_an_unclosed_mark_takes_no_row_with_it_unseen(tmp_path: Path, swallowing: str, num_lines: int) -> None:
    is_last = num_lines == 3 and swallowing.count("\n") == 2
    (tmp_path / "metadata.csv").write_text("file_name,family,genus,species,note\n" + BEFORE + swallowing + AFTER)
    items = list(open_reader(tmp_path))
    assert len(items) == BEFORE.count("\n") + swallowing.count("\n") + AFTER.count("\n")
    records = [item for item in items if isinstance(item, Record)]
    assert [record.image for record in records] == (["p1.jpg"] if is_last else ["p1.jpg", "p9.jpg"])
    assert [item.row for item in items if isinstance(item, Rejected)] == list(range(3, 3 + num_lines))
    assert len({item.reason for item in items if isinstance(item, Rejected)}) == 1


@pytest.mark.parametrize(
    "row",
    [
        'p2.jpg,Labridae,Thalassoma,lunare,"reef, at noon\nsecond line"\n',
        'p2.jpg,"Labridae\n",Thalassoma,lunare,"a,\nb,"\n',
        'p2.jpg,Labridae,Thalassoma,lunare,"1\n2\n3\n\n4"\n',
    ],
)
def test_a_cell_of_several_lines_stays_one_cell(tmp_path: Path, row: str) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,family,genus,species,note\n" + BEFORE + row + AFTER)
    items = list(open_reader(tmp_path))
    assert [item.image for item in items if isinstance(item, Record)] == ["p1.jpg", "p2.jpg", "p9.jpg"]
    assert [item.row for item in items] == [2, 3, 4]


def test_in_narrow_tables_prose_is_told_from_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name,note\na.jpg,"first, then\nsecond, too"\nb.jpg,ok\n')
    assert [type(row) for row in Table(tmp_path / "t.csv")] == [Row, Row]
    (tmp_path / "t.csv").write_text('name,note\na.jpg,"open\nb.jpg,ok\nc.jpg,5"\nd.jpg,ok\n')
    assert [type(row) for row in Table(tmp_path / "t.csv")] == [Rejected, Rejected, Rejected, Row]


def test_separators_are_told_from_the_header_and_the_first_line() -> None:
    assert guess_separator('a,b,"c;d;e;f"') == ","
    assert guess_separator("a|b|c") == "|"
    assert guess_separator("alone", "\t") == "\t"
    assert [declared_separator(line) for line in ("sep=;\r\n", '"sep=,"\n', "SEP=|", "sep=\\t", "a,b")] == [
        ";",
        ",",
        "|",
        "\t",
        None,
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("p2.jpg,Labridae,Thalassoma,lunare\n", Record),  # the note is missing
        ("p2.jpg,Labridae,Thalassoma\n", Rejected),  # the species is: nothing is guessed
        ("p2.jpg,Labridae,Thalassoma,lunare", Rejected),  # the file was cut off here
    ],
)
def test_a_row_may_end_where_only_remarks_are_missing(tmp_path: Path, line: str, kind: type) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,family,genus,species,note\n" + BEFORE + line)
    reader = open_reader(tmp_path)
    assert [type(item) for item in reader] == [Record, kind]
    counted = reader.counts["rows_with_trailing_cells_missing"]  # type: ignore[attr-defined]
    assert counted == (kind is Record)


def test_a_subspecies_column_may_hold_the_trinomial(tmp_path: Path) -> None:
    header = "file_name,taxon_genus_name,taxon_species_name,taxon_subspecies_name"
    (tmp_path / "metadata.csv").write_text(f"{header}\na.jpg,Canis,Canis lupus,Canis lupus familiaris\n")
    (record,) = open_reader(tmp_path)
    assert isinstance(record, Record)
    assert str(record.lineage) == "genus: Canis > species: lupus > subspecies: familiaris"


def test_quotation_marks_in_a_name_are_reported(tmp_path: Path) -> None:
    from taxadiffusion.dataset.inspect import CheckSettings, inspect_source

    (tmp_path / "metadata.csv").write_text(
        "file_name,family,genus\na.jpg,“Labridae”,Thalassoma\nb.jpg,Labridae,Coris\n"
    )
    report = inspect_source(tmp_path, CheckSettings(tables_only=True))
    assert report.reader_counts["quotation_marks"] == 1
    assert report.taxa_per_rank == {"family": 1, "genus": 2}
