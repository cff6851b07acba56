"""Laws of what is sent: the same page is not sent twice, another one is, and what is packed unpacks to what it was."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

import pytest

from taxadiffusion.web.ask import Ask
from tests.hostile_requests import request
from tests.real_server import RealServer, real_server, send
from tests.site_taxa import CLARKII, CORNUTUS, served_model

ID = served_model().ids


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("answers")) as found:
        yield found


def got(server: RealServer, path: str, headers: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    answer = send(server.port, request(path, headers=f"Host: 127.0.0.1:{server.port}\r\n{headers}"))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def drawn(server: RealServer, ask: Ask) -> str:
    number, end = server.workshop.submit("the test", ask).number, time.monotonic() + 60
    while (job := server.workshop.view(number)) is None or job.state != "done":
        assert time.monotonic() < end
        time.sleep(0.02)
    return job.pictures[0]


def test_a_page_is_sent_anew_where_a_picture_came_that_it_shows_and_only_there(server: RealServer) -> None:
    paths = [f"/taxa/{ID[CLARKII]}", f"/taxa/{ID[CORNUTUS]}", f"/taxa/{ID[CORNUTUS.truncated('family')]}", "/tree.json"]
    tags = {path: got(server, path)[1]["etag"] for path in paths}
    for path, tag in tags.items():
        status, headers, body = got(server, path, f"If-None-Match: {tag}\r\n")
        assert (status, headers["etag"], body) == (304, tag, b"")
    picture = drawn(server, Ask(CORNUTUS, steps=1))
    assert [got(server, path, f"If-None-Match: {tags[path]}\r\n")[0] for path in paths] == [304, 200, 304, 200]
    drawn(server, Ask(CORNUTUS.truncated("family"), steps=1))  # a part of the species' page too
    assert [got(server, path, f"If-None-Match: {tags[path]}\r\n")[0] for path in paths] == [304, 200, 200, 200]
    assert picture in got(server, paths[1])[2].decode()


def test_a_picture_is_the_file_and_known_by_its_id(server: RealServer) -> None:
    picture = drawn(server, Ask(CLARKII, seed=4, steps=1))
    (file,) = server.store.glob(f"*-{picture}.png")
    for _ in range(2):  # from the disk, then from memory
        status, headers, body = got(server, f"/pictures/{picture}.png")
        assert (status, body, headers["etag"]) == (200, file.read_bytes(), f'"{picture}"')
    assert got(server, f"/pictures/{picture}.png", f'If-None-Match: "{picture}"\r\n')[0] == 304
    assert file.name in got(server, f"/pictures/{picture}.png?download=1")[1]["content-disposition"]
    file.unlink()
    other = drawn(server, Ask(CLARKII, seed=5, steps=1))
    next(server.store.glob(f"*-{other}.png")).unlink()
    assert got(server, f"/pictures/{other}.png")[0] == 404


@pytest.mark.parametrize("name", ["page.js", "style.css", "plotly.js"])
def test_what_is_packed_unpacks_to_what_it_was(server: RealServer, name: str) -> None:
    _, plain, body = got(server, f"/static/{name}")
    _, packed, small = got(server, f"/static/{name}", "Accept-Encoding: gzip\r\n")
    assert packed["content-encoding"] == "gzip"
    assert "content-encoding" not in plain
    assert gzip.decompress(small) == body
    assert len(small) < len(body)
    assert plain["etag"] != packed["etag"]
    assert plain["vary"] == packed["vary"] == "accept-encoding"
