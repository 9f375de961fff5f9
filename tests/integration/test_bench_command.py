"""`llmrs bench` against a real server, a broken one and none."""

from __future__ import annotations

import json

import pytest

from tests.backends.services import shapes
from tests.backends.services.misbehaving import says
from tests.backends.services.wire import head, serve
from tests.processes import Server, free_port, run


def test_it_reports_what_it_measured(server: Server) -> None:
    done = run("bench", f"{server.url}/v1", "--clients", "4", "--seconds", "2", "--texts", "3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["faults"] == {}
    assert report["requests"] > 10
    assert report["texts_per_second"] == pytest.approx(3 * report["requests_per_second"])
    latency = report["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    # A text is 16 common words and two special tokens.
    assert 16 * 3 < report["tokens_per_second"] / report["requests_per_second"] < 22 * 3


def test_people_get_a_table(server: Server) -> None:
    done = run("bench", server.url, "--clients", "2", "--seconds", "1", "--encoding", "float")
    assert done.returncode == 0
    assert "requests/s" in done.stdout
    assert "p99 ms" in done.stdout


def test_faults_are_counted_and_fail_the_command() -> None:
    short = b'{"object":"list","data":[],"model":"m"}'
    for behave, fault in (
        (says(head(500, 0)), "HTTP 500"),
        (says(head(200, len(short)) + short), "wrong number of vectors"),
        (says(head(200, 5) + b"hello"), "not an embeddings answer"),
    ):
        with serve(behave) as service:
            done = run("bench", service.url, "--clients", "2", "--seconds", "1", "--json")
            assert done.returncode == 1
            assert fault in json.loads(done.stdout)["faults"]


def test_a_model_name_is_asked_for() -> None:
    with serve(shapes.openai()) as service:
        done = run("bench", service.url, "--model", "org/m", "--clients", "1", "--seconds", "1")
        assert done.returncode == 0, done.stdout
        assert all(request.json["model"] == "org/m" for request in service.posts())


def test_nobody_there_and_no_address() -> None:
    done = run("bench", f"http://127.0.0.1:{free_port()}", "--clients", "2", "--seconds", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["requests"] == 0
    assert "ConnectionRefusedError" in json.loads(done.stdout)["faults"]
    for url in ("localhost:3000", "ftp://x"):
        refused = run("bench", url)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
