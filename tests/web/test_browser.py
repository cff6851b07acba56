"""Laws of the pages in a real browser: every road to a picture, by mouse, by keyboard, without scripts, on a phone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from taxadiffusion.web.ask import Ask
from tests.browser import chromium
from tests.real_server import RealServer, real_server
from tests.site_taxa import CLARKII, CORNUTUS, OCELLARIS, RANKS, served_model

ID = served_model().ids
WIDE, PHONE = {"width": 1080, "height": 800}, {"width": 360, "height": 740}
LONG = "100"
"""Steps: enough to end a job while it is drawn."""
_PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:  # noqa: ARG001  (skips first)
    with real_server(tmp_path_factory.mktemp("browser")) as found:
        yield found


@dataclass
class Visit:
    """A page in a browser of its own, and what went wrong in it."""

    page: Any
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def see(self, words: str) -> None:
        self.page.wait_for_selector(words, timeout=_PATIENCE_MS)


@pytest.fixture
def visiting(server: RealServer, browser: Any) -> Callable[..., Any]:
    """A visit that must end without a fault, and without asking anybody else for anything."""

    @contextmanager
    def visit(path: str = "/", size: dict[str, int] = WIDE, *, scripts: bool = True) -> Iterator[Visit]:
        context = browser.new_context(viewport=size, java_script_enabled=scripts, reduced_motion="reduce")
        context.set_default_timeout(_PATIENCE_MS)
        found = Visit(context.new_page())
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.on("dialog", lambda dialog: (found.faults.append(dialog.message), dialog.dismiss()))
        found.page.on("pageerror", lambda error: found.faults.append(str(error)))
        found.page.on("console", lambda word: found.faults.append(word.text) if is_fault(word) else None)
        found.page.goto(server.address + path)
        yield found
        assert found.faults == []
        assert [url for url in found.asked if not url.startswith((server.address, "data:"))] == []
        context.close()

    return visit


def is_fault(word: Any) -> bool:
    """plotly writes style attributes, which the page's policy forbids as it should: `tree.css` stands in for them."""
    return word.type == "error" and not word.text.startswith("Applying inline style violates")


def await_pixels(page: Any) -> None:
    """Of every picture of a job; those below the window come when they are scrolled to."""
    images, end = page.locator("#pictures img"), time.monotonic() + _PATIENCE_MS / 1000
    assert images.count() > 0
    for image in images.all():
        image.scroll_into_view_if_needed()
        while not image.evaluate("image => image.complete && image.naturalWidth > 0"):
            assert time.monotonic() < end
            time.sleep(0.05)


