"""A stand-in for the hub's HTTP interface: repositories are made, files taken (in the commit or by LFS).

Of https://huggingface.co/docs/hub/api and Git LFS's batch API: what `huggingface_hub` asks of it to commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecretsecretsecret"


@dataclass
class LocalHub:
    """What it holds: by "kind/owner/name" the files of the repository. forbidden: owners for whom nobody may write."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    private: dict[str, bool] = field(default_factory=dict)
    refuses_commits: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)
    by_lfs: list[str] = field(default_factory=list)


class _Answers(BaseHTTPRequestHandler):
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        data = self._body()
        oid = self.path.rpartition("/")[2]
        good = hashlib.sha256(data).hexdigest() == oid
        if good:
            self.hub.stored[oid] = data
        self._answer(200 if good else 400, {})

    def do_POST(self) -> None:
        data, path = self._body(), self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(data))
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self._lfs_object(wanted) for wanted in json.loads(data)["objects"]]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/preupload/" in path:
            files = [self._mode(file) for file in json.loads(data)["files"]]
            self._answer(200, {"files": files})
        elif "/commit/" in path:
            self._commit(path, data)
        else:
            self._answer(404, {"error": f"no {path}"})

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or "me"
        name = f"{asked.get('type') or 'model'}/{owner}/{asked['name']}"
        if owner in self.hub.forbidden:
            self._answer(403, {"error": f"You don't have the rights to create a {asked.get('type')} under {owner}"})
        elif name in self.hub.repositories:
            self._answer(
                409, {"error": "You already created this repo", "url": f"{self.hub.url}/{owner}/{asked['name']}"}
            )
        else:
            self.hub.repositories[name] = {}
            self.hub.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            prefix = "datasets/" if asked.get("type") == "dataset" else ""
            self._answer(200, {"url": f"{self.hub.url}/{prefix}{owner}/{asked['name']}"})

    def _lfs_object(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/store/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href, "header": {}}}}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith((".safetensors", ".png"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def _commit(self, path: str, data: bytes) -> None:
        if self.hub.refuses_commits:
            self._answer(500, {"error": "out of order"})
            return
        _, _, kind, owner, name, *_ = path.split("/")
        repository = self.hub.repositories[f"{kind.removesuffix('s')}/{owner}/{name}"]
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository[value["path"]] = self.hub.stored[value["oid"]]
                self.hub.by_lfs.append(value["path"])
        self._answer(200, {"commitUrl": f"{self.hub.url}/{owner}/{name}/commit/1", "commitOid": "1" * 40})


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """On a free port of the loopback."""
    hub = LocalHub()
    handler = type("Answers", (_Answers,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
