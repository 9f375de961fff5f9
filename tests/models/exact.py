"""What a quantized ONNX graph gives by the definitions of its operators: its integers never saturate.

ONNX Runtime is no such reference: without VNNI its int8 products saturate, and the vectors of one file
differ by machine (AVX2, emulated: cosine 0.9977 to these; with VNNI 0.999998). Runs in the environment of
`families.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import transformers as hf
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


def along(values: Any, x: np.ndarray, axis: int) -> np.ndarray:
    """Scales or zero points of all of `x`, or one for each place along an axis."""
    numbers = np.asarray(values).astype(np.float32)
    if numbers.size == 1:
        return numbers.reshape(())
    shape = [1] * x.ndim
    shape[axis] = numbers.size
    return numbers.reshape(shape)


class DequantizeLinear(OpRun):
    """As of version 13, which the evaluator has in later versions only."""

    op_domain = ""

    def _run(self, x: Any, scale: Any, zero: Any = None, axis: int = 1, **_: Any) -> tuple[Any]:
        shifted = x.astype(np.float32) - (0 if zero is None else along(zero, x, axis))
        return ((shifted * along(scale, x, axis)).astype(np.float32),)


class QuantizeLinear(OpRun):
    op_domain = ""

    def _run(self, x: Any, scale: Any, zero: Any = None, axis: int = 1, **_: Any) -> tuple[Any]:
        zero = np.uint8(0) if zero is None else np.asarray(zero)
        steps = np.rint(x / along(scale, x, axis)) + along(zero, x, axis)
        limits = np.iinfo(zero.dtype)
        return (np.clip(steps, limits.min, limits.max).astype(zero.dtype),)


def token_ids(model: Path, texts: Path) -> list[np.ndarray]:
    tokenizer = hf.AutoTokenizer.from_pretrained(model)
    return [np.array([tokenizer(text)["input_ids"]], np.int64) for text in json.loads(texts.read_text())]


def means(run: Any, texts: list[np.ndarray]) -> np.ndarray:
    """The mean of each text's token vectors, computed alone."""
    return np.stack(
        [
            run(
                ["last_hidden_state"],
                {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)},
            )[0][0].mean(axis=0)
            for ids in texts
        ]
    )


def exact_means(graph: Path, texts: list[np.ndarray]) -> np.ndarray:
    evaluator = ReferenceEvaluator(onnx.load(str(graph)), new_ops=[DequantizeLinear, QuantizeLinear])
    return means(evaluator.run, texts)


def runtime_means(graph: Path, texts: list[np.ndarray]) -> np.ndarray:
    """Of ONNX Runtime, on this machine."""
    return means(onnxruntime.InferenceSession(str(graph)).run, texts)
