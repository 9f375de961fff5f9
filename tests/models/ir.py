"""A model as OpenVINO's own format, exported without any of the libraries that do it."""

from __future__ import annotations

from pathlib import Path

import openvino as ov
from openvino import opset15 as ops

from llmrs.models.encoder import encode
from llmrs.models.folder import read_folder
from llmrs.models.weights import Weights


def export_ir(folder: Path, file: Path) -> None:
    """Write the encoder of a folder with safetensors as exporters do: ids and a mask to token vectors."""
    model = read_folder(folder, model_file="model.safetensors")
    ids, mask = (
        ops.parameter(ov.PartialShape([-1, -1]), ov.Type.i64, name=name)
        for name in ("input_ids", "attention_mask")
    )
    zero, one = (ops.constant(value, ov.Type.i32) for value in (0, 1))
    narrow, real = ops.convert(ids, "i32"), ops.convert(mask, "i32")
    segments = ops.subtract(real, one)  # 0 for the text, and -1 for padding
    positions = ops.maximum(ops.subtract(ops.cum_sum(real, one), one), zero)
    weights = Weights.of(model.path)
    tokens = encode(narrow, positions, segments, model.encoder, weights, model.max_tokens)
    for node, name in ((ids, "input_ids"), (mask, "attention_mask"), (tokens, "last_hidden_state")):
        node.output(0).get_tensor().set_names({name})
    file.parent.mkdir(exist_ok=True)
    ov.save_model(ov.Model([ops.result(tokens)], [ids, mask]), file, compress_to_fp16=False)
