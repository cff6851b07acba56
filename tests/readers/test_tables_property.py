"""Whatever a table looks like: no traceback, rows in = rows used + rows reported, ids that no shuffle changes."""

from __future__ import annotations

import csv
import io
import random
import shutil
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxadiffusion.dataset import PreparedDataset, PrepareReport, PrepareSettings, prepare
from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.readers import Record, Rejected, open_reader

RANKS = ("class", "order", "family", "genus", "species")
NAMES = st.one_of(
    st.sampled_from([
        "Aves", "Passeriformes", "Corvidae", "Corvus", "corax", "Corvus corax", "Corvus corax L., 1758", "cf. corax",
        "sp.",
        "nan", "None", "NA", "null", "N/A", "", " ", "unassigned Corvidae", "not_classified", "Eupercaria/misc",
        "BOLD:AAA1234", "order: Passeriformes", "a: b: c", "طائر", "צפור", "\u202eabc",
        unicodedata.normalize("NFD", "Éric mülleri"),
        unicodedata.normalize("NFC", "Éric mülleri"),
        "× hybrida", "Salix × fragilis", "x-notata", "'quoted'", 'dou"ble',
    ]),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
)  # fmt: skip
PATHS = st.one_of(
    st.integers(0, 50).map("{}.jpg".format),
    st.sampled_from(
        ["", "../up.jpg", "/etc/passwd", "a/b/c.png", "http://x.org/a.jpg", "C:\\x.jpg", "a\x00.jpg", "\t.jpg"]
    ),
)


@dataclass(frozen=True)
class GeneratedTable:
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bom: bool
    line_end: str
    raw_bytes: bytes
    """Appended to the last row as it is: NUL, broken UTF-8 or nothing."""

    def encoded(self, rows: tuple[tuple[str, ...], ...]) -> bytes:
        text = io.StringIO()
        has_bare_return = any("\r" in cell for row in rows for cell in row)  # csv quotes it in some versions only
        quoting = csv.QUOTE_ALL if has_bare_return else csv.QUOTE_MINIMAL
        writer = csv.writer(text, lineterminator=self.line_end, quoting=quoting)
        if self.raw_bytes:  # after a cell of several lines they would leave its last lines without an end
            *first, last = rows
            rows = (*first, (*last[:-1], " ".join(last[-1].splitlines())))
        writer.writerows([self.header, *rows])
        data = text.getvalue().encode("utf-8", "surrogatepass")
        if self.raw_bytes:
            data = data.removesuffix(self.line_end.encode()) + self.raw_bytes + self.line_end.encode()
        return (b"\xef\xbb\xbf" if self.bom else b"") + data


@st.composite
def tables(draw: st.DrawFn) -> GeneratedTable:
    ranks = draw(st.lists(st.sampled_from(RANKS), min_size=1, max_size=5, unique=True))
    extra = draw(st.lists(st.sampled_from(["split", "license", "note", "group", "order", ""]), max_size=3))
    header = ("file_name", *ranks, *extra)
    cells = [PATHS, *(NAMES for _ in header[1:])]
    whole = st.tuples(*cells)
    ragged = st.lists(NAMES, min_size=2, max_size=9).map(tuple)
    rows = draw(st.lists(st.one_of(whole, whole, whole, ragged), min_size=1, max_size=12))
    return GeneratedTable(
        header=header,
        rows=tuple(rows),
        bom=draw(st.booleans()),
        line_end=draw(st.sampled_from(["\n", "\r\n"])),
        raw_bytes=draw(st.sampled_from([b"", b"", b"", b"\x00", b"\xff\xfe"])),
    )


def check_table(table: GeneratedTable) -> None:
    folder = Path(tempfile.mkdtemp(prefix="taxadiffusion-test-"))
    try:
        first = _prepared(folder / "first", table, table.rows)
        if first is None:
            return
        if not table.raw_bytes:
            shuffled = list(table.rows)
            random.Random(len(shuffled)).shuffle(shuffled)
            second = _prepared(folder / "second", table, tuple(shuffled))
            assert second is not None
            assert second.taxonomy_hash == first.taxonomy_hash
            assert (second.rows, second.images_at_rank) == (first.rows, first.images_at_rank)
        taxonomy = PreparedDataset.open(folder / "first/out").taxonomy
        for taxon_id in range(len(taxonomy)):
            for _, name in taxonomy.lineage(taxon_id).names:
                assert name == unicodedata.normalize("NFC", name).strip()
                assert name.casefold() not in ("", "nan", "none", "na", "null")
    finally:
        shutil.rmtree(folder)


def _prepared(folder: Path, table: GeneratedTable, rows: tuple[tuple[str, ...], ...]) -> PrepareReport | None:
    """The report, or None where the table is refused by one of our own errors; everything else is a failure."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "metadata.csv").write_bytes(table.encoded(rows))
    try:
        items = list(open_reader(source))
        assert all(isinstance(item, Record | Rejected) for item in items)
        assert len(items) == len(rows)
        report = prepare(
            source,
            folder / "out",
            PrepareSettings(verify=False, allow_contradictions=True, max_bad_fraction=1.0),
            num_workers=1,
        )
    except TaxaDiffusionError:
        return None
    assert report.rows == len(rows)
    assert report.rows == report.images + report.quarantined + report.repeated_rows + report.duplicate_images
    return report


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_a_hundred_tables(table: GeneratedTable) -> None:
    check_table(table)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(tables())
def test_five_thousand_tables(table: GeneratedTable) -> None:
    check_table(table)


def test_the_generator_is_not_refused_throughout(tmp_path: Path) -> None:
    """The property above would hold of tables that are all refused; most are not."""
    used = 0
    for seed in range(20):
        rows = tuple((f"{seed}-{i}.jpg", "Aves", "Corvus", "corax") for i in range(3))
        table = GeneratedTable(("file_name", "class", "genus", "species"), rows, bool(seed % 2), "\r\n", b"")
        used += _prepared(tmp_path / str(seed), table, rows) is not None
    assert used == 20
