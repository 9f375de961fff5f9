"""Embedding in this process, without a server.

from llmrs import Embedder

with Embedder() as embedder:
    vectors = embedder.embed(["first text", "second text"])

Threads and tasks that call at the same time share batches, as the requests of the server do, and the
vectors are finished by the same kernels.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from llmrs import _fast
from llmrs.backends.local import LocalBackend
from llmrs.chunks import gather, spread
from llmrs.config import BY_NAME
from llmrs.embeddings import Matrix, ModelInfo, Prepared, Truncate
from llmrs.errors import InvalidArgument, NonFiniteEmbedding
from llmrs.prompts import INPUT_TYPES, choose_prompt
from llmrs.sources import checked
from llmrs.threaded import ThreadedCollector

InputType: TypeAlias = Literal["query", "document"]

INLINE_CHARACTERS = 8192
"""Texts of so many characters together are tokenized on the event loop, which takes about 2 ms."""


KEYS = {"model": "model_path", "normalize": "normalize_embeddings", "threads": "inference_threads"}
"""The settings that arguments of other names stand for. They take the same values in the same spellings."""


class Embedder:
    """A local model as a function from texts to vectors, for any number of threads and tasks.

    Args:
        model: a folder in the sentence-transformers layout, or a Hugging Face model id.
        engine: what is to compute it: `auto` for the first that can, `openvino` or `torch`.
        model_file: its weights or exported graph, relative to the folder; None for the first that fits.
        dtype: what to compute in: `auto` for what suits the CPU or the device, `f32` (or `float32`), `bf16`
            (`bfloat16`) or `f16` (`float16`).
        device: where PyTorch computes: `auto` for CUDA if there is a GPU, `cpu`, `cuda`, `cuda:1`, `mps`.
        normalize: scale vectors to length 1.
        batch_size: most texts computed together.
        threads: threads computing, 0 for all usable cores.
        offline: never download the model.

    Raises:
        ModelError: the model cannot be found, read or built.
        ConfigError: an argument has a value that it cannot have, which is a ValueError, too; the CPU or the
            device does not compute in `dtype`, or there is no such device.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        engine: str = "auto",
        model_file: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        normalize: bool = True,
        batch_size: int = 32,
        threads: int = 0,
        offline: bool = False,
    ) -> None:
        self._normalize = _checked("normalize", normalize)
        self._backend = LocalBackend(
            _checked("model", os.fspath(model) if isinstance(model, os.PathLike) else model),
            engine=_checked("engine", engine),
            model_file=None if model_file is None else _checked("model_file", model_file),
            dtype=_checked("dtype", dtype),
            device=_checked("device", device),
            threads=_checked("threads", threads),
            batch_size=_checked("batch_size", batch_size),
            offline=_checked("offline", offline),
        )
        self._collector = ThreadedCollector(self._backend.embed, self._backend.limits)
        # Its threads keep the collector and the backend alive, but not this object.
        self._finalizer = weakref.finalize(self, _close, self._collector, self._backend)

    @property
    def info(self) -> ModelInfo:
        """What the model's folder says about it: name, longest input, prompts and more."""
        return self._backend.info

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        dimensions = self._backend.info.dimensions
        assert dimensions is not None  # a local model's is always known
        return dimensions

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        truncate: Truncate | None = None,
        input_type: InputType | None = None,
        prompt_name: str | None = None,
    ) -> Matrix:
        """Vectors of texts, float32 [n, dimensions], in order; one text gives one row.

        Args:
            dimensions: a smaller width, to which vectors are cut and scaled to length 1 again: one of
                those that the model declares, or any where it declares none.
            truncate: which end an over-long text loses, `none` to refuse it, or `chunk_mean` for the
                mean of its chunks' vectors; None for the end that the model's tokenizer cuts off.
            input_type: puts the model's prompt for queries or documents in front, if it has one.
            prompt_name: puts the model's prompt of that name in front instead.

        Raises:
            InvalidRequest: the model has no such width or prompt, an argument has a value that it cannot
                have, or a text holds a lone surrogate.
            ContextLengthExceeded: a text is too long and `truncate` is `none`.
            NonFiniteEmbedding: the model gave NaN or infinity for a text.
            EngineError: the model failed on a text, or has been closed.
            TypeError: a text is not a string.
        """
        self.check_arguments(dimensions, truncate, input_type, prompt_name)
        width = dimensions or self.dimensions
        wanted = _strings(texts)
        if not wanted:
            return np.empty((0, width), np.float32)
        prepared = self._preparing(wanted, truncate, input_type, prompt_name)()
        return self._answer(self._collector.compute(spread(prepared)), prepared, width)

    async def aembed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        truncate: Truncate | None = None,
        input_type: InputType | None = None,
        prompt_name: str | None = None,
    ) -> Matrix:
        """`embed` for asyncio: other tasks run meanwhile. What a cancelled task wanted is not computed."""
        self.check_arguments(dimensions, truncate, input_type, prompt_name)
        width = dimensions or self.dimensions
        wanted = _strings(texts)
        if not wanted:
            return np.empty((0, width), np.float32)
        prepare = self._preparing(wanted, truncate, input_type, prompt_name)
        inline = sum(map(len, wanted)) <= INLINE_CHARACTERS
        prepared = prepare() if inline else await asyncio.to_thread(prepare)
        return self._answer(await self._computed(spread(prepared)), prepared, width)

    def check_arguments(
        self,
        dimensions: int | None = None,
        truncate: Truncate | None = None,
        input_type: InputType | None = None,
        prompt_name: str | None = None,
    ) -> None:
        """Refuse what `embed` would refuse.

        Raises:
            InvalidRequest: one of them has a value that it cannot have; the message says what it can have.
        """
        self._check_width(dimensions)
        if truncate is not None:
            _check_choice("truncate", truncate, get_args(Truncate))
        if input_type is not None:
            _check_choice("input_type", input_type, tuple(INPUT_TYPES))
        if prompt_name is not None and not isinstance(prompt_name, str):
            raise InvalidArgument("prompt_name must be the name of a prompt, or None", param="prompt_name")
        choose_prompt(self.info.prompts, prompt_name, input_type)

    def close(self) -> None:
        """Release the model. `embed` fails afterwards, and so do calls that wait for a batch."""
        self._finalizer()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _preparing(
        self,
        texts: list[str],
        truncate: Truncate | None,
        input_type: InputType | None,
        prompt_name: str | None,
    ) -> Callable[[], list[Prepared]]:
        """What tokenizes texts behind the prompt that is asked for, whenever it is called."""
        prompt = choose_prompt(self.info.prompts, prompt_name, input_type)
        return partial(self._backend.prepare, texts, truncate=truncate, prompt=prompt)

    def _check_width(self, dimensions: int | None) -> None:
        """The width to cut to must be one that the model may be cut to."""
        if dimensions is None:
            return
        widths = self.info.matryoshka or range(1, self.dimensions)
        fits = type(dimensions) is int and (dimensions == self.dimensions or dimensions in widths)
        if not fits or dimensions > self.dimensions:
            allowed = ", ".join(map(str, self.info.matryoshka)) or f"1 to {self.dimensions - 1}"
            message = f"dimensions must be {self.dimensions} or of {allowed}, or None"
            raise InvalidArgument(message, param="dimensions")

    async def _computed(self, prepared: Sequence[Prepared]) -> Matrix:
        """The collector's answer, which comes on a thread of its own unless it comes at once."""
        if self._collector.is_short(prepared):
            return self._collector.compute(prepared)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        group = self._collector.submit(prepared, notify)
        try:
            await done.wait()
        finally:
            self._collector.cancel(group)
        return group.rows()

    def _answer(self, computed: Matrix, prepared: Sequence[Prepared], width: int) -> Matrix:
        """The vectors of texts, some of which may have been computed in chunks."""
        normalize = self._normalize or width < computed.shape[1]
        return self._finished(gather(computed, prepared, width, normalize), width)

    def _finished(self, matrix: Matrix, width: int) -> Matrix:
        """The first `width` numbers of each row, finite, and of length 1 if wanted or cut."""
        if self._normalize or width < matrix.shape[1]:
            return _fast.normalize_rows(matrix, width)
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            raise NonFiniteEmbedding(int(np.argmin(finite)))
        own: Matrix = matrix.copy()  # the rows of a batch may be those of other callers, too
        return own


def embedder_of(model: str, embedder: Embedder | None) -> Embedder:
    """The embedder that is given, or one of the model. Raises TypeError, and what `Embedder` raises."""
    if embedder is None:
        return Embedder(model)
    if not isinstance(embedder, Embedder):
        raise TypeError(f"embedder must be an llmrs.Embedder or None, not {type(embedder).__name__}")
    return embedder


def _checked(argument: str, value: Any) -> Any:
    """The value in the one spelling that is used inside, `f32` for `float32`. Raises ConfigError."""
    return checked(BY_NAME[KEYS.get(argument, argument)], value, argument, "argument of Embedder")


def _check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{argument} must be one of {', '.join(choices)}", param=argument)


def _strings(texts: str | Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    # What has no order, or is iterated by key, would give vectors of nobody knows which texts.
    if not isinstance(texts, Iterable) or isinstance(texts, (bytes, bytearray, Mapping, Set)):
        raise TypeError(f"texts must be a string or a sequence of strings, not {type(texts).__name__}")
    wanted = list(texts)
    for text in wanted:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, not {type(text).__name__}")
    return wanted


def _close(collector: ThreadedCollector, backend: LocalBackend) -> None:
    collector.close()
    backend.close()
