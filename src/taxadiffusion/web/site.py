"""Addresses → pages. Every fault of a visitor is a page that says what is wrong, with a status from 400 on."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from urllib.parse import parse_qsl, quote

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, StreamingResponse

from taxadiffusion.errors import DataError, TaxaDiffusionError
from taxadiffusion.web.answers import Static, html_answer, json_answer, rendered, unchanging
from taxadiffusion.web.ask import read_ask
from taxadiffusion.web.find import Finder, Hit
from taxadiffusion.web.guard import Receive, Scope, Send
from taxadiffusion.web.jobs import BusyError, JobView
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.memory import Memory
from taxadiffusion.web.pages import Pages
from taxadiffusion.web.photographs import Photographs
from taxadiffusion.web.served import ServedModel
from taxadiffusion.web.store import Kept, Store, archive
from taxadiffusion.web.workshop import Workshop

_ID = re.compile(r"[0-9a-f]{10}")
_NUM_MAKING_SMALL = 2
"""Photographs at a time: who reads goes first."""
_WATCH_S, _BEAT_S = 0.25, 15.0


class Site:
    """The handlers of one model's pages."""

    def __init__(
        self, model: ServedModel, store: Store, workshop: Workshop, finder: Finder, pages: Pages, limits: Limits
    ) -> None:
        self._model, self._store, self._workshop = model, store, workshop
        self._finder, self._pages, self._limits = finder, pages, limits
        self._num_streams, self._static = 0, Static()
        self._png: Memory[bytes] = Memory(limits.picture_bytes)
        self._making_small = CapacityLimiter(_NUM_MAKING_SMALL)

    def app(self, photographs: Photographs | None) -> FastAPI:
        """All addresses; without a schema of them, which would need scripts of others to be read."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        self._photographs = photographs
        for path, handler in {
            "/": self.home,
            "/find": self.find,
            "/find.json": self.find_json,
            "/tree.json": self.tree,
            "/taxa/{number}": self.taxon,
            "/jobs/{number}": self.job,
            "/jobs/{number}/pictures.zip": self.archive,
            "/pictures/{picture}.png": self.png,
            "/pictures/{picture}": self.picture,
            "/photographs/{number}.jpg": self.photograph,
            "/static/{name}": self.static,
        }.items():
            app.add_route(path, handler, methods=["GET", "HEAD"])
        app.add_route("/jobs/{number}/events", self.events, methods=["GET"])
        app.add_route("/make", self.make, methods=["POST"])
        app.add_route("/jobs/{number}/cancel", self.cancel, methods=["POST"])
        app.add_exception_handler(HTTPException, self.refused)
        app.add_exception_handler(TaxaDiffusionError, self.at_fault)
        return app

    # reading

    async def home(self, request: Request) -> Response:
        return rendered(request, self._pages.home())

    async def find(self, request: Request) -> Response:
        query = self._query(request)
        return rendered(request, self._pages.results(query, await self._found(query)))

    async def find_json(self, request: Request) -> Response:
        hits = await self._found(self._query(request))
        return json_answer({"taxa": [self._hit(hit) for hit in hits]})

    async def tree(self, request: Request) -> Response:
        return rendered(request, self._pages.tree(), "application/json")

    async def taxon(self, request: Request) -> Response:
        return rendered(request, self._pages.taxon(_number(request)))

    async def picture(self, request: Request) -> Response:
        return rendered(request, self._pages.picture(self._kept(request)))

    async def png(self, request: Request) -> Response:
        kept = self._kept(request)
        packed = self._png.get(kept.id)
        if packed is None:
            try:
                packed = await run_in_threadpool(kept.path.read_bytes)
            except OSError:
                raise HTTPException(404, "That picture is not kept any more; have it made again.") from None
            self._png.put(kept.id, packed, len(packed))
        answer = unchanging(request, packed, "image/png", kept.id)
        if request.query_params.get("download") == "1":
            answer.headers["content-disposition"] = f"attachment; filename*=utf-8''{quote(kept.path.name)}"
        return answer

    async def photograph(self, request: Request) -> Response:
        small = None
        if self._photographs is not None:
            row = _number(request)
            small = await to_thread.run_sync(self._photographs.small, row, limiter=self._making_small)
        if small is None:
            raise HTTPException(404, "There is no such photograph.")
        return unchanging(request, small, "image/jpeg", sha256(small).hexdigest()[:16])

    async def static(self, request: Request) -> Response:
        answer = self._static(request, request.path_params["name"])
        if answer is None:
            raise HTTPException(404, "There is no such file.")
        return answer

    # making

    async def make(self, request: Request) -> Response:
        """A job in the queue, and the way to its page."""
        kind = request.headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0]
        if kind.strip().lower() != "application/x-www-form-urlencoded":
            raise HTTPException(415, "Send the fields as a form does (application/x-www-form-urlencoded).")
        fields = parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=None)
        form = dict(fields)
        if len(form) != len(fields):
            raise HTTPException(400, "A field of the form is given twice.")
        job = self._workshop.submit(request.state.client, read_ask(form, self._model, self._limits))
        return RedirectResponse(f"/jobs/{job.number}", status_code=303)

    async def job(self, request: Request) -> Response:
        job = self._job(request)
        own = self._workshop.is_of(job.number, request.state.client)
        return html_answer(self._pages.job(job, self._workshop.ask(job.number), own=own))

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        if not self._workshop.cancel(job.number, request.state.client):
            raise HTTPException(403, "Only who asked for a job can cancel it.")
        return RedirectResponse(f"/jobs/{job.number}", status_code=303)

    async def archive(self, request: Request) -> Response:
        kept = [one for picture in self._job(request).pictures if (one := self._store.get(picture)) is not None]
        if not kept:
            raise HTTPException(404, "This job has no picture yet.")
        try:
            packed = await run_in_threadpool(archive, kept)
        except OSError:
            raise HTTPException(404, "A picture of this job is not kept any more; have it made again.") from None
        name = f"job-{_number(request)}.zip"
        disposition = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(packed, media_type="application/zip", headers=disposition)

    async def events(self, request: Request) -> Response:
        """Server-sent events: the job whenever it changes, until it is over."""
        job = self._job(request)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self._num_streams >= self._limits.streams:
            raise HTTPException(503, "Too many pages are watching; reload this one now and then.")
        return _Watched(self, job.number)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """As long as a page watches, it is counted."""
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1

    async def told(self, number: int) -> AsyncIterator[str]:
        """The events of a job."""
        before, said = "", time.monotonic()
        while (job := self._workshop.view(number)) is not None:
            now = json.dumps(_told_job(job))
            if now != before:
                yield f"data: {now}\n\n"
                before, said = now, time.monotonic()
            elif time.monotonic() > said + _BEAT_S:
                yield ": still there\n\n"
                said = time.monotonic()
            if job.state not in ("waiting", "drawing"):
                return
            await asyncio.sleep(_WATCH_S)

    # faults

    async def refused(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for it alone"
        words = error.detail if error.status_code != 404 or error.detail != "Not Found" else "There is no such page."
        return html_answer(self._pages.fault(error.status_code, words), error.status_code)

    async def at_fault(self, _: Request, error: Exception) -> Response:
        """What a visitor can repair: 404 where they ask for what is not there, 429 where there is no room."""
        busy = isinstance(error, BusyError)
        status = 429 if busy else 404 if isinstance(error, DataError) else 400
        answer = html_answer(self._pages.fault(status, str(error)), status)
        if busy:
            answer.headers["retry-after"] = "30"
        return answer

    # parts

    async def _found(self, query: str) -> tuple[Hit, ...]:
        """A new question is looked up aside, that others go on meanwhile."""
        known = self._finder.known(query)
        return known if known is not None else await run_in_threadpool(self._finder, query)

    def _query(self, request: Request) -> str:
        query = request.query_params.get("q", "")
        if len(query) > self._limits.letters:
            raise HTTPException(400, f"A name has at most {self._limits.letters} letters.")
        return query

    def _kept(self, request: Request) -> Kept:
        picture = request.path_params["picture"]
        kept = self._store.get(picture) if _ID.fullmatch(picture) else None
        if kept is None:
            raise HTTPException(404, "There is no such picture, or it is not kept any more.")
        return kept

    def _job(self, request: Request) -> JobView:
        job = self._workshop.view(_number(request))
        if job is None:
            raise HTTPException(404, "There is no such job, or it is long over.")
        return job

    def _hit(self, hit: Hit) -> dict[str, object]:
        above = [self._model.lineages[taxon].label for taxon in self._model.path(hit.taxon)[:-1]]
        found = "" if hit.name == hit.label else hit.name
        return {
            "href": f"/taxa/{hit.taxon}", "id": hit.taxon, "label": hit.label, "rank": hit.rank, "found": found,
            "how": hit.how, "above": " › ".join(above),
        }  # fmt: skip


class _Watched(StreamingResponse):
    """A job's events; counted from the moment at which there was room, so that a flood finds none."""

    def __init__(self, site: Site, number: int) -> None:
        super().__init__(site.told(number), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI asks."""
        with self._site.watching():
            await super().__call__(scope, receive, send)


def _told_job(job: JobView) -> dict[str, object]:
    return {
        "state": job.state, "place": job.place, "fraction": round(job.fraction, 3), "words": job.words,
        "pictures": list(job.pictures),
    }  # fmt: skip


def _number(request: Request) -> int:
    """Of the address. Raises `HTTPException` where it is none."""
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404, "There is no such page.")
    return int(text)
