"""What computes a model, chosen by what its folder holds and imported only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llmrs.embeddings import Vectors
from llmrs.errors import ConfigError, ModelError
from llmrs.models.cores import usable_cores
from llmrs.models.folder import ModelFolder
from llmrs.models.opaque import Opaque, is_installed
from llmrs.models.packing import Ints
from llmrs.models.wordtable import Static


class AnyEngine(Protocol):
    """A loaded model: token ids in, vectors out. Its memory goes with its last reference.

    Attributes:
        dimensions: width of the vectors.
        precision: what it computes in: `f32`, `bf16` or `f16`.
        streams: batches computed at the same time, each by a thread that calls `embed`.
        threads: threads of each stream.
        is_broken: it has failed such that nothing it gives can be trusted any more.
    """

    dimensions: int
    precision: str
    streams: int
    threads: int
    is_broken: bool

    def embed(self, texts: Sequence[Ints], *, timeout: float) -> Vectors:
        """Vectors of texts given as token ids, float32 [len(texts), dimensions], in order.

        Raises:
            DeadlineExceeded: `timeout` seconds have passed.
            EngineError: the model failed on these texts.
            NotReady: it is broken.
        """

    def computing_since(self) -> float | None:
        """When the oldest computation under way began, a reading of time.monotonic(); None without one."""


def open_engine(
    folder: ModelFolder, *, dtype: str = "auto", device: str = "auto", threads: int = 0, streams: int = 0
) -> AnyEngine:
    """Load the model of a folder, warm it up and check it.

    Args:
        dtype: `f32`, `bf16`, `f16`, or `auto` for what suits the CPU or the device.
        device: where PyTorch computes, `auto` for CUDA if there is a GPU; all else computes on the CPU.
        threads: threads computing, all streams together; 0 for all usable cores.
        streams: batches computed at the same time; 0 for what suits the model.

    Raises:
        ConfigError: this CPU or device does not compute in `dtype`, or the model not on this device.
        ModelError: the weights do not fit the folder, or are damaged.
    """
    if isinstance(folder.encoder, Opaque):
        if not is_installed():
            raise ModelError("engine = torch needs PyTorch: pip install 'llmrs[torch]'")
        from llmrs.models.torch_engine import TorchEngine

        return TorchEngine(folder, dtype=dtype, device=device, threads=threads)

    if device not in ("auto", "cpu"):
        raise ConfigError(
            f"device = {device}: only engine = torch computes there; set it, or use auto or cpu"
        )
    if isinstance(folder.encoder, Static):
        from llmrs.models.static import StaticEngine

        return StaticEngine(folder, dtype=dtype, streams=streams)

    from llmrs.models.engine import Engine

    return Engine(folder, dtype=dtype, threads=threads, streams=streams)


def streams_of(folder: ModelFolder, *, threads: int = 0, streams: int = 0) -> int:
    """How many batches of a folder's model are computed at the same time, `streams` where it can be chosen.

    Known before the model is loaded. `threads` and `streams` as for `open_engine`.
    """
    if isinstance(folder.encoder, Opaque):
        return 1
    if streams:
        return streams
    if isinstance(folder.encoder, Static):
        from llmrs.models.static import STREAMS

        return STREAMS

    from llmrs.models.engine import streams_for

    return streams_for(folder.encoder, threads or usable_cores())
