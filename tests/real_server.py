"""Pages behind a real port, drawn by a worker without torch."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from taxadiffusion.web import workshop
from taxadiffusion.web.limits import LIMITS, Limits
from taxadiffusion.web.serve import Address, Beside, config, listening, opened
from taxadiffusion.web.worker import Opening
from taxadiffusion.web.workshop import Workshop
from tests import fake_processes

NOTHING = Beside()


@dataclass(frozen=True)
class RealServer:
    """Where it listens; its workshop and its store lie in this process."""

    port: int
    workshop: Workshop
    store: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def real_server(folder: Path, limits: Limits = LIMITS, beside: Beside = NOTHING) -> Iterator[RealServer]:
    """As `serve` would run it, but in a thread; its log goes to pytest's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "work", fake_processes.draw)
        opening, address = Opening("fish", None, "cpu", folder / "served"), Address(port=0)
        listens = listening(address)
        with opened(opening, beside, address, lambda _: None, limits) as (app, shop):
            settings = config(app)
            settings.log_config = None
            settings.configure_logging()
            server = uvicorn.Server(settings)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]}, daemon=True)
            thread.start()
            yield RealServer(listens.getsockname()[1], shop, opening.store)
            server.should_exit = True
            thread.join(10)


def send(port: int, request: bytes, patience_s: float = 10.0) -> bytes:
    """What is answered until the server closes the connection, or says nothing for so long."""
    with socket.create_connection(("127.0.0.1", port), patience_s) as connection:
        answer = b""
        try:
            connection.sendall(request)
            while part := connection.recv(1 << 16):
                answer += part
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return answer
