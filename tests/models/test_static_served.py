"""A static model by every way into the service."""

from __future__ import annotations

import json
import os
import shlex

import numpy as np
import pytest
import requests

from llmrs.backends import open_engine_client
from llmrs.backends.engine_client import EngineClient
from llmrs.backends.local import LocalBackend
from llmrs.config import load
from llmrs.models.wordtable import MOST_TOKENS
from tests.models.makers import make_static
from tests.processes import ROOT, llmrs, run

WIDTH = 16
WORDS = {"hello": 30, "world": 31}  # the tokenizer's ids, see makers.make_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_static(tmp_path_factory.mktemp("models") / "static", WIDTH)


def post(server, **body):
    answer = requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return np.array([row["embedding"] for row in found["data"]], np.float32), found["usage"]["total_tokens"]


def expected(made, *words):
    mean = made.table[[WORDS[word] for word in words]].mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_over_http(made):
    with llmrs(MODEL_PATH=str(made.folder), ALLOW_ANY_DIMENSIONS="true") as server:
        found, tokens = post(server, input=["hello", "", "hello world", "   "])
        assert tokens == 3
        np.testing.assert_allclose(found[0], expected(made, "hello"), atol=1e-6)
        np.testing.assert_allclose(found[2], expected(made, "hello", "world"), atol=1e-6)
        assert not found[1].any()
        assert not found[3].any()
        cut, _ = post(server, input="hello world", dimensions=5)
        assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)
        long, tokens = post(server, input="hello " * MOST_TOKENS)  # on a thread
        assert tokens == MOST_TOKENS
        sums = made.table[WORDS["hello"]] * np.ones((MOST_TOKENS, 1), np.float32)
        same = np.cumsum(sums, axis=0)[-1]  # one after the other, in float32, as it is computed
        np.testing.assert_allclose(long[0], same / np.linalg.norm(same), atol=1e-6)
        model = requests.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]
        assert (model["dimensions"], model["max_input_tokens"]) == (WIDTH, MOST_TOKENS)


def test_with_several_processes_each_computes_itself(made):
    config = load({"model_path": str(made.folder)}, environ={}, path=os.devnull)
    backend = open_engine_client(config, "unix:/nowhere")
    assert isinstance(backend, LocalBackend)
    backend.close()
    other = open_engine_client(load({}, environ={}, path=os.devnull), "unix:/nowhere")
    assert isinstance(other, EngineClient)
    other.close()
    with llmrs(MODEL_PATH=str(made.folder), WORKER_CLASS="llmrs", PROCESSES="2") as server:
        found, _ = post(server, input=["hello world", ""])
    np.testing.assert_allclose(found[0], expected(made, "hello", "world"), atol=1e-6)
    assert not found[1].any()


def test_the_command_of_the_documentation(made):
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "./models/static" in line)
    program, *arguments = shlex.split(line.replace("./models/static", str(made.folder)))
    assert program == "llmrs"
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    rows = np.array([json.loads(row) for row in done.stdout.splitlines()])
    np.testing.assert_allclose(rows, [expected(made, "hello", "world"), np.zeros(WIDTH)], atol=1e-6)
