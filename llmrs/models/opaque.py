"""A model that only sentence-transformers can compute, as far as its files tell.

Read here is what has to be known where the model is not loaded: widths, the longest input, the vocabulary.
Refused here is whatever would make the library run code, open a pickle or fetch a part of the model from
elsewhere, before it sees the folder: the library's own defaults differ by version, and one of them trusted
local folders. `torch_engine` loads what is left.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrs.errors import ModelError
from llmrs.models.architectures import longest_input
from llmrs.models.code import check_code
from llmrs.models.config_keys import BOTH_WAYS_IN_TRANSFORMERS, BY_TRANSFORMERS, NEVER_BOTH_WAYS
from llmrs.models.exported import SKIP_PADDING
from llmrs.models.files import FILE, has_safetensors
from llmrs.models.module_keys import BY_LIBRARY
from llmrs.models.modules import Normalize, Step, list_modules, read_pooling
from llmrs.models.rules import check_keys
from llmrs.models.settings import Settings, read_settings

EXTRA = ("sentence_transformers", "torch")
"""Packages that the extra `torch` brings."""

ANY_LENGTH = 1 << 20
"""Positions of a model that says nothing of them (T5 has distances instead); memory sets the limit then."""

PICKLE = "pytorch_model.bin"

MIXING = ("CNN",)
"""Modules that look across a text's ends, where padding is."""


@dataclass(frozen=True)
class Opaque:
    """A sentence-transformers model, and the sizes that must be known before it is loaded.

    Attributes:
        root: the model's folder.
        hidden: width of its vectors, after all modules.
        vocabulary: token ids are below it.
        max_tokens: the longest input that there are positions and memory for.
        padding_id: the id that fills padded places.
        padded: whether texts of different lengths may be computed together.
    """

    root: Path
    hidden: int
    vocabulary: int
    max_tokens: int
    padding_id: int
    padded: bool


def is_installed() -> bool:
    """Whether the extra `torch` is here. Imports nothing of it."""
    return all(importlib.util.find_spec(name) is not None for name in EXTRA)


def read_opaque(root: Path, config: Settings) -> Opaque:
    """What is known of the model folder `root`, whose encoder's `config.json` is `config`.

    Raises:
        ModelError: it would need code, a pickle or another model, or a size is missing.
    """
    modules = list_modules(root)
    _check_safe(modules, config)
    hidden = config.integer("hidden_size", "dim", "d_model", "n_embd")
    padding_id = max(config.integer("pad_token_id", default=0, minimum=-1), 0)
    skipped = padding_id + 1 if config.text("model_type", default="") in SKIP_PADDING else 0
    positions = config.integer(
        "max_position_embeddings", "n_positions", "max_seq_len", default=ANY_LENGTH, minimum=skipped + 1
    )
    heads = config.integer("num_attention_heads", "num_heads", "n_heads", "n_head", default=12)
    return Opaque(
        root=root,
        hidden=_width(root, modules, hidden),
        vocabulary=config.integer("vocab_size"),
        max_tokens=longest_input(positions - skipped, masks=heads),
        padding_id=padding_id,
        padded=all(kind not in MIXING for kind, _ in modules),
    )


def opaque_steps(root: Path) -> tuple[Step, ...]:
    """What matters of the modules to who only sees vectors: whether the model normalizes them."""
    kinds = [kind for kind, _ in list_modules(root) if kind != "Dropout"]
    return (Normalize(),) if kinds[-1] == "Normalize" else ()


def _width(root: Path, modules: list[tuple[str, Path]], width: int) -> int:
    """Of the vectors that an encoder of this width and the modules after it give."""
    if len(modules) > 1 and all(kind != "Pooling" for kind, _ in modules):
        raise ModelError(f"{root / 'modules.json'}: there is no Pooling, so there is no text vector")
    for kind, folder in modules[1:]:
        config = read_settings(
            folder / ("cnn_config.json" if kind == "CNN" else "config.json"), optional=True
        )
        if kind not in BY_LIBRARY:
            raise ModelError(f"{root / 'modules.json'}: module {kind[:60]!r} is not supported")
        check_keys(config, BY_LIBRARY[kind], others=kind == "Normalize")
        if kind == "Pooling":
            width *= len(read_pooling(config).modes)
        elif kind == "Dense":
            width = config.integer("out_features")
        elif kind == "CNN":
            kernels = config.raw("kernel_sizes")
            if not isinstance(kernels, list) or not kernels:
                raise ModelError(f"{config.path}: kernel_sizes is not a list of sizes")
            width = config.integer("out_channels") * len(kernels)
    return width


def _check_safe(modules: list[tuple[str, Path]], config: Settings) -> None:
    """Refuse what is not data, or not all there."""
    kind, place = modules[0]
    if kind != "Transformer":
        raise ModelError(f"{place}: the first module is no Transformer, and is not supported")
    if not has_safetensors(place):
        raise ModelError(
            f"{place / FILE} is missing: other weights are not read, pickles ({PICKLE}) least of all"
        )
    for _, folder in modules[1:]:
        if (folder / PICKLE).exists() and not (folder / FILE).exists():
            raise ModelError(f"{folder / PICKLE} is a pickle, which is never opened: convert it to {FILE}")
        _check_activation(read_settings(folder / "config.json", optional=True))
    _check_implementations(config.path, config.values)
    check_code(config)
    both_ways = {} if config.raw("model_type") in BOTH_WAYS_IN_TRANSFORMERS else NEVER_BOTH_WAYS
    check_keys(config, {**BY_TRANSFORMERS, **both_ways}, others=True)


def _check_activation(config: Settings) -> None:
    name = config.text("activation_function", default="torch.nn.Tanh")
    if not name.startswith("torch.nn."):
        raise ModelError(f"{config.path}: activation_function is code of its own, which is never run")


def _check_implementations(path: Path, value: Any) -> None:
    """A kernel of the hub is named by `owner/name` where `sdpa` might stand, and is code."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key.endswith("_implementation") and "/" in str(each):
                raise ModelError(f"{path}: {key} is code from elsewhere, which is never run")
            _check_implementations(path, each)
    elif isinstance(value, list):
        for each in value:
            _check_implementations(path, each)
