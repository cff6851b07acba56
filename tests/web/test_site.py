"""Laws of the pages, with a real worker that draws: over HTTP, and the main road in a real browser."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shlex
import signal
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from taxadiffusion.cli import app as commands
from taxadiffusion.web.limits import LIMITS
from taxadiffusion.web.worker import Opening, work
from taxadiffusion.web.workshop import Workshop
from tests.site_taxa import CLARKII, CORNUTUS, HARMFUL, HOSTILE, OCELLARIS, served_model
from tests.tiny_site import serving, write_model

MODEL = served_model()
ID = MODEL.ids
LONG = "100"
"""Steps: enough to look at a job, or to end it, while it is drawn."""


@dataclass(frozen=True)
class Served:
    """The application in this process, its worker in another."""

    app: Any
    workshop: Workshop
    model: Path

    def visitor(self) -> TestClient:
        client = TestClient(self.app, base_url="http://127.0.0.1:8000", follow_redirects=False)
        client.get("/")
        return client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    opening = write_model(tmp_path_factory.mktemp("site"))
    with serving(opening, replace(LIMITS, queue=6, per_client=4)) as (app, workshop):
        yield Served(app, workshop, Path(opening.model))


def make(visitor: TestClient, lineage: object = CLARKII, **fields: str) -> int:
    answer = visitor.post("/make", data={"taxon": str(ID[lineage]), "steps": "2", **fields})  # type: ignore[index]
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("/")[2])


def over(served: Served, number: int, patience_s: float = 120) -> Any:
    end = time.monotonic() + patience_s
    while (job := served.workshop.view(number)) is not None and job.state in ("waiting", "drawing"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


def drawing(served: Served, number: int) -> None:
    end = time.monotonic() + 60
    while (job := served.workshop.view(number)) is not None and not job.fraction:
        assert job.state in ("waiting", "drawing"), job
        assert time.monotonic() < end, job
        time.sleep(0.02)


def told(visitor: TestClient, number: int) -> list[dict[str, Any]]:
    text = visitor.get(f"/jobs/{number}/events").text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_picture_is_made_told_of_shown_and_downloaded_with_its_recipe(served: Served) -> None:
    visitor = served.visitor()
    number = make(visitor, number="2", seed="5", scale="3", rank="order")
    events = told(visitor, number)
    assert events[-1]["state"] == "done"
    assert len(events[-1]["pictures"]) == 2
    assert [event["fraction"] for event in events] == sorted(event["fraction"] for event in events)
    first = events[-1]["pictures"][0]
    png = visitor.get(f"/pictures/{first}.png?download=1")
    assert png.headers["content-disposition"].startswith("attachment")
    with Image.open(io.BytesIO(png.content)) as image:
        recipe = json.loads(image.text["taxadiffusion"])  # type: ignore[attr-defined]
    expected = {"scientific_name": "Amphiprion clarkii", "seed": "5", "guidance_scale": "3", "guidance_rank": "order"}
    assert {key: recipe[key] for key in expected} == expected
    with zipfile.ZipFile(io.BytesIO(visitor.get(f"/jobs/{number}/pictures.zip").content)) as bundle:
        rows = list(csv.DictReader(io.StringIO(bundle.read("metadata.csv").decode())))
        assert [row["seed"] for row in rows] == ["5", "6"]
        assert bundle.read(rows[0]["file_name"]) == png.content
    assert f"/pictures/{first}.png" in visitor.get(f"/taxa/{ID[CLARKII]}").text
    assert "digital source type" in visitor.get(f"/pictures/{first}").text


def test_the_command_and_the_lines_shown_make_the_same_picture_bit_for_bit(served: Served, tmp_path: Path) -> None:
    visitor = served.visitor()
    for fields in ({"seed": "3"}, {"towards": str(ID[OCELLARIS]), "fraction": "0.25", "rank": "genus"}):
        number = make(visitor, **fields)
        over(served, number)
        page = visitor.get(f"/jobs/{number}").text
        shown = re.search(r"<pre><code>(taxadiffusion .*?)</code>", page)
        assert shown is not None
        words = shlex.split(html.unescape(shown[1]))[1:]
        out = tmp_path / str(number)
        result = CliRunner().invoke(commands, [*words, "--out", str(out)])
        assert result.exit_code == 0, result.output
        (made,) = out.rglob("*.png")
        picture = served.workshop.view(number).pictures[0]  # type: ignore[union-attr]
        assert made.stem.endswith(picture)
        assert visitor.get(f"/pictures/{picture}.png").content == made.read_bytes()
        lines = re.search(r"<pre><code>(from .*?)</code>", page, re.DOTALL)
        assert lines is not None
        names: dict[str, Any] = {}
        exec(html.unescape(lines[1]), names)
        with Image.open(made) as image:
            assert np.array_equal(np.asarray(names["images"][0]), np.asarray(image))


def test_the_same_recipe_is_drawn_once(served: Served) -> None:
    visitor, other = served.visitor(), served.visitor()
    number = make(visitor, CORNUTUS, every="1", seed="9")
    job = over(served, number)
    assert len(job.pictures) == 4
    assert make(other, CORNUTUS, every="1", seed="9") == number
    alone = over(served, make(other, CORNUTUS, seed="9"))
    assert alone.pictures == job.pictures[-1:]


def test_who_waits_has_a_place_and_may_cancel_and_the_queue_is_bounded(served: Served) -> None:
    one, two = served.visitor(), served.visitor()
    numbers = [make(one, number="8", steps=LONG, seed=str(100 * i)) for i in range(4)]
    assert one.post("/make", data={"taxon": str(ID[CLARKII])}).status_code == 429
    more = [make(two, number="8", steps=LONG, seed=str(1000 * i)) for i in (1, 2)]
    full = two.post("/make", data={"taxon": str(ID[CLARKII])})
    assert full.status_code == 429
    assert full.headers["retry-after"]
    assert "the queue is full" in full.text
    assert "5 before it in the queue" in one.get(f"/jobs/{more[-1]}").text
    assert one.post(f"/jobs/{more[-1]}/cancel").status_code == 403
    drawing(served, numbers[0])
    for visitor, mine in ((one, numbers), (two, more)):
        for number in reversed(mine):
            assert visitor.post(f"/jobs/{number}/cancel").status_code == 303
    assert [over(served, number).state for number in (*numbers, *more)] == ["cancelled"] * 6
    assert told(one, numbers[0])[-1]["words"].startswith("Cancelled")


def test_a_worker_that_is_killed_is_told_of_and_the_queue_goes_on(served: Served) -> None:
    visitor = served.visitor()
    first, second = make(visitor, number="8", steps=LONG, seed="7"), make(visitor, seed="70")
    drawing(served, first)
    before = served.workshop.worker_pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert over(served, first).state == "failed"
    assert "signal 9" in visitor.get(f"/jobs/{first}").text
    assert over(served, second).state == "done"
    assert served.workshop.worker_pid != before


def test_a_worker_says_why_a_model_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.nice", lambda _: 0)
    ours, theirs = Pipe()
    work(theirs, Opening(str(tmp_path), None, "cpu", tmp_path / "served"))
    refused = ours.recv()
    assert refused.exit_code == 4
    assert "adapter.json" in refused.message


def test_pages_are_read_without_scripts(served: Served) -> None:
    visitor = served.visitor()
    home = visitor.get("/").text
    assert "Acanthuriformes" in home
    found = visitor.get("/find", params={"q": "zanklus cornutis"}).text
    assert f'href="/taxa/{ID[CORNUTUS]}"' in found
    taxon = visitor.get(f"/taxa/{ID[CORNUTUS]}").text
    for above in MODEL.path(ID[CORNUTUS])[:-1]:
        assert f'href="/taxa/{above}"' in taxon
    assert '<form action="/make" method="post"' in taxon
    tree = visitor.get("/tree.json").json()
    assert len(tree["ids"]) == len(tree["parents"]) == len(tree["counts"]) == 1 + len(MODEL.lineages)
    assert set(tree["parents"]) <= {"", *tree["ids"]}
    assert "Plotly" in visitor.get("/static/plotly.js").text


def test_names_are_shown_as_text(served: Served) -> None:
    visitor = served.visitor()
    pages = [f"/taxa/{taxon}" for taxon in MODEL.path(ID[HARMFUL])]
    number = make(visitor, HARMFUL)
    (picture,) = over(served, number).pictures
    pages += ["/", "/find?q=script", f"/jobs/{number}", f"/pictures/{picture}", f"/find?q={HOSTILE}"]
    for address in pages:
        text = visitor.get(address).text
        assert "<script>alert" not in text, address
        assert "<b>Bad" not in text, address
    assert "<script>" not in "".join(visitor.get("/tree.json").json()["labels"])
    assert visitor.get(f"/pictures/{picture}.png?download=1").status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/taxa/999", 404), ("/taxa/-1", 404), ("/taxa/x", 404), (f"/taxa/{'9' * 5000}", 404), ("/taxa/²", 404),
        ("/pictures/../../etc/passwd.png", 404), ("/pictures/%2e%2e%2f%2e%2e%2fetc%2fpasswd.png", 404),
        ("/pictures/0000000000.png", 404), ("/pictures/0000000000", 404), ("/photographs/0.jpg", 404),
        ("/static/..%2fsite.py", 404), ("/static/site.py", 404), ("/jobs/99999", 404), ("/jobs/1e9/events", 404),
        ("/find.json?q=" + "a" * 301, 400), ("/nothing", 404), ("/docs", 404), ("/openapi.json", 404), ("/make", 405),
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(served: Served, address: str, status: int) -> None:
    answer = served.visitor().get(address)
    assert answer.status_code == status
    assert "That did not work" in answer.text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", None, 400), (b"taxon=0&taxon=1", None, 400), (b"taxon=0&number=99", None, 400),
        (b"\xff\xfe=%ff", None, 400), (b'{"taxon": 0}', "application/json", 415), (b"x" * 20_000, None, 413),
        (b"taxon=0&towards=999", None, 404),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_served_is_refused(served: Served, body: bytes, kind: str | None, status: int) -> None:
    headers = {"content-type": kind or "application/x-www-form-urlencoded"}
    assert served.visitor().post("/make", content=body, headers=headers).status_code == status
