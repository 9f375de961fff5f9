"""A real nginx in front, with kept-alive upstream connections, as an operator would run it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import requests

from tests.processes import Server, free_port, listens, llmrs, start, tool

CONF = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 16m;
  upstream llmrs {{
    server {upstream};
    keepalive 64;
    keepalive_timeout 60s;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://llmrs;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_read_timeout 65s;
    }}
  }}
}}
"""


def nginx(upstream: str, folder: Path, port: int = 0) -> Iterator[Server]:
    program = tool("nginx")
    port = port or free_port()
    conf = folder / "nginx.conf"
    # Started by root, nginx would work as another user, who may not write into the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(CONF.format(user=user, folder=folder, upstream=upstream, port=port))

    def ready(proxy: Server) -> bool:
        proxy.url = f"http://127.0.0.1:{port}"
        return listens(port)

    with start([program, "-e", str(folder / "error.log"), "-c", str(conf)], ready, cwd=folder) as proxy:
        yield proxy


@pytest.fixture
def front(server: Server, tmp_path: Path) -> Iterator[Server]:
    yield from nginx(f"127.0.0.1:{server.port}", tmp_path)


def established(port: int) -> int:
    """Connections that the server at this port holds open."""
    lines = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True).stdout.splitlines()[1:]
    local = f":{port:04X}"
    return sum(line.split()[1].endswith(local) and line.split()[3] == "01" for line in lines)


def test_many_clients_through_nginx(front: Server, server: Server) -> None:
    def ask(i: int) -> int:
        client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="any", max_retries=0)
        return len(client.embeddings.create(model="all-MiniLM-L6-v2", input=[f"text {i}"] * (i % 3 + 1)).data)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(100))) == [i % 3 + 1 for i in range(100)]


def test_upstream_connections_are_kept_and_used_again(front: Server, server: Server) -> None:
    with requests.Session() as session:
        for i in range(50):
            answer = session.post(f"{front.url}/v1/embeddings", json={"input": f"text {i}"}, timeout=30)
            assert answer.status_code == 200
            assert answer.headers["x-request-id"]
    before = established(server.port)
    for i in range(50):
        requests.post(
            f"{front.url}/v1/embeddings", json={"input": f"text {i}"}, timeout=30
        ).raise_for_status()
    assert established(server.port) <= before + 1


def test_errors_pass_through_with_their_bodies(front: Server) -> None:
    answer = requests.post(f"{front.url}/v1/embeddings", json={"input": []}, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"
    assert requests.get(f"{front.url}/nothing", timeout=30).json()["error"]["code"] == "unknown_url"


def test_large_bodies_pass_through(front: Server) -> None:
    texts = ["word " * 200] * 500
    answer = requests.post(f"{front.url}/v1/embeddings", json={"input": texts[:100]}, timeout=60)
    assert answer.status_code == 200, answer.text[:300]
    assert len(answer.json()["data"]) == 100


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    command = [sys.executable, "-m", "llmrs", "serve", "--host", f"unix:{path}"]
    with llmrs(command=command), contextlib.contextmanager(nginx)(f"unix:{path}", tmp_path) as proxy:
        answer = requests.post(f"{proxy.url}/v1/embeddings", json={"input": "x"}, timeout=30)
        assert answer.status_code == 200
