"""The torch extra, in a process that finds PyTorch and sentence-transformers behind its own packages.

They are those of the oracles' environment, `make .venv-oracles/installed`: real_torch.py compares vectors
there, and a real server computes a model that no graph is built for.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests

from tests.models.makers import Made
from tests.processes import ROOT, Server, llmrs, packages, wait_until

REFERENCES = Path(__file__).parent / "references"

TESTS = 31
"""How many there are in real_torch.py."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Variables of a process that finds the libraries."""
    return packages(".venv-oracles")


def test_the_engine(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "tests/models/real_torch.py"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(rf"^{TESTS} passed", done.stdout, re.MULTILINE), done.stdout


def vectors(server: Server, texts: list[str], model: str) -> np.ndarray:
    body = {"model": model, "input": texts, "encoding_format": "base64", "truncate": "end"}
    answer = requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    rows = [base64.b64decode(each["embedding"]) for each in answer.json()["data"]]
    return np.array([np.frombuffer(row, np.float32) for row in rows])


def test_a_server(environment: dict[str, str], tiny: Made, tmp_path: Path) -> None:
    """The default model's vectors over HTTP; and a second model, loaded while the server runs."""
    about = json.loads((REFERENCES / "all-MiniLM-L6-v2.json").read_text(encoding="utf-8"))
    expected = np.load(REFERENCES / "all-MiniLM-L6-v2.npy")
    config = tmp_path / "config.toml"
    first = '[[models]]\nmodel_name = "default"\n'
    second = f'[[models]]\nmodel_name = "tiny"\nmodel_path = "{tiny.folder}"\n'
    config.write_text(first)
    settings = {name: environment[name] for name in ("PYTHONPATH",)}
    with llmrs(cwd=tmp_path, ENGINE="torch", INFERENCE_THREADS="1", OFFLINE="true", **settings) as server:
        assert "f32, 1 x 1 threads" in server.log
        found = vectors(server, about["texts"], "default")
        assert (found * expected).sum(axis=1).min() >= 0.99999
        config.write_text(first + second)
        wait_until(
            lambda: len(requests.get(f"{server.url}/v1/models", timeout=5).json()["data"]) == 2, 60, server
        )
        text = np.array([2, 30, 31, 3])  # [CLS] hello world [SEP]
        row = tiny.oracle(text)
        assert vectors(server, ["hello world"], "tiny")[0] @ (row / np.linalg.norm(row)) >= 0.99999
        assert server.stop() == 0
