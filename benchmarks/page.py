"""How long the pages take, what is lost and what memory does while many people browse and the queue is full.

`python -m benchmarks.page [--model reef-fish] [--clients 200] [--minutes 1] [--think-s 2] [--json FILE]`. Starts
`taxadiffusion serve` on a free port of this machine, fills its queue and keeps it full, and has each client do what a
browser does: a page, then the files that it names and that the client has not yet, then the next page after a pause
that is drawn (exponential). A client keeps its connection and asks with the ETags that it knows. Clients, server and
the worker that draws share the processors, so the figures hold for all of them on one machine. `lag` is what this
process itself came late: it is part of every figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

GOAL_P95_S = 0.150
_PATIENCE_S = 10.0
_SAMPLE_S = 2.0
_FILLERS = 9  # each has room for four jobs: more than the queue has
_PAGES = {"home": 12, "find": 6, "typing": 24, "taxon": 40, "picture": 12, "job": 6}
"""What people open, and how often."""
_TYPED = ("zan", "zanclus cor", "zanklus", "moorish", "idol", "amphi", "clark", "butterfly", "chaetodn", "labr", "xqz")
_FILES = re.compile(r'(?:src|href)="(/(?:static|pictures|photographs)/[^"?]+\.(?:js|css|png|jpg))"')


class LostError(Exception):
    """A request without a whole answer."""


@dataclass
class Seen:
    """Seconds of each kind of request, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)