def fill(page: Any, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{name}").fill(value)


def test_from_the_first_page_to_a_picture_in_two_clicks(visiting: Any) -> None:
    with visiting() as visit:
        visit.page.get_by_role("link", name="Zanclus cornutus", exact=True).first.click()
        visit.page.get_by_role("button", name="Draw it at every rank").click()
        visit.see(f"#words:has-text('Done: {len(RANKS)} of {len(RANKS)}')")
        await_pixels(visit.page)


def test_the_main_road(visiting: Any, tmp_path: Path) -> None:
    """A misspelt name, its taxon, a picture, its progress, a download and its recipe, on a phone."""
    with visiting(size=PHONE) as visit:
        page = visit.page
        visit.see("#tree .slice")
        page.get_by_label("Find a taxon").press_sequentially("zanklus cornutis")
        visit.see("#hits a")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        visit.see("h1:has-text('Zanclus cornutus')")
        fill(page, steps="2", number="1", seed="77")
        page.get_by_role("button", name="Make pictures").click()
        visit.see("#words:has-text('Done: 1 of 1')")
        page.locator("#pictures a").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the picture").click()
        download.value.save_as(tmp_path / "fish.png")
    with Image.open(tmp_path / "fish.png") as image:
        recipe = json.loads(image.text["taxadiffusion"])  # type: ignore[attr-defined]
    assert (recipe["scientific_name"], recipe["seed"], recipe["num_steps"]) == ("Zanclus cornutus", "77", "2")


def test_a_job_is_watched_and_cancelled(visiting: Any) -> None:
    with visiting(f"/taxa/{ID[CLARKII]}") as visit:
        page = visit.page
        fill(page, steps=LONG, number="16", seed="500")
        page.get_by_role("button", name="Make pictures").click()
        page.locator("#words", has_text=re.compile(r"Drawing: .* [1-9]\d*%")).wait_for()
        page.get_by_role("button", name="Cancel").click()
        visit.see("#words:has-text('Cancelled')")
        assert page.get_by_role("button", name="Cancel").count() == 0


def test_a_taxon_is_compared_at_every_rank_with_one_seed(visiting: Any) -> None:
    with visiting(f"/taxa/{ID[OCELLARIS]}") as visit:
        page = visit.page
        page.get_by_role("button", name="Draw it at every rank").click()
        visit.see(f"#words:has-text('Done: {len(RANKS)}')")
        page.get_by_role("link", name="Compare beside").click()
        heads = page.locator("table.strip thead th").all_inner_texts()
        assert [head.split()[0] for head in heads] == list(RANKS)
        shown = page.locator("table.strip img")
        assert shown.count() == len(RANKS)
        assert len({shown.nth(i).get_attribute("src") for i in range(len(RANKS))}) == len(RANKS)
        words = [shown.nth(i).get_attribute("alt") for i in range(len(RANKS))]
        assert [alt.removeprefix("Synthetic picture of ") for alt in words] == [
            f"{OCELLARIS.truncated(rank).label}, seed 0" for rank in RANKS
        ]
        page.get_by_role("button", name="Draw another seed at every rank").wait_for()


def test_the_slider_mixes_two_taxa_and_an_unchosen_name_is_not_sent(visiting: Any) -> None:
    with visiting(f"/taxa/{ID[CLARKII]}") as visit:
        page = visit.page
        fill(page, steps="2", number="1", seed="5")
        page.get_by_label("Mix with").press_sequentially("zanclus")
        visit.see("#towards-hits button")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Make pictures").click()
        visit.see("#towards-help:has-text('or empty the field')")
        page.get_by_label("Mix with").press_sequentially(" c")
        page.locator("#towards-hits button", has_text="Zanclus cornutus").click()
        visit.see("#towards-help:has-text('Mixed with Zanclus cornutus')")
        page.locator("#fraction").focus()
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
        assert page.locator("output[for=fraction]").inner_text() == "25 %"
        page.get_by_role("button", name="Make pictures").click()
        visit.see("#words:has-text('Done: 1 of 1')")
        assert page.locator("h1").inner_text() == "Amphiprion clarkii → Zanclus cornutus (25%)"
        assert "--fraction 0.25" in page.locator("pre").first.inner_text()


def test_the_whole_road_by_keyboard(visiting: Any) -> None:
    """Tab and Enter alone: skip link, search, the form and its picture; what has the focus is seen."""
    with visiting() as visit:
        page, press = visit.page, visit.page.keyboard.press

        def reach(selector: str, most: int = 60) -> None:
            for _ in range(most):
                if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", selector
                    return
                press("Tab")
            pytest.fail(f"{selector} cannot be reached")

        press("Tab")
        reach(".skip", 1)
        reach("#q")
        page.keyboard.type("cornutus")
        visit.see("#hits a")
        press("Tab")  # the button
        reach("#hits a")
        press("Enter")
        visit.see("h1:has-text('Zanclus cornutus')")
        reach("#number")
        page.keyboard.type("1")
        reach("#steps")
        page.keyboard.type("2")
        reach("form.make button.main")
        press("Enter")
        visit.see("#words:has-text('Done: 1 of 1')")
        reach("#pictures a")
        press("Enter")
        visit.see("h1:has-text('seed 0')")


def test_all_is_read_and_made_without_scripts(visiting: Any) -> None:
    with visiting(scripts=False) as visit:
        page = visit.page
        assert page.locator("#tree-section").is_hidden()
        page.get_by_label("Find a taxon").fill("zanklus cornutis")
        page.get_by_role("button", name="Find").click()
        page.get_by_role("link", name="Zanclus cornutus", exact=True).click()
        fill(page, steps="3", number="1", seed="900")
        page.get_by_role("button", name="Make pictures").click()
        visit.see("#words:has-text('Done: 1 of 1')")  # the page asks again by itself
        assert page.locator("#pictures img").count() == 1
        page.locator("#pictures a").first.click()
        visit.see("th:has-text('scientific name')")
        page.go_back()
        page.get_by_role("link", name="Compare beside").click()
        assert page.locator("#towards-name").is_hidden()
        visit.see("fieldset :text('needs JavaScript')")


@pytest.fixture(scope="module")
def kinds(server: RealServer) -> list[str]:
    """An address of each kind of page, with pictures on it."""
    ask = Ask(CORNUTUS, number=2, seed=300, steps=1, every_rank=True)
    number, end = server.workshop.submit("the test", ask).number, time.monotonic() + 60
    while (done := server.workshop.view(number)) is None or done.state != "done":
        assert time.monotonic() < end
        time.sleep(0.05)
    addresses = ["/", "/find?q=amphiprion", f"/taxa/{ID[CORNUTUS]}", f"/jobs/{done.number}"]
    long_names = [f"/taxa/{number}" for lineage, number in ID.items() if lineage.rank == "species"][:3]
    return [*addresses, f"/pictures/{done.pictures[0]}", "/nothing", "/find?q=qqqqqqqq", *long_names]


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_the_window(
    visiting: Any, kinds: list[str], server: RealServer, size: dict[str, int]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    with visiting(size=size) as visit:
        visit.see("#tree .slice")
        for address in kinds:
            if address != "/":
                visit.page.goto(server.address + address)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size["width"], address
            if (size == WIDE and address in kinds[:_NUM_KINDS]) or address == "/":
                found = axe.run(visit.page).response["violations"]
                serious = [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in _SERIOUS]
                assert serious == [], address
        visit.faults[:] = [fault for fault in visit.faults if "404" not in fault]  # of the page that is none


_SERIOUS = ("serious", "critical")
_NUM_KINDS = 6


def test_names_that_are_made_to_do_harm_do_none(visiting: Any) -> None:
    """Seen by the browser itself: no script runs, no element of theirs is there."""
    for lineage, number in ID.items():
        if lineage.rank != "species" or lineage in (CLARKII, OCELLARIS, CORNUTUS):
            continue
        with visiting(f"/taxa/{number}") as visit:
            heading = visit.page.locator("h1").inner_text()
            assert heading.split() == lineage.label.replace("\0", "").split()  # HTML knows no NUL
            assert visit.page.locator("main script, main [onerror], h1 b").count() == 0
