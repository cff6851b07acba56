"""Laws of the guard: who is answered, and what a browser may do with the answer."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from taxadiffusion.web.guard import COOKIE, Guard, Message, Receive, Scope, Send
from taxadiffusion.web.limits import Limits


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who asks, and repeats the body."""
    message: Message = await receive() if scope["method"] == "POST" else {"body": b""}
    await PlainTextResponse(f"{scope['state']['client']} {len(message['body'])}")(scope, receive, send)


def client(host: str = "127.0.0.1", names: tuple[str, ...] = ()) -> TestClient:
    return TestClient(Guard(echo, host, names, Limits(body_bytes=100)), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8000", 200),
        ("fish.museum.org", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421),
        ("192.168.1.5:8000", 421),
        ("localhost@evil.example", 421), ("evil.example:8000", 421),
    ],
)  # fmt: skip
def test_a_strange_host_is_not_answered(host: str, status: int) -> None:
    assert client(names=("fish.museum.org",)).get("/", headers={"host": host}).status_code == status


def test_who_listens_everywhere_answers_to_addresses_but_to_no_strange_name() -> None:
    everywhere = client("0.0.0.0")
    assert everywhere.get("/", headers={"host": "192.168.1.5:8000"}).status_code == 200
    assert everywhere.get("/", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_a_form_of_another_site_is_not_taken(headers: dict[str, str], status: int) -> None:
    assert client().post("/", content=b"x", headers=headers).status_code == status


def test_a_large_body_is_not_taken_with_or_without_its_length() -> None:
    assert client().post("/", content=b"x" * 101).status_code == 413
    assert client().post("/", content=(b"x" * 50 for _ in range(3))).status_code == 413
    assert client().post("/", content=b"x", headers={"content-length": "9" * 5000}).status_code == 413
    assert client().post("/", content=b"x" * 100).text.endswith(" 100")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(method: str) -> None:
    assert client().request(method, "/").status_code == 405


def test_a_visitor_keeps_their_name_and_nobody_can_make_one_up() -> None:
    visitor = client()
    visitor.get("/")
    name = visitor.get("/").text
    assert not name.startswith("address")
    assert "set-cookie" not in visitor.get("/").headers
    assert visitor.post("/", content=b"").text == name
    made_up = visitor.cookies[COOKIE].partition(".")[0] + ".0000"
    fresh = client()
    assert fresh.post("/", content=b"", headers={"cookie": f"{COOKIE}={made_up}"}).text.startswith("address")
    assert fresh.post("/", content=b"", headers={"cookie": f"{COOKIE}=é.é".encode()}).text.startswith("address")


def test_every_answer_forbids_foreign_and_inline_scripts() -> None:
    for answer in (client().get("/"), client().get("/", headers={"host": "evil.example"})):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
