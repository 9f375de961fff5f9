"""The file that `model_file` names is the one that every way into the service computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import requests
from safetensors.numpy import load_file, save_file

from llmrs import Embedder
from llmrs.backends.local import LocalBackend
from tests.models.ir import export_ir
from tests.models.makers import make_model
from tests.processes import llmrs, run

XML = "openvino/openvino_model.xml"
TEXTS = ["hello world", "a", "a b c d e f g h i j k l m n o p", "query : hello", "b c"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder that holds two models: the weights of one, and what was exported of another."""
    other = make_model(tmp_path_factory.mktemp("other"), seed=1)
    made = make_model(tmp_path_factory.mktemp("models") / "two")
    export_ir(other.folder, made.folder / XML)
    return made.folder, made.oracle, other.oracle


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors_of(oracle, folder, texts=TEXTS):
    with Embedder(str(folder), threads=1) as embedder:
        prepared = embedder._backend.prepare(texts)
    return unit(np.stack([oracle(each.payload) for each in prepared]))


def test_in_process(two):
    folder, built, exported = two
    for settings, oracle in (({}, built), ({"model_file": XML}, exported), ({"engine": "openvino"}, built)):
        with Embedder(str(folder), dtype="f32", threads=1, **settings) as embedder:
            np.testing.assert_allclose(embedder.embed(TEXTS), vectors_of(oracle, folder), atol=1e-5)


def test_on_the_command_line(two):
    folder, _, exported = two
    done = run("embed", "--model", str(folder), "--model-file", XML, "--dtype", "f32", *TEXTS)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(rows, vectors_of(exported, folder), atol=1e-5)
    done = run("models", MODEL_PATH=str(folder), MODEL_FILE="onnx/none.onnx")
    assert (done.returncode, "has no such file" in done.stderr) == (3, True)


def test_served_by_several_processes(two):
    """Of which some know the tokenizer, and one computes."""
    folder, _, exported = two
    env = {"MODEL_PATH": str(folder), "MODEL_FILE": XML, "DTYPE": "f32", "PROCESSES": "2"}
    with llmrs(WORKER_CLASS="llmrs", **env) as server:
        answer = requests.post(f"{server.url}/v1/embeddings", json={"input": TEXTS}, timeout=60)
    rows = [row["embedding"] for row in answer.json()["data"]]
    np.testing.assert_allclose(rows, vectors_of(exported, folder), atol=1e-5)


def test_a_text_that_is_not_finite_spoils_no_other(tmp_path):
    made = make_model(tmp_path / "model")
    tensors = load_file(made.folder / "model.safetensors")
    poison = 4  # the id of "a"
    tensors["embeddings.word_embeddings.weight"][poison] = np.nan
    save_file(tensors, made.folder / "model.safetensors")
    export_ir(made.folder, made.folder / XML)
    backend = LocalBackend(str(made.folder), dtype="f32", threads=1, model_file=XML)
    assert backend.description.startswith("openvino_model.xml, f32")
    prepared = backend.prepare(["b c d", "a b c", "hello", "d a"])
    matrix = backend.embed(prepared, timeout=60).matrix
    assert np.isfinite(matrix).all(axis=1).tolist() == [True, False, True, False]
    for index in (0, 2):
        np.testing.assert_allclose(matrix[index], made.oracle(prepared[index].payload), rtol=1e-3, atol=1e-5)
