"""What strangers send to a server, by family: requests as bytes, each with the answers that are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import quote

from taxadiffusion.web.limits import LIMITS
from tests.site_taxa import HOSTILE

HOST = "127.0.0.1:8000"
FORM = "application/x-www-form-urlencoded"
SECRET = "nobody-is-to-read-this"
"""What lies in files beside the store."""


@dataclass(frozen=True)
class Hostile:
    """status: of the right answers; 0: the connection is closed without one."""

    family: str
    request: bytes
    status: tuple[int, ...]


def request(target: str | bytes, method: str = "GET", headers: str | bytes = "", body: bytes = b"") -> bytes:
    """A whole request. headers: lines that end with \\r\\n; a Host of their own takes the place of ours."""
    lines = headers.encode("latin-1") if isinstance(headers, str) else headers
    path = target if isinstance(target, bytes) else target.encode("latin-1")
    own = b"" if b"\r\nhost:" in b"\r\n" + lines.lower() else f"Host: {HOST}\r\n".encode()
    if body and b"content-length:" not in lines.lower() and b"transfer-encoding:" not in lines.lower():
        lines += f"Content-Length: {len(body)}\r\n".encode()
    return method.encode() + b" " + path + b" HTTP/1.1\r\n" + own + b"Connection: close\r\n" + lines + b"\r\n" + body


def form(body: bytes | str, headers: str = f"Content-Type: {FORM}\r\n", target: str = "/make") -> bytes:
    return request(target, "POST", headers, body.encode() if isinstance(body, str) else body)


def hostile_requests() -> Iterator[Hostile]:
    """All of them."""
    for family, found in (
        ("traversal", _traversal()), ("sizes", _sizes()), ("forms", _forms()), ("encodings", _encodings()),
        ("methods", _methods()), ("numbers", _numbers()), ("markup", _markup()), ("origins", _origins()),
        ("cookies", _cookies()), ("protocol", _protocol()), ("addresses", _addresses()),
    ):  # fmt: skip
        for asked, *status in found:
            yield Hostile(family, asked, tuple(status))


_Found = Iterator[tuple[Any, ...]]
"""Bytes, then the right answers."""


def _traversal() -> _Found:
    ups = (
        "../secret", "../../secret", "..%2fsecret", "%2e%2e%2fsecret", "%2e%2e/%2e%2e/secret", "..%5csecret",
        "..\\secret", "....//secret", "%252e%252e%252fsecret", "%c0%ae%c0%ae/secret", "..;/secret", "/etc/passwd",
        "%2fetc%2fpasswd", "C:%5cWindows%5cwin.ini", "file:%2f%2f%2fetc%2fpasswd", "secret%00", ".lock", "~root",
    )  # fmt: skip
    for folder, up in product(("/static/", "/pictures/", "/"), ups):
        yield request(folder + up), 404
    for up in ups[:6]:
        yield request(f"/pictures/{up}.png"), 404
        yield request(f"/photographs/{up}.jpg"), 404
        yield request(f"/jobs/{up}/pictures.zip"), 404


def _sizes() -> _Found:
    large = LIMITS.body_bytes + 1
    yield form(b"x" * large), 413
    yield form(b"taxon=" + b"0" * large), 413
    for length in (str(large), "9" * 9, "9" * 400, "1e3"):
        yield request("/make", "POST", f"Content-Type: {FORM}\r\nContent-Length: {length}\r\n", b"taxon=6"), 413, 400
    for length in ("-1", "0x10", "1, 2", "", " ", "1 1", "+5"):
        yield request("/make", "POST", f"Content-Type: {FORM}\r\nContent-Length: {length}\r\n", b"taxon=6"), 400, 413
    chunks = b"".join(b"1000\r\n" + b"a" * 4096 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    yield request("/make", "POST", f"Content-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n", chunks), 413
    for size in (b"fffffffffffffffff", b"-1", b"zz", b""):
        body = size + b"\r\ntaxon=6\r\n0\r\n\r\n"
        yield request("/make", "POST", f"Content-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n", body), 400, 408
    for name, times in (("A", 70_000), ("Cookie", 70_000), ("Accept-Encoding", 70_000)):
        yield request("/", headers=f"{name}: {'a' * times}\r\n"), 400, 431
    yield request("/", headers="".join(f"X-{i}: {'a' * 50}\r\n" for i in range(2000))), 400, 431
    yield request("/" + "a" * 70_000), 400, 431
    yield request("/find?q=" + "a" * 70_000), 400, 431
    yield request("/", headers=f"A: {'a' * LIMITS.head_bytes}\r\n"), 431
    yield request("/find?q=" + "a" * LIMITS.head_bytes), 431
    yield request("/find?q=" + "a" * (LIMITS.letters + 1)), 400
    yield request("/find.json?q=" + "%41" * (LIMITS.letters + 1)), 400
    yield request("/find?" + "&".join(f"q{i}=1" for i in range(1000))), 200
    yield request("/", "GET", "Content-Length: 5\r\n", b"hello"), 400
    yield request("/", "GET", "Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), 400
    yield form("&".join(f"f{i}=1" for i in range(1500))), 400


def _forms() -> _Found:
    for body in (
        "", "taxon", "taxon=", "=6", "&&&&", "taxon=6&taxon=6", "taxon=6&colour=red", "taxon=6&__proto__=1",
        "taxon[]=6", "taxon=6;rm -rf /", "taxon=$(id)", "taxon=`id`", "taxon='; DROP TABLE taxa; --", "taxon={{7*7}}",
        "taxon=6&rank=__class__", "taxon=6&rank=phylum", "taxon=6&every=yes", "taxon=6&every=1&number=16",
        "taxon=6&towards=6x", "taxon=6&towards=16&every=1", "taxon=6&towards=4&rank=genus", "taxon\x00=6",
    ):  # fmt: skip
        yield form(body), 400
    yield form("taxon=6&towards=999"), 404
    yield form("taxon=999"), 404
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", "application/xml", "*/*", "a"):
        yield form('{"taxon": 6}', f"Content-Type: {kind}\r\n"), 415
    for body in ('{"taxon": 6', "[" * 5000, '{"taxon": 1e999}', "null", '"\\ud800"'):
        yield form(body), 400
        yield form(body, "Content-Type: application/json\r\n"), 415
    for target in ("/jobs/999/cancel", "/jobs/x/cancel", "/jobs/-1/cancel", f"/jobs/{'9' * 400}/cancel"):
        yield form("", target=target), 404
    for coding in ("gzip", "deflate", "br"):
        yield form("taxon=x", f"Content-Type: {FORM}\r\nContent-Encoding: {coding}\r\n"), 400
    yield form("taxon=x", f"Content-Type: {FORM}; charset=utf-16\r\n"), 400


def _encodings() -> _Found:
    for text in ("%", "%zz", "%u0041", "%ff", "%c3%28", "%ed%a0%80", "%f4%90%80%80", "%00", "%e2%80%ae", "%0d%0aX:1"):
        yield request(f"/{text}"), 404
        yield request(f"/taxa/{text}"), 404
        yield request(f"/find?q={text}"), 200
        yield request(f"/find.json?q={text}"), 200
        yield form(f"taxon={text}"), 400
    for raw in (b"\xff\xfe", b"\xc3\x28", b"\x00\x01", b"taxon=\xed\xa0\x80", "taxon=６".encode(), b"\xf0\x9f\x90"):
        yield form(raw), 400
    for raw in (b"/\xff", b"/\xc3\xa9", b"/a b", b"/\x00", b"/\t"):
        yield request(raw), 400


def _methods() -> _Found:
    for method in (
        "PUT",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "CONNECT",
        "PROPFIND",
        "get",
        "GETT",
        "PRI",
        "A" * 500,
    ):
        yield request("/", method), 405
    for target in ("/make", "/jobs/1/cancel"):
        yield request(target), 405
        yield request(target, "HEAD"), 405
    for target in ("/", "/find", "/tree.json", "/taxa/6", "/pictures/0000000000.png", "/static/page.js"):
        yield form("taxon=6", target=target), 405
    yield request("/jobs/1/events", "HEAD"), 404
    for target in ("/", "/taxa/6", "/find?q=zanclus", "/static/plotly.js", "/tree.json"):
        yield request(target, "HEAD"), 200


def _numbers() -> _Found:
    absurd = (
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "1.5",
        "0x1f",
        "1_0",
        "٣",
        "²",
        "9" * 400,
        "1e3",
        "--1",
        " ",
        "None",
    )
    for number in absurd:
        text = quote(number)
        if number.strip():
            yield request(f"/taxa/{text}"), 404
            yield request(f"/jobs/{text}"), 404
            yield form(f"taxon=6&towards={text}"), 400
        yield form(f"taxon={text}"), 400
        for field in ("number", "seed", "steps"):
            yield form(f"taxon=x&{field}={text}"), 400
            if number.strip():
                yield form(f"taxon=6&{field}={text}"), 400
    for number in ("nan", "inf", "-inf", "1e999", "1_0", "٣", "31", "-30.1", "0x1p3", "9" * 400, "1,5"):
        yield form(f"taxon=6&scale={quote(number)}"), 400
        yield form(f"taxon=6&towards=16&fraction={quote(number)}"), 400
    for field, number in (
        ("number", 17),
        ("number", 0),
        ("seed", 2**63),
        ("seed", 2**64),
        ("steps", 101),
        ("steps", 0),
    ):
        yield form(f"taxon=6&{field}={number}"), 400


def _markup() -> _Found:
    for text in (
        HOSTILE, "<svg onload=alert(1)>", "' onmouseover='x", "javascript:alert(1)", "</script><script>x", "{{7*7}}",
        "{% include '/etc/passwd' %}", "${7*7}", "<!--", "]]>", "&lt;script&gt;", "\u2028alert(1)", "\u202eevil",
        "\x00<b>",
    ):  # fmt: skip
        yield request("/find?q=" + quote(text)), 200
        yield request("/find.json?q=" + quote(text)), 200
        yield request("/" + quote(text, safe="")), 404
        yield form(f"taxon={quote(text)}"), 400
        yield form(f"{quote(text)}=1"), 400
    for taxon in range(18):
        yield request(f"/taxa/{taxon}"), 200
    yield request("/"), 200
    yield request("/tree.json"), 200


def _origins() -> _Found:
    for host in (
        "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "evil.example:8000", "192.168.1.5", "[::2]",
        "127.0.0.1:8000, evil.example", "127.0.0.1 evil.example", "0.0.0.0", "127.1", "2130706433", "localhost.evil",
    ):  # fmt: skip
        yield request("/", headers=f"Host: {host}\r\n"), 421, 400
        yield form("taxon=6", f"Content-Type: {FORM}\r\nHost: {host}\r\n"), 421, 400
    yield request("/", headers="Host: 127.0.0.1\r\nHost: evil.example\r\n"), 400, 421
    yield b"GET / HTTP/1.0\r\n\r\n", 421
    yield b"GET / HTTP/1.1\r\n\r\n", 400
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9000",
        "https://127.0.0.1:8000.evil",
        "file://",
        "",
    ):
        yield form("taxon=6", f"Content-Type: {FORM}\r\nOrigin: {origin}\r\n"), 403
    for site in ("cross-site", "same-site", "x"):
        yield form("taxon=6", f"Content-Type: {FORM}\r\nSec-Fetch-Site: {site}\r\n"), 403
    for name in ("X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-For", "Forwarded"):
        yield request("/nothing", headers=f"{name}: evil.example/static/page.js\r\n"), 404
    yield request("http://evil.example/"), 404
    yield request("//evil.example/taxa/6/"), 404
    yield request("/taxa/6/"), 404


def _cookies() -> _Found:
    for cookie in (
        "visitor=", "visitor=a.b", "visitor=.", "visitor=" + "a" * 5000, "visitor=é.é", 'visitor="a', "visitor=a;" * 99,
        "=x", ";;;;", "visitor=\\000.\\377", "a=" * 2000, "visitor=%00.%00", "$Version=1; visitor=x.y; $Path=/",
    ):  # fmt: skip
        yield request("/", headers=f"Cookie: {cookie}\r\n"), 200
    yield request("/", headers=b"Cookie: visitor=\xff\xfe.\xff\r\n"), 200


def _protocol() -> _Found:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    yield request("/jobs/1/events", headers=upgrade), 404
    yield request("/", headers=upgrade), 200
    yield request("/", headers="Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), 200
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 421
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400
    yield b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", 400, 200
    yield b"GET /\r\n\r\n", 400
    yield b"\r\n" * 50 + b"\x00" * 50 + b"\r\n\r\n", 400
    yield b"GET / HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n", 200, 400
    yield b"GET / HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n", 400
    yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n folded\r\nConnection: close\r\n\r\n", 400, 421
    yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nBad\x00Name: 1\r\n\r\n", 400
    yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nName: a\x00b\r\n\r\n", 400
    both = f"Content-Type: {FORM}\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n"
    yield request("/make", "POST", both, b"0\r\n\r\nGET /secret HTTP/1.1\r\n\r\n"), 400
    twice = f"Content-Type: {FORM}\r\nContent-Length: 7\r\nContent-Length: 8\r\n"
    yield request("/make", "POST", twice, b"taxon=6"), 400
    yield request("/make", "POST", f"Content-Type: {FORM}\r\nTransfer-Encoding: identity\r\n", b"taxon=6"), 400, 501
    yield (
        request("/make", "POST", f"Content-Type: {FORM}\r\nTransfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        400,
        501,
    )
    for span in (
        "bytes=0-",
        "bytes=-1",
        "bytes=5-1",
        "bytes=0-0,1-1,2-2",
        "bytes=" + "0-1," * 2000,
        "x=1",
        "bytes=a-b",
    ):
        yield request("/static/page.js", headers=f"Range: {span}\r\n"), 200
    for match in ("*", '"', 'W/"x"', "x" * 5000, '"a", "b"'):
        yield request("/taxa/6", headers=f"If-None-Match: {match}\r\n"), 200
    for accepted in ("gzip;q=0", "*", "br, gzip" * 500, "\x80"):
        yield request("/static/style.css", headers=f"Accept-Encoding: {accepted}\r\n"), 200
    yield form("taxon=x", f"Content-Type: {FORM}\r\nExpect: 100-continue\r\n"), 100, 400
    yield form("taxon=x", f"Content-Type: {FORM}\r\nExpect: nonsense\r\n"), 400, 417


def _addresses() -> _Found:
    for target in (
        "/docs", "/redoc", "/openapi.json", "/admin", "/.git/config", "/.env", "/metrics", "/wp-login.php", "/jobs",
        "/cgi-bin/sh", "/server-status", "/*", "/static", "/static/", "/static/site.py", "/static/page.js/",
        "/pictures/0000000000", "/pictures/0000000000.png", "/pictures/ZZZZZZZZZZ.png", "/photographs/0.jpg", "/taxa",
        "/jobs/1", "/jobs/1/pictures.zip", "/jobs/1/events", "/pictures/.png", "/photographs/.jpg", "/favicon.ico",
        "/pictures",
    ):  # fmt: skip
        yield request(target), 404
    yield request("*", "OPTIONS"), 405
    yield request("?"), 404, 400
    yield request("/?q=1#x"), 200
