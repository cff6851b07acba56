"""Answers as they are sent: pages, and files that a browser need not ask for twice."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256
from importlib import resources

from fastapi import Request, Response

from taxadiffusion.web.pages import Rendered

_KINDS = {
    "page.js": "text/javascript",
    "tree.js": "text/javascript",
    "style.css": "text/css",
    "tree.css": "text/css",
    "plotly.js": "text/javascript",
}


class Static:
    """Scripts and styles, ours and plotly's: read, packed and named by their content before anybody asks."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, bytes, str]] = {}
        for name in _KINDS:
            plain = _read(name)
            self._files[name] = plain, gzip.compress(plain, 6), sha256(plain).hexdigest()[:16]

    def __call__(self, request: Request, name: str) -> Response | None:
        """None where there is none of the name."""
        if name not in self._files:
            return None
        plain, packed, etag = self._files[name]
        can_unpack = "gzip" in request.headers.get("accept-encoding", "")
        answer = unchanging(request, packed if can_unpack else plain, _KINDS[name], etag + "-gzip" * can_unpack)
        answer.headers["cache-control"] = "max-age=3600"
        answer.headers["vary"] = "accept-encoding"
        if can_unpack and answer.status_code == 200:
            answer.headers["content-encoding"] = "gzip"
        return answer


def _read(name: str) -> bytes:
    if name == "plotly.js":
        from plotly.offline import get_plotlyjs

        return str(get_plotlyjs()).encode()
    return resources.files(__package__).joinpath(name).read_bytes()


def rendered(request: Request, page: Rendered, kind: str = "text/html") -> Response:
    """Or the word that the visitor's copy still is what it was."""
    headers = {"cache-control": "private, no-cache", "etag": page.etag}
    if request.headers.get("if-none-match") == page.etag:
        return Response(status_code=304, headers=headers)
    return Response(page.body, media_type=kind, headers=headers)


def unchanging(request: Request, content: bytes, kind: str, etag: str) -> Response:
    """What is the same for as long as there is such a name. etag: without quotes."""
    headers = {"cache-control": "private, max-age=86400", "etag": f'"{etag}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def html_answer(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html", headers={"cache-control": "no-store"})


def json_answer(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers={"cache-control": "no-store"})
