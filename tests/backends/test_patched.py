"""The same backend under gevent, where the server runs it; the services stay in this process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .services import shapes
from .services.misbehaving import DRIPPING, closes, hangs, once_per_connection, resets
from .services.wire import Behaviour, head, serve

PROGRAM = Path(__file__).with_name("patched.py")


def run(scenario: str, url: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), scenario, url], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def after_discovery(behave: Behaviour) -> Behaviour:
    """`behave` for all batches but the probe that finds the protocol out."""

    def either(connection, request):
        known = request.method == "GET" or request.json["input"] == ["hello"]
        return (shapes.openai() if known else behave)(connection, request)

    return either


@pytest.mark.parametrize("name", ["hangs", "drips its head", "drips its body"])
def test_the_deadline_holds(name):
    with serve(after_discovery(DRIPPING[name])) as service:
        run("deadline", service.url)


@pytest.mark.parametrize("then", [closes, resets()], ids=["FIN", "RST"])
def test_stale_connections_are_replaced(then):
    with serve(once_per_connection(shapes.openai(), then)) as service:
        run("stale", service.url)


def test_a_killed_call_leaves_no_half_read_connection():
    def behave(connection, request):
        if request.method == "POST" and request.json["input"] == ["hang"]:
            connection.send(head(200, 100) + b" " * 50)
            return hangs(connection, request)
        return shapes.openai()(connection, request)

    with serve(behave) as service:
        run("killed", service.url)
        killed = {r.connection for r in service.posts() if r.json["input"] == ["hang"]}
        assert len(killed) == 3
        assert all(r.connection not in killed for r in service.posts() if r.json["input"] == ["b"])


def test_greenlets_work_side_by_side():
    def behave(connection, request):
        time.sleep(0.2 if request.method == "POST" else 0)
        return shapes.openai()(connection, request)

    with serve(behave) as service:
        run("together", service.url)
        assert sum(request.json["input"] == ["hello"] for request in service.posts()) == 1


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run("refused", f"http://127.0.0.1:{port}")
