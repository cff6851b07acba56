"""Laws of the report: it holds everything it shows, and no name can break out of its place."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.names import Lineage
from taxadiffusion.report.blocks import (
    Cell,
    Picture,
    PictureRow,
    code,
    data_uri,
    facts,
    folded,
    heading,
    note,
    picture_grid,
    table,
    text,
)
from taxadiffusion.report.charts import Band, IntervalRow, Series, _Axis, interval_chart, line_chart
from taxadiffusion.report.page import Section, page
from taxadiffusion.report.tables import latex_table, markdown_table
from taxadiffusion.report.tree import Tip, tree

EVIL = "\"><script>alert('x')</script><img src=http://x.org/y onerror=z> & Æquorea"


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def image(value: int = 100) -> np.ndarray:
    return np.full((3, 8, 8), value, dtype=np.uint8)


def everything(name: str) -> str:
    """A page that puts `name` in every place that takes words."""
    lineage = Lineage.of({"family": name, "genus": name, "species": name})
    blocks = (
        text(name),
        note(name),
        heading(name),
        code(name),
        facts({name: name}),
        folded(name, [text(name)]),
        table([name, name], [[name, Cell(name, name, True)]], caption=name),
        picture_grid([PictureRow(name, ((Picture(image(), name),),), name)], heads=[name], caption=name),
        line_chart(
            [Series(name, [0, 1], [1, 2]), Series(name, [0, 1], [2, 1])],
            x_label=name, y_label=name, bands=[Band(name, 0, 1)], caption=name,
        ),
        interval_chart(
            [IntervalRow(name, (Interval(1, 0, 2),) * 2)], [name] * 2, x_label=name, marks=[(name, 1)], caption=name
        ),
        tree([Tip(lineage, name, (image(),))], ("family", "genus", "species"), caption=name),
    )  # fmt: skip
    return page(name, name, [Section(name, blocks)])


def test_no_name_breaks_out_of_its_place_and_every_name_is_shown_as_it_is() -> None:
    plain, evil = Reader(everything("Aequorea")), Reader(everything(EVIL))
    assert evil.tags == plain.tags
    assert [name for name, _ in evil.attributes] == [name for name, _ in plain.attributes]
    assert evil.words.count(EVIL) == plain.words.count("Aequorea") > 20


def test_words_that_are_given_for_markup_are_escaped_too() -> None:
    plain, evil = (
        Reader(page("t", "s", [Section("x", (words, folded("y", [words])))]))  # type: ignore[arg-type]
        for words in ("Aequorea", EVIL)
    )
    assert evil.tags == plain.tags
    assert evil.words.count(EVIL) == plain.words.count("Aequorea") == 2


def test_page_asks_for_nothing_from_elsewhere() -> None:
    reader = Reader(everything("Aequorea"))
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    links = [value or "" for name, value in reader.attributes if name in ("src", "href", "srcset", "data")]
    assert links
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in links)
    assert "url(" not in everything("Aequorea")
    assert "@import" not in everything("Aequorea")


def test_an_inlined_picture_is_the_picture() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (3, 64, 64))
    encoded = data_uri(ramp).partition("base64,")[2]
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))).transpose(2, 0, 1)
    assert np.abs(decoded.astype(int) - ramp.astype(int)).max() <= 6


def test_two_sections_with_one_anchor_are_refused() -> None:
    with pytest.raises(ValueError, match="share an anchor"):
        page("t", "s", [Section("Rare species", ()), Section("Rare  species!", ())])


def test_a_table_with_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under a header of 2"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (1e-4, 3e-4), (0.3, 12345)])
def test_ticks_lie_on_the_axis_in_equal_round_steps(low: float, high: float) -> None:
    ticks = _Axis(low, high, 0, 100).ticks()
    steps = np.diff(ticks)
    assert 3 <= len(ticks) <= 8
    assert min(ticks) >= low - 1e-9
    assert max(ticks) <= high + 1e-9
    np.testing.assert_allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125" or f"{steps[0]:.1e}"[:3] == "2.5"


def test_curve_runs_from_edge_to_edge_in_the_data_s_proportions() -> None:
    drawn = line_chart([Series("loss", [0, 10, 40], [4, 1, 2])], x_label="step", y_label="loss")
    points = re.search(r'points="([^"]+)"', drawn)
    assert points is not None
    xs, ys = zip(*(map(float, pair.split(",")) for pair in points[1].split()), strict=True)
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(0.25, abs=0.01)
    assert (ys[1] - ys[2]) / (ys[1] - ys[0]) == pytest.approx(1 / 3, abs=0.01)
    assert ys[0] < ys[2] < ys[1]  # upwards is smaller y


@pytest.mark.parametrize(
    ("x", "y", "log_x"),
    [([0, 1], [1.0, float("nan")], False), ([float("inf"), 1], [1.0, 2.0], False), ([1, 0], [1.0, 2.0], True),
     ([], [], False)],
)  # fmt: skip
def test_a_chart_refuses_what_it_cannot_show(x: list[float], y: list[float], log_x: bool) -> None:
    with pytest.raises(ValueError, match=r"cannot show|one or more points"):
        line_chart([Series("loss", x, y)], x_label="step", y_label="loss", log_x=log_x)


def test_a_whisker_spans_its_interval_and_an_absent_figure_leaves_a_gap() -> None:
    drawn = interval_chart(
        [IntervalRow("a", (Interval(0.5, 0.2, 0.9), None)), IntervalRow("b", (None, Interval(0.1, 0.0, 0.3)))],
        ["order", "family"],
        x_label="accuracy",
    )
    assert drawn.count("<circle") == 2
    assert "a, order: 0.5 (0.2 to 0.9)" in drawn
    assert "b, family: 0.1 (0 to 0.3)" in drawn


def test_words_stay_within_a_chart_and_a_short_stage_is_named_on_hover_alone() -> None:
    marked = interval_chart(
        [IntervalRow("a", (Interval(0.1, 0.0, 0.2),))],
        ["named right"],
        x_label="accuracy",
        marks=[("photographs of the test split", 0.9)],
    )
    middle = re.search(r'<text x="([0-9.]+)"[^>]*>photographs of the test split', marked)
    assert middle is not None
    assert float(middle[1]) + 0.5 * 6 * len("photographs of the test split") <= 860

    bands = [Band("order", 0, 1), Band("species", 1, 100)]
    drawn = line_chart([Series("loss", [0, 100], [2, 1])], x_label="step", y_label="loss", bands=bands)
    assert "<title>order</title>" in drawn
    assert ">order</text>" not in drawn
    assert ">species</text>" in drawn


def test_points_that_do_not_follow_from_one_another_are_not_joined() -> None:
    taxa = Series("named right", list(range(1, 31)), [0.5] * 30)
    drawn = line_chart([taxa], x_label="photographs", y_label="share", joined=False)
    assert "<polyline" not in drawn
    assert drawn.count("<circle") == 30


def test_heads_stand_over_their_groups_of_pictures() -> None:
    row = PictureRow("Amphiprion clarkii", ((Picture(image()),) * 2, (Picture(image()),)))
    drawn = picture_grid([row], heads=["photographs", "made"])
    assert drawn.index("<th>photographs</th><th>made</th>") < drawn.index("Amphiprion clarkii")
    assert [cell.count("<img") for cell in drawn.split("<td>")[1:]] == [0, 2, 1]
    assert "<th" not in picture_grid([row])
    with pytest.raises(ValueError, match="Amphiprion clarkii: 2 groups of pictures under 1 heads"):
        picture_grid([row], heads=["photographs"])


def test_tree_shows_every_taxon_once_and_homonyms_apart() -> None:
    ranks = ("family", "genus", "species")
    tips = [
        Tip(Lineage.of({"family": "Labridae", "genus": "Hemigymnus", "species": "fasciatus"})),
        Tip(Lineage.of({"family": "Labridae", "genus": "Hemigymnus", "species": "melapterus"})),
        Tip(
            Lineage.of({"family": "Labridae", "genus": "Thalassoma", "species": "fasciatus"}), "12", (image(), image())
        ),
        Tip(Lineage.of({"family": "Scaridae"})),
    ]
    drawn = Reader(tree(tips, ranks))
    counts = {name: drawn.words.count(name) for name in ("Labridae", "Hemigymnus", "fasciatus", "Scaridae", "12")}
    assert counts == {"Labridae": 1, "Hemigymnus": 1, "fasciatus": 2, "Scaridae": 1, "12": 1}
    assert drawn.tags.count("image") == 2
    with pytest.raises(ValueError, match="one or more tips"):
        tree([], ranks)


def test_markdown_and_latex_hold_their_cells_whatever_is_in_them() -> None:
    header, rows = ["method", "FD ↓"], [["a|b_c & 50%", "1.5 ± 0.1"]]
    lines = markdown_table(header, rows).splitlines()
    assert lines[1] == "|---|---:|"
    assert lines[2] == r"| a\|b_c & 50% | 1.5 ± 0.1 |"
    latex = latex_table(header, rows, caption="50% of {all}", label="tab:one")
    assert r"a|b\_c \& 50\% & 1.5 $\pm$ 0.1 \\" in latex
    assert r"\caption{50\% of \{all\}}" in latex
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
