"""Exports small random models as others do, to ONNX, and computes their vectors with sentence-transformers.

Run as a program in the environment of `families.py`, whose cases these are; `test_exports` reads what
it writes: for each model what `families.make` writes, the weights replaced by exported graphs in `onnx/`.
They are exported as most that are published have been, by tracing. The second argument is a program that
exports in the other way, and the third a model's folder for it.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers as hf
from exact import exact_means, token_ids
from families import CASES, Case, make, plain
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

INPUTS = ("input_ids", "attention_mask")

EXPORTED: dict[str, tuple[Case, tuple[str, ...]]] = {
    "bert": (
        CASES["bert"]._replace(
            steps=lambda: [
                Pooling(32, "mean"),
                Dense(32, 24, activation_function=torch.nn.Tanh()),
                Normalize(),
            ]
        ),
        (*INPUTS, "token_type_ids"),
    ),
    "roberta": (CASES["roberta"], INPUTS),
    "modernbert": (CASES["modernbert"], INPUTS),
    "qwen3": (CASES["qwen3"], (*INPUTS, "position_ids")),
    "deberta": (plain("deberta-v2", relative_attention=True, pos_att_type=["p2c", "c2p"]), INPUTS),
}
"""Cases, and what their graphs ask for. The last family is one that is not built."""


class Encoder(torch.nn.Module):
    """Token vectors of named inputs, given in their order."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).last_hidden_state


class Whole(torch.nn.Module):
    """All steps of a sentence-transformers model: token vectors and text vectors."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.model(dict(zip(INPUTS, inputs, strict=False)))
        return out["token_embeddings"], out["sentence_embedding"]


def export(model: torch.nn.Module, file: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Write a graph with batch and sequence of any length."""
    file.parent.mkdir(exist_ok=True)
    ids = torch.randint(4, 40, (2, 9))
    values = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "position_ids": torch.arange(9).expand(2, 9),
    }
    axes = {name: {0: "batch", 1: "sequence"} for name in (*inputs, *outputs)}
    axes |= {"sentence_embedding": {0: "batch"}}
    torch.onnx.export(
        model.eval(),
        tuple(values[name] for name in inputs),
        str(file),
        dynamo=False,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=17,
    )


def write_variants(folder: Path) -> None:
    """The same graph in all the ways in which graphs are published."""
    place = folder / "model/onnx"
    model = onnx.load(str(place / "model.onnx"))
    onnx.save(convert_float_to_float16(model, keep_io_types=False), str(place / "model_fp16.onnx"))
    quantize_dynamic(
        str(place / "model.onnx"), str(place / "model_quantized.onnx"), weight_type=QuantType.QInt8
    )
    onnx.save_model(
        onnx.load(str(place / "model.onnx")),
        str(place / "model_external.onnx"),
        save_as_external_data=True,
        location="model_external.onnx_data",
        size_threshold=64,
    )
    whole = Whole(SentenceTransformer(str(folder / "model"), device="cpu"))
    export(whole, place / "model_whole.onnx", INPUTS, ("token_embeddings", "sentence_embedding"))
    only = onnx.load(str(place / "model_whole.onnx"))
    del only.graph.output[0]
    onnx.save(only, str(place / "model_only_texts.onnx"))


def write_four_bits(place: Path) -> None:
    """A graph whose weights are stored as 4 bits."""
    few_bits = MatMulNBitsQuantizer(onnx.load(str(place / "model.onnx")))
    few_bits.process()
    few_bits.model.save_model_to_file(str(place / "model_q4.onnx"))


def write_broken(folder: Path) -> None:
    """Graphs that no engine of ours can take."""
    folder.mkdir()
    tokens, node = "last_hidden_state", helper.make_node

    def write(
        name: str,
        inputs: tuple[str, ...],
        output: str,
        *nodes: Any,
        shape: tuple[Any, ...] = ("b", "s"),
        weights: Sequence[Any] = (),
    ) -> None:
        ports = [helper.make_tensor_value_info(each, TensorProto.INT64, shape) for each in inputs]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
        graph = helper.make_graph(list(nodes), "broken", ports, [result], weights)
        # Not by onnx.save, which minds weights that are not there.
        made = helper.make_model(graph, opset_imports=opsets).SerializeToString()
        (folder / f"{name}.onnx").write_bytes(made)

    def cast(output: str) -> Any:
        return node("Cast", ["input_ids"], [output], to=TensorProto.FLOAT)

    write("operator", INPUTS, tokens, node("Fancy", ["input_ids"], [tokens], domain="com.example"))
    write("cache", (*INPUTS, "past_key_values.0.key"), tokens, cast(tokens))
    write("no_mask", INPUTS[:1], tokens, cast(tokens))
    write("fixed", INPUTS, tokens, cast(tokens), shape=(1, 128))
    write("output", INPUTS, "logits", cast("logits"))
    write("shape", INPUTS, tokens, cast(tokens))
    # As many numbers a token as the row has tokens.
    whole, columns = (
        node("Shape", ["input_ids"], ["whole"]),
        node("Shape", ["input_ids"], ["columns"], start=1),
    )
    joined = node("Concat", ["whole", "columns"], ["joined"], axis=0)
    write("width", INPUTS, tokens, whole, columns, joined, node("ConstantOfShape", ["joined"], [tokens]))
    # Weights of a file that is none of the model's.
    outside = onnx.TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[32])
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../texts.json")
    added = [node("Unsqueeze", ["cast", "axis"], ["wide"]), node("Add", ["wide", "weights"], [tokens])]
    axis = node("Constant", [], ["axis"], value_ints=[2])
    write("outside", INPUTS, tokens, cast("cast"), axis, *added, weights=[outside])
    # A shape of the texts that it was exported with, which shows only when others are computed.
    traced = node("Constant", [], ["traced"], value_ints=[2, 9, 32])
    write("traced", INPUTS, tokens, traced, cast("cast"), node("Reshape", ["cast", "traced"], [tokens]))


def write_case(name: str, folder: Path, seed: int) -> None:
    case, inputs = EXPORTED[name]
    make(case, folder, seed)
    encoder = Encoder(hf.AutoModel.from_pretrained(folder / "model"), inputs)
    export(encoder, folder / "model/onnx/model.onnx", inputs, ("last_hidden_state",))
    if name == "bert":
        write_variants(folder)
        texts = token_ids(folder / "model", folder / "texts.json")
        np.save(
            folder / "model_quantized.npy", exact_means(folder / "model/onnx/model_quantized.onnx", texts)
        )
    for file in (folder / "model").glob("model*.safetensors*"):
        file.unlink()


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    with torch.no_grad():
        for number, name in enumerate(EXPORTED):
            write_case(name, place / name, number)
        sys.argv = sys.argv[2:]
        runpy.run_path(sys.argv[0])
        write_four_bits(Path(sys.argv[1]) / "onnx")
    write_broken(place / "broken")
