"""A server with the few routes of the Hugging Face hub that downloading a model uses."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"the only commit").hexdigest()


class HubServer:
    """Serves `folder` as one repository, on loopback.

    Attributes:
        requests: method and path of every request, in order.
        tokens: the Authorization headers that came.
        refuse: status and hub error code that every request is answered with; None to serve.
        cut: name of a file whose body stops half way, once.
    """

    def __init__(self, folder: Path, model_id: str) -> None:
        self.folder = folder
        self.model_id = model_id
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuse: tuple[int, str] | None = None
        self.cut: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        marker = f"/resolve/{COMMIT}/"
        return {
            line.partition(marker)[2] for line in self.requests if line.startswith("GET") and marker in line
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        self.tokens.add(request.headers["Authorization"])
        if self.refuse is not None:
            status, code = self.refuse
            _send(request, status, b"", {"X-Error-Code": code, "X-Error-Message": "no"})
        elif path in (f"/api/models/{self.model_id}/revision/{name}" for name in ("main", "v1")):
            _send_json(request, {"id": self.model_id, "sha": COMMIT, "siblings": []})
        elif path.startswith(f"/api/models/{self.model_id}/revision/"):
            _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path == f"/api/models/{self.model_id}/tree/{COMMIT}":
            _send_json(
                request, [self._entry(file) for file in sorted(self.folder.rglob("*")) if file.is_file()]
            )
        elif path.startswith(f"/{self.model_id}/resolve/{COMMIT}/"):
            self._send_file(request, path.partition(f"/resolve/{COMMIT}/")[2])
        else:
            _send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def _entry(self, file: Path) -> dict[str, object]:
        name = file.relative_to(self.folder).as_posix()
        return {"type": "file", "path": name, "size": file.stat().st_size, "oid": _tag(file)}

    def _send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        body = (self.folder / name).read_bytes()
        headers = {"ETag": f'"{_tag(self.folder / name)}"', "X-Repo-Commit": COMMIT}
        if name == self.cut and request.command == "GET":
            self.cut = None
            request.close_connection = True
            _send(request, 200, body[: len(body) // 2], {**headers, "Content-Length": str(len(body))})
            return
        start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        _send(request, 206 if start else 200, body[start:], headers)


def _tag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _send_json(request: BaseHTTPRequestHandler, value: object) -> None:
    _send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)
