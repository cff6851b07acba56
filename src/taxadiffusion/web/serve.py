"""Everything a page needs, opened in the order in which it can fail cheaply, and served until it is stopped."""

from __future__ import annotations

import errno
import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.pictures.trusted import USUAL_ERROR, Trusted
from taxadiffusion.taxonomy import OtherName, names_beside, read_other_names
from taxadiffusion.web.connection import PatientProtocol
from taxadiffusion.web.evaluated import found_evaluation, read_evaluation
from taxadiffusion.web.find import Finder
from taxadiffusion.web.guard import AsgiApp, Guard
from taxadiffusion.web.limits import LIMITS, Limits
from taxadiffusion.web.looking import Looking
from taxadiffusion.web.pages import Pages
from taxadiffusion.web.photographs import Photographs
from taxadiffusion.web.served import ServedModel
from taxadiffusion.web.site import Site
from taxadiffusion.web.store import Store
from taxadiffusion.web.twins import Twins
from taxadiffusion.web.worker import Opening
from taxadiffusion.web.workshop import Workshop

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Beside:
    """What is shown beside the model's own pictures; each may be absent."""

    data: Path | None = None
    """The prepared data set that taught it."""
    root: Path | None = None
    evaluation: Path | None = None
    other_names: Path | None = None
    extractor: str | None = None
    """Of what looks for copies; as `evaluate` takes it, with its weights."""
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where it listens, and further names by which people call it."""

    host: str = "127.0.0.1"
    port: int = 8000
    names: Sequence[str] = ()

    @property
    def called(self) -> str:
        """The host as a browser on this machine asks for it."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host


@contextmanager
def opened(
    opening: Opening, beside: Beside, address: Address, tell: Tell, limits: Limits = LIMITS
) -> Iterator[tuple[AsgiApp, Workshop]]:
    """The application with its worker, for as long as the context lasts. Raises what cannot be opened."""
    if beside.extractor is not None and beside.data is None:
        raise SettingsError("--extractor looks for copies of training photographs; say where they are with --data")
    dataset = PreparedDataset.open(beside.data, beside.root) if beside.data is not None else None
    workshop = Workshop(opening, limits)
    tell(f"opening {opening.model}")
    try:
        facts = workshop.open()
        model = ServedModel(opening.model, facts, opening.base)
        store = Store(opening.store, facts.ranks, facts.sha256, limits)
        try:
            photographs = Photographs(dataset, model, limits) if dataset is not None else None
            own = names_beside(Path(facts.folder)) if facts.folder else None
            for names in (own, beside.other_names):
                model.called(_other_names(names, model, tell))
            evaluation = beside.evaluation or found_evaluation(opening.model)
            evaluated = read_evaluation(evaluation, model) if evaluation is not None else None
            twins = None
            if dataset is not None and beside.extractor is not None:
                base = opening.base or facts.base
                where = (dataset.path, dataset.root, model.ranks)
                what = (base, beside.extractor, beside.weights)
                twins = Twins(Looking(*where, *what, opening.store))
            trusted = Trusted.beside(Path(opening.model), facts.sha256)
            depths = trusted.depths(USUAL_ERROR) if trusted is not None else {}
            pages = Pages(model, store, limits, photographs, evaluated, twins, depths)
            site = Site(model, store, workshop, Finder(model), pages, limits)
            workshop.begin(store)
            if twins is not None:
                twins.begin()
            try:
                yield Guard(site.app(photographs), address.host, address.names, limits), workshop
            finally:
                if twins is not None:
                    twins.close()
        finally:
            store.close()
    finally:
        workshop.close()


def serve(opening: Opening, beside: Beside, address: Address, tell: Tell, *, in_browser: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises `SettingsError` for an address that cannot be had.

    in_browser: the page is opened there as soon as it is served.
    """
    listens = listening(address)
    try:
        with opened(opening, beside, address, tell) as (app, workshop):
            port = listens.getsockname()[1]
            url = f"http://{address.called}:{port}"
            tell(f"{url} (process {workshop.worker_pid} draws; Ctrl-C ends it)")
            if in_browser:  # the connection waits until it is answered; a browser may keep its caller waiting
                threading.Thread(target=_open, args=(url, tell), daemon=True).start()
            uvicorn.Server(config(app)).run(sockets=[listens])
    finally:
        listens.close()


def config(app: AsgiApp) -> uvicorn.Config:
    """How uvicorn is to serve: by our protocol alone, no WebSockets, nobody's word for another address."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        h11_max_incomplete_event_size=2 * LIMITS.head_bytes,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=1024,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )


def listening(address: Address) -> socket.socket:
    """Bound, but not yet answered. Raises `SettingsError` for an address that cannot be had, saying what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With the protocol named, asyncio sends at once (TCP_NODELAY); else a page's head waits 40 ms for its body.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.host, address.port))
        found.listen(256)
    except (OSError, OverflowError) as error:
        found.close()
        raise SettingsError(_why_not(address, error)) from error
    return found


def _why_not(address: Address, error: OSError | OverflowError) -> str:
    where = f"--host {address.host} --port {address.port}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            f"{where}: that port is taken, perhaps by a page that runs already: open http://{address.called}:{address.port}"
            f", or give another, such as --port {address.port % 65535 + 1} (0: any that is free)"
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: the system does not let you have that port; give one from 1024 on"
    return f"{where}: cannot be had: {error}"


def _open(url: str, tell: Tell) -> None:
    """In the browser of the desktop; one that would take the terminal is opened only where $BROWSER asks for it."""
    try:
        browser = webbrowser.get()
        takes_the_terminal = type(browser) is webbrowser.GenericBrowser and not os.environ.get("BROWSER")
        shown = not takes_the_terminal and browser.open(url)
    except webbrowser.Error:
        shown = False
    if not shown:
        tell(f"no browser could be opened from here; open {url} yourself")


def _other_names(path: Path | None, model: ServedModel, tell: Tell) -> tuple[OtherName, ...]:
    if path is None:
        return ()
    names, elsewhere = read_other_names(path, model.taxonomy)
    tell(f"{len(names)} other names of its taxa in {path}; {elsewhere} rows are of other taxa")
    return names
