"""Laws of what strangers send: each is refused as what it is; nothing fails, and nothing is read, written or run."""

from __future__ import annotations

import logging
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from taxadiffusion.web import connection, guard
from taxadiffusion.web.limits import LIMITS
from tests.hostile_requests import FORM, HOST, SECRET, Hostile, form, hostile_requests, request
from tests.real_server import RealServer, real_server, send
from tests.site_taxa import CORNUTUS, served_model

ALL = list(hostile_requests())
FAMILIES = sorted({hostile.family for hostile in ALL})
ID = served_model().ids

_ACTS = {
    "open", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen",
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.listdir",
    "os.scandir", "glob.glob", "shutil.rmtree", "shutil.copyfile", "tempfile.mkstemp", "ctypes.dlopen",
    "pickle.find_class", "socket.connect",
}  # fmt: skip
_SEEN: list[str] | None = None
_MINE: set[int] = set()
"""Threads that send: what they do is ours."""


def _note(event: str, args: tuple[object, ...]) -> None:
    if _SEEN is not None and event in _ACTS and threading.get_ident() not in _MINE:
        _SEEN.append(f"{event} {args[0]!r}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """What the server does with files and processes meanwhile."""
    global _SEEN
    if not getattr(watched, "hooked", False):
        sys.addaudithook(_note)  # for ever: it cannot be taken away
        watched.hooked = True  # type: ignore[attr-defined]
    _MINE.add(threading.get_ident())
    _SEEN = seen = []
    try:
        yield seen
    finally:
        _SEEN = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("secret", "secret.png", "passwd"):
        (folder / name).write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch, real_server(folder, replace(LIMITS, streams=3)) as found:
        patch.setattr(guard, "_BODY_S", 2.0)  # some promise more than they send
        (found.store / "secret").write_text(SECRET)
        for target in ("/", "/taxa/6", "/find?q=zanklus", "/nothing", "/tree.json"):  # templates are read once
            send(found.port, to(found, request(target)))
        yield found


def to(server: RealServer, asked: bytes) -> bytes:
    """With this server's port in the place of the usual one."""
    return asked.replace(HOST.encode(), f"127.0.0.1:{server.port}".encode())


def status(answer: bytes) -> int:
    """0 where there was none."""
    head = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(head[1]) if head else 0


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.parent.rglob("*"))}


def test_there_are_three_hundred_of_them_and_no_family_is_small() -> None:
    assert len({hostile.request for hostile in ALL}) >= 300
    assert min(Counter(hostile.family for hostile in ALL).values()) >= 10


@pytest.mark.parametrize("family", FAMILIES)
def test_each_is_refused_as_what_it_is(server: RealServer, family: str, caplog: pytest.LogCaptureFixture) -> None:
    before = files(server.store)
    asked = [one for one in ALL if one.family == family]
    senders = ThreadPoolExecutor(8, initializer=lambda: _MINE.add(threading.get_ident()))
    with caplog.at_level(logging.ERROR), senders, watched() as acts:
        found = list(senders.map(lambda one: send(server.port, to(server, one.request)), asked))
    answers = list(zip(asked, found, strict=True))
    wrong = [(told(one), status(answer)) for one, answer in answers if status(answer) not in one.status]
    assert wrong == []
    for one, answer in answers:
        harmless(one, answer)
    assert acts == []
    assert files(server.store) == before
    assert [record.getMessage() for record in caplog.records] == []
    assert server.workshop.view(1) is None, "nothing is to be drawn"
    assert status(send(server.port, to(server, request("/")))) == 200


def told(one: Hostile) -> str:
    return repr(one.request[:80])