class Client:
    """A browser's connection: kept alive, with a cookie and the ETags of what it has."""

    def __init__(self, port: int, seen: Seen) -> None:
        self._port, self._seen = port, seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._cookie, self._etags, self._has = "", dict[str, str](), set[str]()

    async def get(self, kind: str, path: str) -> tuple[int, bytes]:
        """Its status and body; noted under `kind`. 0 where it was lost."""
        start = time.perf_counter()
        try:
            status, body = await asyncio.wait_for(self._asked("GET", path, ""), _PATIENCE_S)
        except (OSError, LostError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self._seen.lost[f"{kind}: {type(error).__name__}"] += 1
            self.close()
            return 0, b""
        self._seen.seconds[kind].append(time.perf_counter() - start)
        self._seen.statuses[status] += 1
        if status not in (200, 304):
            self._seen.lost[f"{kind}: {status}"] += 1
        return status, body

    async def post(self, path: str, form: str) -> tuple[int, str]:
        """Status and where it leads; not noted."""
        status, body = await asyncio.wait_for(self._asked("POST", path, form), _PATIENCE_S)
        return status, body.decode()

    async def page(self, kind: str, path: str) -> str:
        """A page with the files that it names and that are not here yet."""
        _, body = await self.get(kind, path)
        text = body.decode("utf-8", "replace")
        for file in dict.fromkeys(_FILES.findall(text)):
            if file not in self._has:
                self._has.add(file)
                await self.get("plotly.js" if "plotly" in file else file.rpartition(".")[2], file)
        if kind == "home":
            await self.get("tree.json", "/tree.json")
        return text

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _asked(self, method: str, path: str, form: str) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", "Accept-Encoding: gzip"]
        if self._cookie:
            lines.append(f"Cookie: {self._cookie}")
        if path in self._etags:
            lines.append(f"If-None-Match: {self._etags[path]}")
        if method == "POST":
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}"]
        writer.write("\r\n".join([*lines, "", form]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        status = int(head.split(" ", 2)[1])
        body = await reader.readexactly(int(headers.get("content-length", "0"))) if status != 304 else b""
        if "set-cookie" in headers:
            self._cookie = headers["set-cookie"].partition(";")[0]
        if "etag" in headers and status == 200:
            self._etags[path] = headers["etag"]
        if headers.get("connection") == "close":
            self.close()
        return status, body if status != 303 else headers["location"].encode()


@dataclass
class Load:
    """What is asked of one server, and for how long."""

    port: int
    clients: int
    seconds: float
    think_s: float
    taxa: list[int]
    jobs: list[int] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    refused: int = 0
    """Jobs for which there was no room: the queue was full."""
    lag_s: list[float] = field(default_factory=list)

    async def run(self) -> None:
        end = time.perf_counter() + self.seconds
        fillers = [self._fill(end, number) for number in range(_FILLERS)]
        clients = [self._browse(end, random.Random(number)) for number in range(self.clients)]
        await asyncio.gather(self._lag(end), *fillers, *clients)

    async def _browse(self, end: float, chance: random.Random) -> None:
        client = Client(self.port, self.seen)
        await asyncio.sleep(chance.random() * min(self.think_s, self.seconds / 2))  # people do not come all at once
        while time.perf_counter() < end:
            kind = chance.choices(list(_PAGES), list(_PAGES.values()))[0]
            if kind == "home":
                await client.page(kind, "/")
            elif kind == "typing":
                await client.get(kind, f"/find.json?q={chance.choice(_TYPED)}".replace(" ", "+"))
            elif kind == "find":
                await client.page(kind, f"/find?q={chance.choice(_TYPED)}".replace(" ", "+"))
            elif kind == "taxon":
                text = await client.page(kind, f"/taxa/{chance.choice(self.taxa)}")
                self.pictures += re.findall(r'"/pictures/([0-9a-f]{10})"', text)[: 50 * (len(self.pictures) < 500)]
            elif kind == "picture" and self.pictures:
                await client.page(kind, f"/pictures/{chance.choice(self.pictures)}")
            elif kind == "job" and self.jobs:
                await client.page(kind, f"/jobs/{chance.choice(self.jobs)}")
            await asyncio.sleep(chance.expovariate(1 / self.think_s) if self.think_s else 0)
        client.close()

    async def _fill(self, end: float, number: int) -> None:
        """The queue is full, and remains so."""
        client, chance = Client(self.port, self.seen), random.Random(1000 + number)
        await client.get("home", "/")
        while time.perf_counter() < end:
            form = f"taxon={chance.choice(self.taxa)}&number=4&steps=25&seed={chance.randrange(1 << 40)}"
            try:
                status, where = await client.post("/make", form)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.seen.lost[f"make: {type(error).__name__}"] += 1
                client.close()
                await asyncio.sleep(0.1)
                continue
            if status == 303:
                self.jobs.append(int(where.rpartition("/")[2]))
            elif status == 429:
                self.refused += 1
                await asyncio.sleep(min(1.0, self.seconds / 4))
            else:
                self.seen.lost[f"make: {status}"] += 1
        client.close()

    async def _lag(self, end: float) -> None:
        while (start := time.perf_counter()) < end:
            await asyncio.sleep(0.02)
            self.lag_s.append(time.perf_counter() - start - 0.02)


def report(load: Load, memory: list[tuple[float, float]]) -> dict[str, Any]:
    """Figures in ms and MB. memory: (seconds since the start, MB of the process that serves)."""
    pages = [one for kind in _PAGES for one in load.seen.seconds[kind]]
    kinds = {kind: _figures(found) for kind, found in sorted(load.seen.seconds.items())}
    return {
        "clients": load.clients,
        "seconds": load.seconds,
        "think_s": load.think_s,
        "requests": sum(map(len, load.seen.seconds.values())),
        "requests_per_s": round(sum(map(len, load.seen.seconds.values())) / load.seconds, 1),
        "reading_pages": _figures(pages),
        "kinds": kinds,
        "lag": _figures(load.lag_s),
        "lost": dict(load.seen.lost),
        "jobs_taken": len(load.jobs),
        "jobs_refused_since_full": load.refused,
        "memory": _memory(memory),
        "goal": f"p95 of reading pages up to {GOAL_P95_S * 1000:g} ms, nothing lost",
        "reached": bool(pages) and float(np.quantile(pages, 0.95)) <= GOAL_P95_S and not load.seen.lost,
    }


def _figures(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"number": 0}
    p50, p95, p99, most = (round(1000 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.95, 0.99, 1.0))
    return {"number": len(seconds), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": most}


def _memory(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Its growth is the slope over the second half, when all that is kept has been asked for."""
    if len(samples) < 4:
        return {"samples": samples}
    half = samples[len(samples) // 2 :]
    slope = float(np.polyfit([at for at, _ in half], [mb for _, mb in half], 1)[0]) * 60
    step = max(1, len(samples) // 20)
    return {
        "first_mb": samples[0][1],
        "last_mb": samples[-1][1],
        "most_mb": max(mb for _, mb in samples),
        "growth_of_second_half_mb_per_minute": round(slope, 3),
        "samples": [(round(at), mb) for at, mb in samples[::step]],
    }


@contextmanager
def served(model: str, base: str | None, store: Path) -> Iterator[tuple[psutil.Process, int]]:
    """`taxadiffusion serve` on a free port, as a process of its own."""
    command = [sys.executable, "-c", "from taxadiffusion.cli import main; main()", "serve", model, "--port", "0"]
    command += ["--base", base] if base else []
    process = subprocess.Popen([*command, "--store", str(store)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if found := re.match(r"http://127\.0\.0\.1:(\d+) ", line):
                yield psutil.Process(process.pid), int(found[1])
                return
        raise SystemExit(f"serve ended with {process.wait()}")
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


async def measure(load: Load, process: psutil.Process) -> dict[str, Any]:
    """Browse for as long as the load says, and watch the memory of the process that serves."""
    memory: list[tuple[float, float]] = []

    async def watch() -> None:
        start = time.perf_counter()
        while True:
            memory.append((time.perf_counter() - start, round(process.memory_info().rss / 1e6, 1)))
            await asyncio.sleep(min(_SAMPLE_S, load.seconds / 5))

    watching = asyncio.create_task(watch())
    await load.run()
    watching.cancel()
    return report(load, memory)


async def taxa_of(port: int) -> list[int]:
    """The numbers of all taxa that are served."""
    client = Client(port, Seen())
    _, body = await client.get("tree.json", "/tree.json")
    client.close()
    return [int(number) for number in json.loads(body)["ids"] if number != "all"]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="reef-fish")
    parser.add_argument("--base", help="as serve takes it")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--think-s", type=float, default=2.0, help="mean pause of a client between two pages; 0: none")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args(words)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(args.model, args.base, Path(folder) / "served") as (process, port),
    ):

        async def all_of_it() -> dict[str, Any]:
            load = Load(port, args.clients, 60 * args.minutes, args.think_s, await taxa_of(port))
            return await measure(load, process)

        found = {"cores": os.cpu_count(), "load_before": os.getloadavg()} | asyncio.run(all_of_it())
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
