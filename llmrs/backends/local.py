"""The local backend: a model folder, computed in this process.

Puts a tokenizer and an engine behind the `Backend` contract. Batching across callers is not its
concern; within a batch the engine decides which texts run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from llmrs.backends.model import ModelBackend
from llmrs.config import Config
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import EngineError, ModelError
from llmrs.models.engines import AnyEngine, open_engine, streams_of
from llmrs.models.exported import Exported
from llmrs.models.footprint import weight_files
from llmrs.models.resolve import DEFAULT_MODEL
from llmrs.models.wordtable import Static

EFFICIENT_TOKENS = 512
"""Tokens of a batch that computes within a few percent of the engine's best rate, see models/plan.py."""

INLINE_NUMBERS = 1_000_000
"""So many numbers of a static model's table are added up in about half a millisecond, most of which is
spent on fetching them from memory: 110 ns for a token's 256 numbers, 500 for 1,024."""

FEWEST_NUMBERS = 256
"""A token that has fewer takes no less time."""


class LocalBackend(ModelBackend):
    """A model computed in this process.

    `embed` spends its time in native code without the GIL, and may be called from as many threads
    at once as there are slots. Texts are prepared whether the model is loaded or not.

    Attributes:
        precision: what the model computes in on this machine: `f32`, `bf16` or `f16`; empty before it was
            loaded.
    """

    waits_on: ClassVar[Literal["cpu", "network"]] = "cpu"

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        engine: str = "auto",
        model_file: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        threads: int = 0,
        slots: int = 0,
        batch_size: int = 32,
        batch_tokens: int = 16384,
        offline: bool = False,
        on_demand: bool = False,
    ) -> None:
        """Find, load and warm up a model; downloads it where needed unless `offline`.

        Args:
            model: a folder, or a Hugging Face model id.
            engine: what is to compute it: `auto`, `openvino` or `torch`.
            model_file: its weights or exported graph, relative to the folder; None for the first that fits.
            dtype: `auto`, `f32`, `bf16` or `f16`.
            device: where PyTorch computes: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
            threads: threads computing, 0 for all usable cores.
            slots: batches computed at once, which share the threads; 0 for what suits the model.
            batch_size, batch_tokens: what one batch may carry.
            on_demand: leave the weights until `load`.

        Raises:
            ModelError: the model cannot be found, read or built.
            ConfigError: the CPU or the device does not compute in `dtype`, or there is no such device.
        """
        super().__init__(model, engine=engine, model_file=model_file, offline=offline)
        self._weights = weight_files(self.folder)
        self._dtype = dtype
        self._device = device
        self._threads = threads
        self._on_demand = on_demand
        self._engine: AnyEngine | None = None
        self.precision = ""
        encoder = self.folder.encoder
        inline = INLINE_NUMBERS // max(encoder.hidden, FEWEST_NUMBERS) if isinstance(encoder, Static) else 0
        self._limits = Limits(
            batch_size,
            # Every text fits a batch, also where the model takes longer ones than a batch may carry.
            batch_tokens=max(batch_tokens, self.folder.max_tokens),
            slots=streams_of(self.folder, threads=threads, streams=slots),
            efficient_tokens=EFFICIENT_TOKENS,
            spread=not inline,
            inline_tokens=inline,
        )
        if not on_demand:
            self.load()

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def is_loaded(self) -> bool:
        return self._engine is not None

    @property
    def on_demand(self) -> bool:
        return self._on_demand

    @property
    def weight_bytes(self) -> int:
        """The size of its weights' files."""
        return sum(file.size for file in self._weights)

    def load(self) -> None:
        if weight_files(self.folder) != self._weights:
            raise ModelError(
                f"{self.folder.path}: its weights have changed since its configuration was read; serve them "
                "under another path, or restart"
            )
        engine = open_engine(
            self.folder,
            dtype=self._dtype,
            device=self._device,
            threads=self._threads,
            streams=self._limits.slots,
        )
        encoder = self.folder.encoder
        of = f"{encoder.file.name}, " if isinstance(encoder, Exported) else ""
        self.precision = engine.precision
        self.description = f"{of}{engine.precision}, {engine.streams} x {engine.threads} threads"
        self._engine = engine

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        engine = self._engine
        if engine is None:
            raise EngineError("the model has been unloaded")
        return engine.embed([each.payload for each in batch], timeout=timeout)

    def check(self, *, timeout: float) -> None:
        if self._engine is None and not self._on_demand:
            raise EngineError("the model has been unloaded")

    def computing_since(self) -> float | None:
        engine = self._engine  # another thread may unload it
        return None if engine is None else engine.computing_since()

    @property
    def is_broken(self) -> bool:
        engine = self._engine
        return engine is not None and engine.is_broken

    def unload(self) -> None:
        # The memory goes with the last batch that still uses it.
        self._engine = None

    def close(self) -> None:
        self.unload()


def open_local(config: Config) -> LocalBackend:
    """The local backend that a configuration describes."""
    return LocalBackend(
        config.model_path,
        engine=config.engine,
        model_file=config.model_file,
        dtype=config.dtype,
        device=config.device,
        threads=config.inference_threads,
        slots=config.workers or 0,
        batch_size=config.batch_size,
        batch_tokens=config.max_batch_tokens,
        offline=config.offline,
        on_demand=config.load_on == "request",
    )
