"""Goal 15: nothing in the whole suite reaches for the network; every attempt of every process is written down."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.harness import Plan, Recorder

_VARIABLE = "TAXADIFFUSION_FAULTS_NETWORK_LOG"
_LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "")


def watch_network() -> Path:
    """From now on, in this process and its children: note every connection or look-up that leaves this machine.

    Audit hooks cannot be removed and are inherited by forks; interpreters that are started call this themselves.
    """
    log = os.environ.setdefault(_VARIABLE, str(Path(tempfile.gettempdir()) / f"faults-network-{os.getpid()}.log"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
            return
        if event in ("socket.connect", "socket.sendto") and arguments[0].family == socket.AF_UNIX:
            return
        target = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments
        host = target[0] if isinstance(target, tuple) else target
        if isinstance(host, bytes):
            host = host.decode(errors="replace")
        if host is None or host in _LOOPBACK or host == socket.gethostname():
            return
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{event} {target!r}\n".encode())
        os.close(descriptor)

    sys.addaudithook(hook)
    return Path(log)


def no_network(_: Plan) -> Recorder:
    """Read the log of this whole run; it is the last goal. First prove that the watch works at all."""
    recorder = Recorder(15, 2)
    log = Path(os.environ[_VARIABLE])
    attempts = log.read_text().splitlines() if log.exists() else []
    with recorder.case("all goals of this run", 0, "0 outbound attempts") as case:
        case.observed = f"{len(attempts)} attempts"
        assert not attempts, attempts[:5]
    with recorder.case("the watch itself", 0, "an attempt is noted"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # a documentation address; a datagram socket sends nothing
        assert log.exists()
        assert "192.0.2.1" in log.read_text()
        log.unlink()
    return recorder
