"""Small random models as folders, and the same models as data for the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.models.oracle import Oracle

HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 48, 40

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = [*"abcdefghijklmnopqrstuvwxyz", "hello", "world", "query", "passage", ":", "."]
VOCABULARY = 4 + len(WORDS) + 6
"""The word table has a few rows more than the tokenizer has tokens, as real ones do."""

TORCH_NAMES = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "identity": "torch.nn.modules.linear.Identity",
    "relu": "torch.nn.modules.activation.ReLU",
}
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
}


class Made(NamedTuple):
    """A model's folder and what its vectors must be."""

    folder: Path
    oracle: Oracle
    max_tokens: int


def is_roberta(kind: str) -> bool:
    return kind in ("roberta", "xlm-roberta", "camembert")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; a key set to `...` is removed."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: value for key, value in values.items() if value is not ...})


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32"
) -> dict[str, np.ndarray]:
    """Write tensors in a dtype, bfloat16 too, and return them as they read back, in float32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    stored = {}
    for name, tensor in tensors.items():
        if dtype == "BF16":
            bits = (tensor.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            data, stored[name] = bits.tobytes(), (bits.astype(np.uint32) << 16).view(np.float32)
        else:
            array = tensor.astype(
                {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8}[dtype]
            )
            data, stored[name] = array.tobytes(), array.astype(np.float32)
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    return stored


def make_tokenizer(path: Path, kind: str = "bert") -> None:
    """A word-level tokenizer with the family's special tokens in their usual places."""
    specials = ROBERTA_SPECIALS if is_roberta(kind) else BERT_SPECIALS
    vocabulary = {token: index for index, token in enumerate([*specials, *WORDS])}
    before, after = ("<s>", "</s>") if is_roberta(kind) else ("[CLS]", "[SEP]")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[3 if is_roberta(kind) else 1]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}",
        special_tokens=[(before, vocabulary[before]), (after, vocabulary[after])],
    )
    tokenizer.add_special_tokens(specials)
    # Saved models carry these settings; they must not matter.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    # Else transformers would make words of pieces of it, as the family's own class does.
    write_json(path.with_name("tokenizer_config.json"), {"tokenizer_class": "PreTrainedTokenizerFast"})


def config_of(kind: str, activation: str) -> dict[str, Any]:
    if kind == "distilbert":
        return {
            "model_type": kind,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "dim": HIDDEN,
            "hidden_dim": INNER,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 0,
            "activation": activation,
        }
    return {
        "model_type": kind,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1 if is_roberta(kind) else 2,
        "pad_token_id": 1 if is_roberta(kind) else 0,
        "layer_norm_eps": 1e-5 if is_roberta(kind) else 1e-12,
        "hidden_act": activation,
    }


