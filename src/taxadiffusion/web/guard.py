"""What stands before every page: who may ask, how much, and what a browser may do with the answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any

from taxadiffusion.web.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "visitor"
_BODY_S = 10.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WILDCARDS = ("0.0.0.0", "::", "")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class _TooLargeError(Exception):
    """A body beyond the limit."""


class _GoneError(Exception):
    """Whoever asked went away before all of it had come."""


class Guard:
    """Refuses a strange Host (DNS rebinding), a strange Origin (forged forms) and a large body; names the visitor.

    `scope["state"]["client"]` is a visitor's name, from a signed cookie, or their address where they send none.
    """

    def __init__(self, app: AsgiApp, host: str, names: Sequence[str], limits: Limits) -> None:
        """host: where the server listens. names: further names by which people call it."""
        self._app, self._limits = app, limits
        self._any_address = host in _WILDCARDS
        self._names = {name.lower() for name in (*_LOOPBACK, host, *names) if name}
        self._key = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI asks."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            await _refuse(send, *refusal)
            return
        name, fresh = self._client(headers.get("cookie", ""))
        address = (scope.get("client") or ("unknown",))[0]
        scope.setdefault("state", {})["client"] = f"address {address}" if fresh else name
        if scope["method"] == "POST":
            try:
                receive = _replayed(await asyncio.wait_for(self._body(receive), _BODY_S), receive)
            except _TooLargeError:
                await _refuse(send, 413, "The request is too large.")
                return
            except asyncio.TimeoutError:
                await _refuse(send, 408, "The request did not come in time.")
                return
            except _GoneError:  # what came of a form is not what was asked for
                return
            fresh = None
        await self._app(scope, receive, _with_headers(send, fresh))

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and words where the request is not answered, judged by its head."""
        target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if target + sum(len(key) + len(value) for key, value in scope["headers"]) > self._limits.head_bytes:
            return 431, "The request is too large."
        if sum(key == b"host" for key, _ in scope["headers"]) != 1 or not self.knows(headers["host"]):
            return 421, "This server does not answer under that name. Start it with --allow-host."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are answered."
        if scope["method"] == "POST" and not _is_own(headers):
            return 403, "A form of another site is not taken."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= self._limits.body_bytes):
            return 413, "The request is too large."
        if scope["method"] != "POST" and (int(length) or "transfer-encoding" in headers):
            return 400, "A request to read has no body."
        return None

    def knows(self, host: str) -> bool:
        """Whether people may call this server so (a Host header, with or without port)."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.strip("[]").lower().rstrip(".")
        return name in self._names or (self._any_address and _is_address(name))

    def _client(self, cookies: str) -> tuple[str, str | None]:
        """The visitor's name, and the cookie to set where they have none of ours."""
        try:
            given = SimpleCookie(cookies[:4096]).get(COOKIE)
        except CookieError:
            given = None
        name, _, signature = (given.value if given else "").partition(".")
        if name and name.isascii() and signature.isascii() and hmac.compare_digest(signature, self._signature(name)):
            return name, None
        name = secrets.token_hex(8)
        return name, f"{name}.{self._signature(name)}"

    def _signature(self, name: str) -> str:
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()

    async def _body(self, receive: Receive) -> bytes:
        """All of it: what is small is best read before anything else is done."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            body += bytes(message.get("body", b""))
            if len(body) > self._limits.body_bytes:
                raise _TooLargeError
            if not message.get("more_body", False):
                return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def received() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return received


def _with_headers(send: Send, cookie: str | None) -> Send:
    extra = [(b"set-cookie", f"{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict".encode())] if cookie else []

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS, *extra]}
        await send(message)

    return sent


def _is_own(headers: Mapping[str, str]) -> bool:
    """Whether a form comes from our own page, or from no browser at all."""
    if "origin" in headers:
        return headers["origin"].lower() in (f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https"))
    return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, words: str) -> None:
    """And end the connection: what else comes of the request is not waited for."""
    body = f"{words}\n".encode()
    own = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "connection": "close"}
    headers = [*((key.encode(), value.encode()) for key, value in own.items()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
