"""A model that sentence-transformers computes on PyTorch: token ids in, vectors out.

Texts are tokenized, limited and cut as for every local model; the library gets rows of ids, and its modules
do the rest, so that every `modules.json` it can load works (see `torch_model`). One batch is computed at a
time, on all threads of the CPU or on one GPU. `embed` is called from native threads of processes that gevent
may have patched, so it uses no lock, no queue and no logger.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from llmrs.embeddings import Matrix, Vectors
from llmrs.errors import NO_VECTOR, DeadlineExceeded, EngineError, ModelError, NotReady
from llmrs.models import golden
from llmrs.models.cores import usable_cores
from llmrs.models.folder import ModelFolder
from llmrs.models.opaque import Opaque
from llmrs.models.packing import Ints
from llmrs.models.plan import plan_padded
from llmrs.models.torch_model import DTYPES, FeatureMaker, choose_device, choose_dtype, load_modules

CPU_CELLS, DEVICE_CELLS = 2048, 16384
"""Rows times columns of one run: as much as fills a CPU's caches, or a GPU."""

WARM_UP_SHAPES = ((1, 16), (8, 64), (1, 64))
"""Rows and columns that are computed before the first request, which then does not pay for them."""

CPU_EXHAUSTED = "DefaultCPUAllocator"
"""What PyTorch's error about the machine's own memory says; it has no class of its own."""

RELOAD_SECONDS = 15
"""When to ask again after a failure of a device: the server needs so long to end, import PyTorch and load."""


class TorchEngine:
    """A model of a folder, loaded by sentence-transformers.

    Attributes:
        dimensions: width of the vectors.
        precision: what its encoder computes in: `f32`, `bf16` or `f16`. Its other modules compute in `f32`.
        streams: always one batch at a time.
        threads: of PyTorch on the CPU, all models of a process together; 1 where another device computes.
        is_broken: a device that is not the CPU has failed. CUDA gives no result any more after most errors.
    """

    streams = 1

    def __init__(
        self, folder: ModelFolder, *, dtype: str = "auto", device: str = "auto", threads: int = 0
    ) -> None:
        """Load, warm up and check.

        Args:
            dtype: `f32`, `bf16`, `f16`, or `auto` for bf16 on CUDA and f32 elsewhere.
            device: `auto` for CUDA where there is a GPU and the CPU elsewhere, or a name of PyTorch's.
            threads: threads computing on the CPU; 0 for all usable cores.

        Raises:
            ConfigError: there is no such device, or it does not compute in `dtype`.
            ModelError: sentence-transformers cannot load the folder, or what it computes is no use.
        """
        encoder = folder.encoder
        assert isinstance(encoder, Opaque)  # see open_engine
        self.dimensions = folder.dimensions
        self.is_broken = False
        self._began: float | None = None
        self._device = choose_device(device)
        self.precision = choose_dtype(dtype, self._device)
        on_cpu = self._device.type == "cpu"
        self._cells = CPU_CELLS if on_cpu else DEVICE_CELLS
        self.threads = (threads or usable_cores()) if on_cpu else 1
        if on_cpu:
            torch.set_num_threads(self.threads)
        self._modules = load_modules(encoder, DTYPES[self.precision], self._device)
        self._features = FeatureMaker(self._modules[0], encoder, self._device)
        self._padded = encoder.padded
        self._warm_up(folder)
        self._check(folder, encoder)

    def embed(self, texts: Sequence[Ints], *, timeout: float = float("inf")) -> Vectors:
        """Vectors of texts given as token ids, float32 [len(texts), dimensions], in order.

        A text for which the model gives NaN or infinity has such a row, and no other text has for its sake.

        Raises:
            DeadlineExceeded: `timeout` seconds have passed; looked at between runs.
            EngineError: the model failed on these texts.
            NotReady: its device has failed before, see `is_broken`.
        """
        if self.is_broken:
            raise NotReady("the model has failed and must be loaded again", retry_after=RELOAD_SECONDS)
        deadline = time.monotonic() + timeout
        matrix = np.empty((len(texts), self.dimensions), np.float32)
        runs = plan_padded([len(text) for text in texts], self._cells, equal=not self._padded)
        cells = 0
        while runs:
            if time.monotonic() > deadline:
                raise DeadlineExceeded("the model did not finish in time")
            run = runs.pop()
            try:
                matrix[run] = self._run([texts[index] for index in run])[:, : self.dimensions]
            except MemoryError as error:
                if len(run) == 1:
                    raise EngineError() from error
                runs += [run[len(run) // 2 :], run[: len(run) // 2]]
                continue
            cells += len(run) * len(texts[run[0]])
        return Vectors(matrix, cells=cells)

    def computing_since(self) -> float | None:
        """When the run under way began, a reading of time.monotonic(); None if there is none."""
        return self._began

    def _run(self, texts: Sequence[Ints]) -> Matrix:
        """Vectors of texts that are computed together.

        Raises:
            EngineError: the model failed.
            MemoryError: there is not enough memory for so many; what was taken has been given back.
        """
        self._began = time.monotonic()
        try:
            return self._forward(texts)
        except Exception as error:  # PyTorch raises RuntimeError, whatever the reason
            if not _is_out_of_memory(error):
                self.is_broken = self._device.type != "cpu"
                raise EngineError() from error
        finally:
            self._began = None
        # Only here is the error gone, whose traceback held on to what the failed run had taken.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError

    def _forward(self, texts: Sequence[Ints]) -> Matrix:
        """The model itself: all modules, those after the encoder in float32."""
        with torch.inference_mode():
            features = self._modules[0](self._features(texts))
            features = {name: _as_float(value) for name, value in features.items()}
            for module in self._modules[1:]:
                features = module(features)
            vectors: Matrix = features["sentence_embedding"].float().cpu().numpy()
        return vectors

    def _warm_up(self, folder: ModelFolder) -> None:
        """Compute a few shapes. Raises ModelError where the vectors are others than the folder says."""
        width = None
        for rows, columns in WARM_UP_SHAPES:
            text = np.zeros(min(columns, folder.max_tokens), np.int32)
            try:
                width = self._run([text] * rows).shape[1]
            except (EngineError, MemoryError) as error:
                raise ModelError(f"{folder.path}: {NO_VECTOR} when it was tried") from error
        if width != folder.full_width:
            raise ModelError(f"{folder.path}: vectors have {width} numbers, by its files {folder.full_width}")

    def _check(self, folder: ModelFolder, encoder: Opaque) -> None:
        """Whether a text has one vector.

        Where padding changes it, only texts of one length are computed together from now on.
        """

        def check() -> None:
            golden.check(
                lambda texts: self.embed(texts).matrix,
                vocabulary=encoder.vocabulary,
                longest=folder.max_tokens,
                precision=self.precision,
                place=str(folder.path),
            )

        try:
            check()
        except ModelError:
            if not self._padded:
                raise
            self._padded = False
            check()


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_EXHAUSTED in str(error)
