"""Laws of the queue: whatever becomes of a picture, its job says so and the next one is drawn."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from taxadiffusion.web import workshop
from taxadiffusion.web.ask import Ask
from taxadiffusion.web.jobs import JobView
from taxadiffusion.web.workshop import Workshop
from tests.fake_processes import LOST_SEED
from tests.real_server import real_server
from tests.site_taxa import CORNUTUS


def over(shop: Workshop, number: int) -> JobView:
    end = time.monotonic() + 60
    while (job := shop.view(number)) is None or job.state in ("waiting", "drawing"):
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_a_picture_that_is_taken_away_fails_its_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "_FEWEST_S", 0.0)
    with real_server(tmp_path) as server:
        asks = [Ask(CORNUTUS, seed=seed, steps=1) for seed in (LOST_SEED, 1)]
        lost, kept = (server.workshop.submit("a", ask).number for ask in asks)
        failed = over(server.workshop, lost)
        assert failed.state == "failed"
        assert "the pictures cannot be kept: No such file" in failed.words
        assert over(server.workshop, kept).state == "done"