def harmless(one: Hostile, answer: bytes) -> None:
    """Nothing secret, no header of theirs, no markup of theirs, and no word of our insides."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert SECRET.encode() not in answer, told(one)
    assert b"Traceback" not in answer, told(one)
    assert b"root:" not in answer, told(one)
    assert not re.search(rb"(?i)^(set-cookie: lines|x:)", head, re.MULTILINE), told(one)
    if b"text/html" in head:
        for markup in (b"<script>", b"<b>", b"<svg", b"onmouseover='", b'onerror="', b"' onerror='", b"<!--", b"49"):
            assert markup not in body.replace(b"&#39;", b"\0"), (told(one), markup)
        assert set(re.findall(rb'<script src="([^"]*)"', body)) <= {
            b"/static/page.js", b"/static/plotly.js", b"/static/tree.js"
        }  # fmt: skip


def test_a_name_that_turns_the_text_round_turns_none_but_itself(server: RealServer) -> None:
    (taxon,) = (number for lineage, number in ID.items() if lineage.label.startswith("\u202e"))
    body = send(server.port, to(server, request(f"/taxa/{taxon}"))).decode()
    shown = [at.start() for at in re.finditer("\u202e", body.partition("<body>")[2])]
    assert shown
    assert all(body.partition("<body>")[2][:at].endswith("<bdi>") for at in shown)


def test_a_flood_of_forms_is_told_that_there_is_no_room_and_readers_go_on(server: RealServer) -> None:
    taxon = ID[CORNUTUS]
    answers: list[int] = []

    def ask(seed: int) -> None:
        body = f"taxon={taxon}&number=16&steps=100&seed={100 * seed}"
        answers.append(status(send(server.port, to(server, form(body)))))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(60)]
    for thread in threads:
        thread.start()
    assert status(send(server.port, to(server, request("/")))) == 200
    for thread in threads:
        thread.join()
    assert Counter(answers) == {303: LIMITS.per_client, 429: 60 - LIMITS.per_client}
    watching = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(9)]
    for one in watching:
        one.sendall(to(server, request("/jobs/2/events")))
    assert Counter(status(one.recv(4096)) for one in watching) == {200: 3, 503: 6}
    for one in watching:
        one.close()
    address = f"127.0.0.1:{server.port}"
    for number in range(1, 5):  # of who has no cookie, by their address
        cancel = form("", target=f"/jobs/{number}/cancel").replace(HOST.encode(), address.encode())
        assert status(send(server.port, cancel)) == 303
    until(lambda: all(job is not None and job.state == "cancelled" for job in map(server.workshop.view, range(1, 5))))
    until(lambda: status(send_part(server, to(server, request("/jobs/2/events")))) == 200)


def send_part(server: RealServer, asked: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 10) as one:
        one.sendall(asked)
        return one.recv(4096)


def until(true: Callable[[], bool], patience_s: float = 30) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    "part",
    [b"", b"G", b"GET / HTTP/1.1\r\nHost: ", b"POST /make HTTP/1.1\r\n"],
)
def test_a_head_that_does_not_come_ends_the_connection(
    server: RealServer, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    """However slowly it drips."""
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), 5) as slow:
        slow.sendall(part)
        end = time.monotonic() + 5
        try:
            slow.settimeout(0.1)
            while time.monotonic() < end:
                try:
                    if slow.recv(100) == b"":
                        break
                except TimeoutError:
                    slow.sendall(b"a" if part else b"")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() < end


def test_a_body_that_does_not_come_is_refused_and_half_a_form_makes_nothing(
    server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_BODY_S", 0.3)
    head = to(server, request("/make", "POST", f"Content-Type: {FORM}\r\nContent-Length: 30\r\n"))
    assert status(send(server.port, head + b"taxon=6&")) == 408
    before = (
        max(job.number for job in [server.workshop.view(n) for n in range(1, 100)] if job) if False else _last(server)
    )
    monkeypatch.setattr(guard, "_BODY_S", 5.0)
    with socket.create_connection(("127.0.0.1", server.port), 5) as gone:
        gone.sendall(head + f"taxon={ID[CORNUTUS]}".encode())
        time.sleep(0.1)
    time.sleep(0.3)
    assert _last(server) == before


def _last(server: RealServer) -> int:
    return max((number for number in range(1, 100) if server.workshop.view(number)), default=0)


def test_more_connections_than_there_is_room_for_are_told_so(server: RealServer) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(200)]
    assert status(send(server.port, to(server, request("/")))) == 200
    for one in held:
        one.close()
    assert status(send(server.port, to(server, request("/")))) == 200
