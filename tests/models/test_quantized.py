"""Quantized graphs give the same vectors on every CPU: those by the definitions of their operators.

Less capable CPUs are played by ONEDNN_MAX_CPU_ISA, which OpenVINO's kernels go by; it leaves a CPU that has
less as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from tests.models.oracles import run_oracle
from tests.models.test_families import cosines
from tests.processes import ROOT

STATIC = ("all", "signed", "channels", "matmul", "reduced", "pairs")
"""Those of quantized.py."""

INSTRUCTIONS = ("AVX2", "AVX512_CORE", "ALL")


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory, default_folder: Path) -> Path:
    """The folder of all graphs. Without the oracle's environment: a failure under CI, else a skip."""
    folder = tmp_path_factory.mktemp("quantized")
    run_oracle("quantized.py", folder, default_folder)
    return folder


@pytest.fixture(scope="session", params=INSTRUCTIONS)
def computed(request: pytest.FixtureRequest, quantized: Path) -> Path:
    """The folder of vectors that were computed with some instructions."""
    results = quantized / request.param
    results.mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.models.instructions",
        quantized / "model",
        quantized / "texts.json",
    ]
    done = subprocess.run(
        [*command, results, "dynamic", *STATIC],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": request.param},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return results


@pytest.mark.parametrize("name", ["dynamic", *STATIC])
def test_vectors_are_those_of_exact_arithmetic(quantized, computed, name):
    """Each text alone, and the same in a batch. Random weights exaggerate what is rounded otherwise."""
    together, alone = np.load(computed / f"{name}.npy")
    np.testing.assert_array_equal(together, alone)
    assert cosines(alone, np.load(quantized / f"{name}.npy")).min() >= 0.999


def test_vectors_are_those_of_onnx_runtime(quantized, computed):
    """Of a graph that saturates on no machine: its weights have 7 bits."""
    _, alone = np.load(computed / "reduced.npy")
    assert cosines(alone, np.load(quantized / "reduced-runtime.npy")).min() >= 0.999


@pytest.mark.model
def test_a_good_file_of_the_default_model(quantized):
    """It is near the model, and llmrs is as near to what ONNX Runtime makes of it."""
    runtime = np.load(quantized / "model_good-runtime.npy")
    assert cosines(runtime, np.load(quantized / "model-runtime.npy")).min() >= 0.99
    backend = LocalBackend(str(quantized / "default"), dtype="f32", model_file="onnx/model_good.onnx")
    texts = json.loads((quantized / "texts.json").read_text(encoding="utf-8"))
    found = backend.embed(backend.prepare(texts), timeout=60).matrix
    assert cosines(found, runtime).min() >= 0.99
