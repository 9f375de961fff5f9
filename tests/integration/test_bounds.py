"""Memory of a real server whose clients send large bodies and do not end them."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
import requests

from tests.processes import Server, llmrs, wait_until

MIB = 1 << 20
SENT = 4 * MIB - 1000
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def resident(server: Server) -> int:
    """MiB of memory that the serving process has."""
    status = Path(f"/proc/{server.worker_pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def upload(stack: contextlib.ExitStack, server: Server, framing: bytes) -> None:
    """Send nearly 4 MiB, without their last bytes; the connection is the stack's to close."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
    with contextlib.suppress(ConnectionError):  # it may be refused before it is through
        connection.sendall(HEAD + framing + b"\r\n" + b" " * SENT)


def post(server: Server, size: int) -> requests.Response:
    data = json.dumps({"input": "x"}).encode().ljust(size)
    headers = {"Content-Type": "application/json"}
    return requests.post(f"{server.url}/v1/embeddings", data=data, headers=headers, timeout=30)


@pytest.mark.chooses_worker_class
@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
@pytest.mark.parametrize("framing", [b"Content-Length: 4194304\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_unfinished_uploads_take_no_more_than_payload_memory(worker_class: str, framing: bytes) -> None:
    chunked = b"chunked" in framing
    if chunked:
        framing += b"\r\n400000"  # the size of the one chunk that never ends
    with llmrs(PAYLOAD_LIMIT=str(4 * MIB), PAYLOAD_MEMORY=str(16 * MIB), WORKER_CLASS=worker_class) as server:
        assert post(server, 2 * MIB).status_code == 200
        before = resident(server)
        with contextlib.ExitStack() as uploads:
            for _ in range(40):
                upload(uploads, server, framing)

            def full() -> bool:
                """Uploads that were refused at the same moment leave room together: others take it."""
                if post(server, 2 * MIB).status_code == 503:
                    return True
                upload(uploads, server, framing)
                return False

            wait_until(full, 60, server)
            answer = post(server, 2 * MIB)
            assert answer.json()["error"]["code"] == "payload_memory_full"
            assert answer.headers["retry-after"] == "1"
            assert post(server, 60_000).status_code == 200
            # 160 MiB were sent; 16 may be held, each connection holds a little, the allocator rounds.
            assert resident(server) - before < 64
        wait_until(lambda: post(server, 3 * MIB).status_code == 200, 60, server)
        assert "Traceback" not in server.log
