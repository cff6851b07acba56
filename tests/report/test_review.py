"""The review page in a browser: keyboard alone, nothing from outside, nothing lost, a table that can be learnt from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.judgements import COLUMNS, FEATURES, PAIR_COLUMNS, read_judgements
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.names import RANKS, Lineage
from taxadiffusion.report.review import drawn_evenly, write_review
from tests.coloured_pictures import SPECIES, fresh

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PATIENCE_MS = 300_000
"""A loaded machine is slow."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh(tmp_path_factory.mktemp("review") / "made, “quoted” & <b>", 0, ("species",), per_taxon=1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    if CHROMIUM is None:
        pytest.skip("needs a system Chromium, which is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE_MS
        )
        yield opened
        opened.close()


def opened_page(browser: Any, path: Path) -> tuple[Any, list[str]]:
    """A page of a context of its own, and all that went wrong or was asked of elsewhere."""
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith(("http", "ws")) else None)
    page.goto(path.as_uri())
    return page, faults


def saved(page: Any, path: Path) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    waiting.value.save_as(path)
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_features_are_judged_by_keyboard_and_kept(browser: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "review.html"
    pictures = generated_folder(folder, RANKS)
    assert write_review(path, folder, pictures, 4).num_pictures == 4
    page, faults = opened_page(browser, path)
    for key in ("Enter", "2", "5", "5", "Enter", "u"):
        page.keyboard.press(key)
    assert "4 of 4; 3 judged" in page.inner_text("#progress")
    page.reload()
    assert "4 of 4; 3 judged" in page.inner_text("#progress"), "what was judged is there again"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "2 colour: fails" in page.inner_text("#features")
    page.keyboard.press("n")
    page.keyboard.press("Control+Enter")  # the browser's own
    assert "3 judged" in page.inner_text("#progress")
    rows = saved(page, tmp_path / "judgements.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [row["verdict"] for row in rows] == ["pass", "fail", "undecided"]
    assert [rows[1][name] for name in FEATURES] == ["pass", "fail", "pass", "pass", "pass"]
    found = read_judgements(tmp_path / "judgements.csv", pictures, folder)
    assert (found.passed, found.undecided, found.fooled) == ((True, False), 1, False)
    assert page.evaluate("document.querySelector('#left').naturalWidth") == 32
    assert not faults


def test_pairs_are_told_apart_by_keyboard(browser: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.html"
    pictures = generated_folder(folder, RANKS)
    photographs = generated_folder(fresh(tmp_path / "real", 1, ("species",), per_taxon=2), RANKS)
    write_review(path, folder, pictures, 4, photographs)
    page, faults = opened_page(browser, path)
    sides = page.evaluate("JSON.parse(document.getElementById('data').textContent).items.map((item) => item.left)")
    for key in ("1", "1", "2", "u"):
        page.keyboard.press(key)
    rows = saved(page, tmp_path / "judgements.csv")
    assert tuple(rows[0]) == PAIR_COLUMNS
    other = {"generated": "photograph", "photograph": "generated"}
    assert [row["chosen"] for row in rows] == [sides[0], sides[1], other[sides[2]], ""]
    assert [row["verdict"] for row in rows[:3]] == [
        "pass" if row["chosen"] == "generated" else "fail" for row in rows[:3]
    ]
    assert read_judgements(tmp_path / "judgements.csv", pictures, folder).fooled
    assert not faults


def test_a_page_holds_all_it_needs_and_names_end_no_element(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "review.html"
    pictures = generated_folder(folder, RANKS)
    write_review(path, folder, pictures, 4)
    html = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert "<b>" not in html
    for address in ('src="http', 'href="http', "url(http", "@import"):
        assert address not in html
    with pytest.raises(DataError, match="none of its taxa has a photograph"):
        write_review(path, folder, pictures, 4, pictures.select([]))


def test_every_taxon_is_shown_before_any_one_is_shown_twice() -> None:
    taxa: list[Lineage] = [taxon for number, taxon in zip((9, 1, 3, 5), SPECIES, strict=True) for _ in range(number)]
    chosen = drawn_evenly(taxa, 8, np.random.default_rng(0))
    assert sorted(taxa[i].label for i in chosen).count(list(SPECIES)[1].label) == 1
    assert {taxa[i] for i in chosen[:8]} == set(SPECIES)
    assert len(set(chosen)) == 8
    assert len(drawn_evenly(taxa, 100, np.random.default_rng(0))) == 18
