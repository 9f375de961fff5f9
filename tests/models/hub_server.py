"""A server with the few routes of the Hugging Face hub that downloading a model uses, and its faults."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"the only commit").hexdigest()

LFS = (".safetensors", ".bin", ".onnx", ".onnx_data", ".model")
"""Endings of files that are kept in LFS, as large and binary ones are on the hub."""

BLOCK = 1 << 16


class HubServer:
    """Serves `folder` as one repository, on loopback.

    Attributes:
        requests: method and path of every request, in order.
        tokens: the Authorization headers that came.
        ranges: of each file that is sent, its name, the first byte and the number of bytes, in order.
        commits: of the branches and tags, by name.
        refuse: status and hub error code that every request is answered with; None to serve.
        failures: statuses that the next requests for a file's content are answered with.
        cut: name of a file whose body stops half way, once.
        stall: name of a file and a number of its bytes, after which nothing comes until `go_on` is set.
        damaged: how often the content of a file is sent with other bytes, by its name.
        entries: what is listed besides the files, or in place of them, by name.
        cdn: the address that files in LFS are redirected to; None: they are sent from here.
    """

    def __init__(self, folder: Path, model_id: str) -> None:
        self.folder = folder
        self.model_id = model_id
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.ranges: list[tuple[str, int, int]] = []
        self.commits = {"main": COMMIT, "v1": COMMIT}
        self.refuse: tuple[int, str] | None = None
        self.failures: list[int] = []
        self.cut: str | None = None
        self.stall: tuple[str, int] | None = None
        self.go_on = threading.Event()
        self.damaged: dict[str, int] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.cdn: str | None = None
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
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {
            line.partition("/resolve/")[2].partition("/")[2]
            for line in self.requests
            if line.startswith("GET") and "/resolve/" in line
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
        revision = path.partition(f"/api/models/{self.model_id}/revision/")[2]
        before, _, rest = path.partition("/resolve/")
        if self.refuse is not None:
            status, code = self.refuse
            _send(request, status, b"", {"X-Error-Code": code, "X-Error-Message": "no"})
        elif revision:
            self._send_listing(request, revision)
        elif path.startswith(f"/api/models/{self.model_id}/tree/"):
            files = [
                {"type": "file", "path": name, "oid": each["blobId"], **each} for name, each in self._files()
            ]
            _send_json(request, files)
        elif before == f"/{self.model_id}" and rest.partition("/")[0] in self.commits.values():
            self._send_file(request, rest.partition("/")[2])
        else:
            _send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def _send_listing(self, request: BaseHTTPRequestHandler, revision: str) -> None:
        commit = revision if revision in self.commits.values() else self.commits.get(revision)
        if commit is None:
            _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": name, **entry} for name, entry in self._files()]
        _send_json(request, {"id": self.model_id, "sha": commit, "siblings": siblings})

    def _files(self) -> list[tuple[str, dict[str, Any]]]:
        files = {
            file.relative_to(self.folder).as_posix(): _entry(file)
            for file in self.folder.rglob("*")
            if file.is_file()
        }
        return list({**files, **self.entries}.items())

    def _send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if self.failures:
            _send(request, self.failures.pop(0), b"", {})
            return
        if not (self.folder / name).is_file():
            _send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.cdn is not None and name.endswith(LFS):
            _send(request, 302, b"", {"Location": f"{self.cdn}{urlsplit(request.path).path}"})
            return
        body = (self.folder / name).read_bytes()
        if self.damaged.get(name, 0):
            self.damaged[name] -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{_checksum(self.folder / name)}"', "X-Repo-Commit": COMMIT}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send_body(request, name, body, start, headers)

    def _send_body(
        self, request: BaseHTTPRequestHandler, name: str, body: bytes, start: int, headers: dict[str, str]
    ) -> None:
        headers["Content-Length"] = str(len(body) - start)
        _send(request, 206 if start else 200, b"", headers)
        if request.command != "GET":
            return
        end = len(body)
        if name == self.cut:
            self.cut, end, request.close_connection = None, len(body) // 2, True
        self.ranges.append((name, start, end - start))
        stop = self.stall[1] if self.stall and self.stall[0] == name else end
        with suppress(OSError):  # it has gone
            request.wfile.write(body[start:stop])
            if stop < end:
                self.go_on.wait(60)
                request.wfile.write(body[max(start, stop) : end])


def _entry(file: Path) -> dict[str, Any]:
    """What the hub lists of a file."""
    size = file.stat().st_size
    entry: dict[str, Any] = {"size": size, "blobId": _git_checksum(file)}
    if file.name.endswith(LFS):
        digest = _checksum(file)
        # The two routes that list files call it differently.
        entry["lfs"] = {"sha256": digest, "oid": digest, "size": size, "pointerSize": 134}
    return entry


def _checksum(file: Path) -> str:
    if file.name.endswith(LFS):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return _git_checksum(file)


def _git_checksum(file: Path) -> str:
    """The name that `git hash-object` gives a file."""
    body = file.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(body), body)).hexdigest()


def _send_json(request: BaseHTTPRequestHandler, value: object) -> None:
    _send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)
