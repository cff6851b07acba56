"""Laws of the load that a benchmark puts on the pages: all kinds are asked for, and what is lost is counted."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from benchmarks import page

from taxadiffusion.web.limits import LIMITS
from tests.real_server import real_server


def test_the_load_on_the_pages_is_measured_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    with real_server(tmp_path, replace(LIMITS, queue=4, per_client=2)) as server:

        async def browse(port: int) -> dict[str, Any]:
            load = page.Load(port, clients=5, seconds=3.0, think_s=0.05, taxa=await page.taxa_of(server.port))
            return await page.measure(load, psutil.Process())

        found = asyncio.run(browse(server.port))
    assert found["lost"] == {}
    assert set(found["kinds"]) >= {"home", "taxon", "typing", "css", "js"}
    assert 0 < found["reading_pages"]["p50_ms"] <= found["reading_pages"]["p95_ms"]
    assert found["jobs_taken"] >= 4
    assert found["jobs_refused_since_full"] > 0
    assert found["memory"]["most_mb"] > 10


def test_what_nobody_answers_is_lost() -> None:
    nobody = page.report(asyncio.run(_browsed_nobody()), [])
    assert sum(nobody["lost"].values()) > 0
    assert not nobody["reached"]


async def _browsed_nobody() -> page.Load:
    """Of a port at which nobody answers."""
    load = page.Load(1, clients=2, seconds=0.3, think_s=0.05, taxa=[0])
    with contextlib.suppress(OSError):
        await load.run()
    return load