def random_tensors(kind: str, random: np.random.Generator) -> dict[str, np.ndarray]:
    names = Oracle(kind, {}, {}, ()).names
    tensors: dict[str, np.ndarray] = {}

    def table(name: str, *shape: int) -> None:
        tensors[name] = random.normal(0, 0.5, shape)

    def linear(name: str, inputs: int, outputs: int) -> None:
        tensors[name + ".weight"] = random.normal(0, 1.5 / np.sqrt(inputs), (outputs, inputs))
        tensors[name + ".bias"] = random.normal(0, 0.2, outputs)

    def norm(name: str) -> None:
        tensors[name + ".weight"] = random.normal(1, 0.2, HIDDEN)
        tensors[name + ".bias"] = random.normal(0, 0.2, HIDDEN)

    table("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN)
    table("embeddings.position_embeddings.weight", POSITIONS, HIDDEN)
    if kind != "distilbert":
        table("embeddings.token_type_embeddings.weight", 1 if is_roberta(kind) else 2, HIDDEN)
    norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        prefix = names["layer"].format(index)
        for name in (*names["qkv"], names["out"]):
            linear(prefix + name, HIDDEN, HIDDEN)
        linear(prefix + names["up"], HIDDEN, INNER)
        linear(prefix + names["down"], INNER, HIDDEN)
        norm(prefix + names["norm1"])
        norm(prefix + names["norm2"])
    return tensors


def make_model(
    folder: Path,
    kind: str = "bert",
    *,
    activation: str = "gelu",
    pooling: tuple[str, ...] = ("mean",),
    dense: tuple[tuple[int, str, bool], ...] = (),
    normalize: bool = False,
    dtype: str = "F32",
    prefix: str = "",
    parts: int = 1,
    seed: int = 0,
) -> Made:
    """Write a random model in the sentence-transformers layout.

    Args:
        dense: outputs, activation and bias of each Dense step.
        prefix: what stands before the names of the encoder's tensors.
        parts: number of weight files.
    """
    random = np.random.default_rng(seed)
    config = config_of(kind, activation)
    write_json(folder / "config.json", config)
    make_tokenizer(folder / "tokenizer.json", kind)
    tensors = random_tensors(kind, random)
    stored = _write_weights(folder, tensors, dtype, prefix, parts)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    write_json(folder / "1_Pooling" / "config.json", _pooling_config(pooling))
    steps: list[tuple[Any, ...]] = [("pooling", *pooling)]
    width = HIDDEN * len(pooling)
    for outputs, name, bias in dense:
        place = f"{len(modules)}_Dense"
        modules.append(("Dense", place))
        steps.append(_make_dense(folder / place, width, outputs, name, bias, random))
        width = outputs
    if normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        steps.append(("normalize",))
    write_json(folder / "modules.json", [_module(index, *module) for index, module in enumerate(modules)])
    sizes: dict[str, Any] = {"layers": LAYERS, "heads": HEADS, "activation": activation}
    sizes["epsilon"] = config.get("layer_norm_eps", 1e-12)
    if is_roberta(kind):
        sizes["padding_id"] = 1
    return Made(folder, Oracle(kind, sizes, stored, steps), POSITIONS - 2 if is_roberta(kind) else POSITIONS)


class MadeStatic(NamedTuple):
    """A static model's folder and its table."""

    folder: Path
    table: np.ndarray


def make_static(folder: Path, width: int) -> MadeStatic:
    """Write a random word table as sentence-transformers does."""
    table = np.random.default_rng(width).normal(0, 0.5, (VOCABULARY, width)).astype(np.float32)
    write_safetensors(folder / "model.safetensors", {"embedding.weight": table})
    make_tokenizer(folder / "tokenizer.json")
    change_json(folder / "tokenizer.json", truncation=None)
    write_json(folder / "modules.json", [_module(0, "StaticEmbedding", "")])
    return MadeStatic(folder, table)


def _write_weights(
    folder: Path, tensors: dict[str, np.ndarray], dtype: str, prefix: str, parts: int
) -> dict[str, np.ndarray]:
    if parts == 1:
        named = {prefix + name: tensor for name, tensor in tensors.items()}
        stored = write_safetensors(folder / "model.safetensors", named, dtype)
        return {name[len(prefix) :]: tensor for name, tensor in stored.items()}
    stored = {}
    where = {}
    names = list(tensors)
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = {prefix + name: tensors[name] for name in names[part::parts]}
        where.update(dict.fromkeys(mine, file))
        stored.update(write_safetensors(folder / file, mine, dtype))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    return {name[len(prefix) :]: tensor for name, tensor in stored.items()}


def _pooling_config(modes: tuple[str, ...]) -> dict[str, Any]:
    """In the old spelling where it exists, in the new one else."""
    if all(mode in POOLING_FLAGS for mode in modes):
        flags = {flag: mode in modes for mode, flag in POOLING_FLAGS.items()}
        return {"word_embedding_dimension": HIDDEN, **flags}
    return {"embedding_dimension": HIDDEN, "pooling_mode": list(modes), "include_prompt": True}


def _make_dense(
    folder: Path, inputs: int, outputs: int, name: str, bias: bool, random: np.random.Generator
) -> tuple[Any, ...]:
    tensors = {"linear.weight": random.normal(0, 1 / np.sqrt(inputs), (outputs, inputs))}
    if bias:
        tensors["linear.bias"] = random.normal(0, 0.5, outputs)
    stored = write_safetensors(folder / "model.safetensors", tensors)
    config = {"in_features": inputs, "out_features": outputs, "bias": bias}
    write_json(folder / "config.json", {**config, "activation_function": TORCH_NAMES[name]})
    return "dense", stored["linear.weight"], stored.get("linear.bias"), name


def _module(index: int, kind: str, path: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
