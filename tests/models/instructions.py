"""Vectors of a folder's exported graphs, in a batch and alone. A program: its instructions can be limited.

Takes the folder, the file of texts, a folder for the results and the graphs' names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import llmrs.models.engine
from llmrs.backends.local import LocalBackend


def main(folder: str, texts: str, results: str, *names: str) -> None:
    llmrs.models.engine.WARM_UP_SECONDS = 0.0
    for name in names:
        backend = LocalBackend(folder, dtype="f32", threads=1, model_file=f"onnx/model_{name}.onnx")
        prepared = backend.prepare(json.loads(Path(texts).read_text(encoding="utf-8")))
        together = backend.embed(prepared, timeout=60).matrix
        alone = np.concatenate([backend.embed([each], timeout=60).matrix for each in prepared])
        np.save(f"{results}/{name}.npy", np.stack([together, alone]))


if __name__ == "__main__":
    main(*sys.argv[1:])
