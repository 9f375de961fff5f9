"""A model that sentence-transformers loads: its modules, what they take, where and in what they compute.

Wraps sentence-transformers and transformers. Of a folder that `opaque` has let through no code is run, and
the network is not used. Weights that are missing are an error here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from llmrs.errors import ConfigError, ModelError
from llmrs.models.heads import is_head
from llmrs.models.opaque import Opaque
from llmrs.models.packing import Ints

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

LOADING = "HF_DEACTIVATE_ASYNC_LOAD"
"""The environment variable by which transformers is told to load without threads of its own."""


def load_modules(encoder: Opaque, dtype: torch.dtype, device: torch.device) -> list[Any]:
    """The model's modules, on the device, the encoder's weights in `dtype`. Raises ModelError."""
    hf_logging.disable_progress_bar()  # a server's log is no terminal
    try:
        with without_loading_threads(), noting_weights() as (missing, unknown):
            model = SentenceTransformer(
                str(encoder.root),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        modules = list(model.eval().to(device))
        for module in modules[1:]:
            module.float()
    except Exception as error:  # whatever: a folder from anywhere, read by two libraries
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{encoder.root}: sentence-transformers cannot load it: {why}") from error
    if missing:
        raise ModelError(f"{encoder.root}: its weights lack {missing[0]}, and {len(missing)} in all")
    if unknown:
        raise ModelError(
            f"{encoder.root}: its weights have {unknown[0][:120]}, which transformers leaves out "
            f"({len(unknown)} in all)"
        )
    return modules


@contextlib.contextmanager
def without_loading_threads() -> Iterator[None]:
    """Have transformers read weights on the calling thread.

    It uses a pool of threads. In a process that gevent has patched they are greenlets of the thread that
    loads, which is gone when the interpreter waits for them at its end.
    """
    before = os.environ.get(LOADING)
    os.environ[LOADING] = "1"  # the one switch there is
    try:
        yield
    finally:
        os.environ.pop(LOADING)
        if before is not None:
            os.environ[LOADING] = before


@contextlib.contextmanager
def noting_weights() -> Iterator[tuple[list[str], list[str]]]:
    """The names of weights that a file lacks, and of those that transformers does not use.

    It fills what is lacking with random numbers, and says both in its log and to a caller who asks, which
    sentence-transformers does not. Nothing else changes for other callers meanwhile. A pooler's weights are
    often left out, and its numbers are not used; heads are often left in.
    """
    missing: list[str] = []
    unknown: list[str] = []
    original = PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: Any, *arguments: Any, **settings: Any) -> Any:
        answer = original(cls, *arguments, **{**settings, "output_loading_info": True})
        missing.extend(name for name in sorted(answer[1]["missing_keys"]) if "pooler." not in name)
        unexpected = sorted(answer[1]["unexpected_keys"])
        prefix = f"{cls.base_model_prefix}."
        unknown.extend(name for name in unexpected if not is_head(name, prefix))
        return answer if settings.get("output_loading_info") else answer[0]

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield missing, unknown
    finally:
        PreTrainedModel.from_pretrained = classmethod(original)


class FeatureMaker:
    """Makes what a Transformer module takes of token ids, padded as its own tokenizer would."""

    def __init__(self, transformer: Any, encoder: Opaque, device: torch.device) -> None:
        """Raises ModelError: the model wants more than can be told from the ids."""
        tokenizer = transformer.tokenizer
        self._left = tokenizer.padding_side == "left"
        self._types = "token_type_ids" in tokenizer.model_input_names
        self._padding_id = encoder.padding_id
        self._device = device
        if self._types and any(tokenizer("a").get("token_type_ids", ())):
            raise ModelError(f"{encoder.root}: its tokenizer gives tokens types, which is not supported")

    def __call__(self, texts: Sequence[Ints]) -> dict[str, Any]:
        """int64 [texts, longest text] each, on the device."""
        columns = max(map(len, texts))
        ids = np.full((len(texts), columns), self._padding_id, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            place = slice(columns - len(text), None) if self._left else slice(len(text))
            ids[row, place] = text
            mask[row, place] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if self._types:
            arrays["token_type_ids"] = np.zeros_like(ids)
        return {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}


def choose_device(wanted: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is a GPU. Raises ConfigError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except Exception as error:  # AssertionError, RuntimeError and others, by device
        raise ConfigError(f"device = {wanted}: PyTorch finds no such device here") from error
    return device


def choose_dtype(wanted: str, device: torch.device) -> str:
    """What to compute in on a device. Raises ConfigError where it cannot."""
    halves = {"cpu": ("bf16",), "cuda": ("bf16", "f16"), "mps": ("f16",)}.get(device.type, ())
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        halves = ("f16",)
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and "bf16" in halves else "f32"
    if wanted not in ("f32", *halves):
        raise ConfigError(f"dtype = {wanted}: {device} does not compute in it; use auto or f32")
    return wanted
