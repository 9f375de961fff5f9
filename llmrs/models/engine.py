"""A compiled model: token ids in, vectors out.

Wraps OpenVINO's CPU plugin. A stream computes one batch at a time on threads of its own; `embed` may
be called from as many threads at once as there are streams, and holds the GIL only between runs, to
fill and copy small arrays. It is called from native threads of processes that gevent may have
patched, so it uses no lock, no queue and no logger.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-untyped]

from llmrs.embeddings import Matrix, Vectors
from llmrs.errors import ConfigError, DeadlineExceeded, EngineError, ModelError, NotReady
from llmrs.models import golden, signal_stack
from llmrs.models.architectures import Encoder
from llmrs.models.cores import usable_cores
from llmrs.models.exported import Exported, Graphed
from llmrs.models.folder import ModelFolder
from llmrs.models.graph import build_graph
from llmrs.models.nodes import reason
from llmrs.models.packing import Inputs, Ints, pack
from llmrs.models.plan import Run, columns_for, plan

CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
"""What the CPU plugin calls the dtypes it computes in natively."""

WARM_UP_SECONDS = 0.5
"""Spent on running the commonest shapes before the first request, which then does not pay for them."""

WARM_UP_SHAPES = (
    *((1, columns) for columns in (16, 32, 24, 8, 48, 64, 40, 56)),  # one text
    *((rows, 64) for rows in (16, 8, 4, 2, 12, 6, 3)),  # batches
    *((rows, columns) for columns in (128, 96) for rows in (1, 8, 4, 2)),
)
"""Rows and columns."""

SMALL_ENCODER = 32_000_000
"""Multiplications per token up to which an encoder's layers are so short that threads sharing one
wait for each other. Two cores, texts of 20 tokens, two streams of one thread against one of two:
all-MiniLM-L6-v2 (11 million) +12 % texts/s in batches of 32, +15 to +60 % in batches of 1 to 8; a
BERT-base (85 million) +2 %, and 25 ms instead of 15 ms for one text."""

RELOAD_SECONDS = 5
"""When to ask again after a failure: the server needs two to three to end and load a small model."""

MOST_THREADS = 4
"""Threads of a stream of a small encoder on a machine that has more cores than streams."""

FORGET_SHAPES = {"CPU_RUNTIME_CACHE_CAPACITY": 0}
"""For models that compute each text in a shape of its own. All that is kept for a shape takes 2.3 MB of
all-MiniLM-L6-v2 quantized dynamically: 600 MB for its 256 lengths, and making it anew costs 13 %."""


QUANTIZED_AS_FLOATS = {"LP_TRANSFORMS_MODE": False}
"""For exported graphs: what was quantized is rounded as the file says, and multiplied as floats.

Integers would be multiplied faster, and saturate without VNNI (AVX2, early AVX-512): a graph quantized
statically then had vectors at cosine 0.979 to those by the definitions of its operators, which are 0.9993
and more this way, with any instructions. Of some graphs the plugin's passes for integers fail, besides."""


class Engine:
    """A model of a folder, compiled for this machine's CPU.

    Attributes:
        dimensions: width of the vectors.
        precision: what it computes in: `f32`, `bf16` or `f16`.
        streams: batches computed at the same time.
        threads: threads of each stream.
        is_broken: a run has failed, and none is trusted any more. OpenVINO keeps what it makes for a shape,
            also where memory ended before it was finished: with the address space limited in the middle
            of a run, 4 of 30 such models then gave wrong vectors without an error, and others none ever.
    """

    def __init__(
        self, folder: ModelFolder, *, dtype: str = "auto", threads: int = 0, streams: int = 0
    ) -> None:
        """Build, compile and warm up.

        Args:
            dtype: `f32`, `bf16`, `f16`, or `auto` for what suits the CPU: bf16 where it has it.
            threads: threads computing, all streams together; 0 for all usable cores.
            streams: batches computed at the same time, each by its share of the threads; 0 for what
                suits the model's size and the threads.

        Raises:
            ConfigError: this CPU does not compute in `dtype`.
            ModelError: the weights do not fit the folder, an exported graph cannot be computed, or a
                text's vector depends on its neighbours.
        """
        encoder = folder.encoder
        assert isinstance(encoder, Encoder | Exported)  # see open_engine
        self.dimensions = folder.dimensions
        self._longest = folder.max_tokens
        self._encoder = encoder
        threads = threads or usable_cores()
        self.streams = streams or streams_for(encoder, threads)
        self.threads = max(1, threads // self.streams)
        graph = build_graph(folder)
        self._layout = graph.layout
        self._runs_began: dict[int, float] = {}
        self.is_broken = False
        try:
            self._open(graph.model, dtype, threads)
        except RuntimeError as error:  # OpenVINO's: an exported graph that it cannot compute
            raise ModelError(f"{_place(encoder, folder)}: it cannot be computed: {reason(error)}") from error
        golden.check(
            lambda texts: self.embed(texts).matrix,
            vocabulary=encoder.vocabulary,
            longest=self._longest,
            precision=self.precision,
            place=str(_place(encoder, folder)),
        )
        # Compiling has read every page once; most are not needed again, and none is lost.
        self._weights = graph.weights
        for weights in self._weights:
            weights.release_pages()

    def _open(self, graph: ov.Model, dtype: str, threads: int) -> None:
        """Compile the graph for all streams, and warm up."""
        settings = FORGET_SHAPES if self._layout == "single" else {}
        if isinstance(self._encoder, Exported):
            settings = settings | QUANTIZED_AS_FLOATS
        compiled = _compile(graph, dtype, threads, self.streams, settings)
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self._idle = deque(compiled.create_infer_request() for _ in range(self.streams))
        for request in self._idle:
            self._warm_up(request, WARM_UP_SHAPES, WARM_UP_SECONDS / self.streams)
        # A text that comes alone gets the threads of all streams, from a small model's second copy.
        self._lone: deque[Any] = deque()
        if self.streams > 1 and self._encoder.multiplications <= SMALL_ENCODER:
            compiled = _compile(graph, dtype, min(threads, MOST_THREADS), 1, settings)
            self._lone.append(compiled.create_infer_request())
            self._warm_up(self._lone[0], WARM_UP_SHAPES[:8], WARM_UP_SECONDS / 2)

    def embed(self, texts: Sequence[Ints], *, timeout: float = float("inf")) -> Vectors:
        """Vectors of texts given as token ids, float32 [len(texts), dimensions], in order.

        Each text has 1 to the model's longest input of ids below its vocabulary. A text for which
        the model gives NaN or infinity has such a row, and no other text has for its sake.

        Raises:
            DeadlineExceeded: `timeout` seconds have passed; looked at between runs.
            EngineError: the model failed on these texts.
            NotReady: it has failed before, see `is_broken`.
        """
        if self.is_broken:
            raise NotReady("the model has failed and must be loaded again", retry_after=RELOAD_SECONDS)
        deadline = time.monotonic() + timeout
        matrix = np.empty((len(texts), self.dimensions), np.float32)
        runs = plan([len(text) for text in texts], self._longest, self._layout)
        cells = 0
        request, home = self._claim(len(texts))
        try:
            while runs:
                if time.monotonic() > deadline:
                    raise DeadlineExceeded("the model did not finish in time")
                run = runs.pop()
                cells += run.rows * run.columns
                vectors, row_sums = self._run(request, run, texts)
                matrix[[index for row in run.texts for index in row]] = vectors
                if not np.isfinite(row_sums).all():
                    runs += self._alone(run, row_sums, texts)
        finally:
            home.append(request)
        return Vectors(matrix, cells=cells)

    def computing_since(self) -> float | None:
        """When the oldest run under way began, a reading of time.monotonic(); None if there is none."""
        return min(list(self._runs_began.values()), default=None)  # list: other threads change the dict

    def _claim(self, n_texts: int) -> tuple[Any, deque[Any]]:
        """An infer request for a batch, and where to put it back."""
        if n_texts == 1 and len(self._idle) == self.streams:
            with contextlib.suppress(IndexError):  # there is none, or another thread was faster
                return self._lone.pop(), self._lone
        return self._idle.pop(), self._idle

    def _run(self, request: Any, run: Run, texts: Sequence[Ints]) -> tuple[Matrix, Matrix]:
        """The graph's results for one run; views of the request's memory, until its next run."""
        try:
            inputs = pack(run, texts, self._encoder)
        except Exception as error:  # a text that `prepare` would not have let through
            raise EngineError() from error
        self._runs_began[id(request)] = time.monotonic()
        try:
            results = _infer(request, inputs)
        except Exception as error:  # OpenVINO raises RuntimeError, whatever the reason
            self.is_broken = True
            raise _broken() from error
        finally:
            del self._runs_began[id(request)]
        if self.is_broken:  # by another thread's run, meanwhile
            raise _broken()
        return results

    def _alone(self, run: Run, row_sums: Matrix, texts: Sequence[Ints]) -> list[Run]:
        """A run for each text that shared a row in which something was not finite."""
        shared = [row for row, total in zip(run.texts, row_sums, strict=False) if not isfinite(total)]
        return [
            Run([[index]], 1, columns_for(len(texts[index]), self._longest))
            for row in shared
            if len(row) > 1
            for index in row
        ]

    def _warm_up(self, request: Any, shapes: Sequence[tuple[int, int]], seconds: float) -> None:
        """Run shapes, in this order, until the time is up; one at least. Raises RuntimeError if one fails."""
        until = time.monotonic() + seconds
        for rows, columns in shapes:
            if rows > 1 and self._layout == "single":
                continue
            columns = min(columns, self._longest)
            text = np.full(columns, self._encoder.padding_id, np.int32)
            run = Run([[row] for row in range(rows)], rows, columns)
            vectors, _ = _infer(request, pack(run, [text] * rows, self._encoder))
            if vectors.shape != (rows, self.dimensions):  # OpenVINO does not mind a reshape that does not fit
                raise RuntimeError(f"{rows} texts have vectors of shape {vectors.shape}")
            if time.monotonic() > until:
                return


def streams_for(encoder: Graphed, threads: int) -> int:
    """How many batches an encoder should compute at the same time with so many threads.

    Large encoders: one, which is as fast and answers soonest. Small ones: two or more, of at most
    MOST_THREADS each.
    """
    if encoder.multiplications > SMALL_ENCODER:
        return 1
    return min(threads, max(2, -(-threads // MOST_THREADS)))


def _place(encoder: Graphed, folder: ModelFolder) -> Path:
    """What a message about the model names."""
    return encoder.file if isinstance(encoder, Exported) else folder.path


@signal_stack.kept()
def _compile(graph: ov.Model, dtype: str, threads: int, streams: int, others: Mapping[str, int]) -> Any:
    core = ov.Core()
    settings: dict[str, Any] = {
        **others,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": max(threads, streams),
        # Pinned threads of two processes end up on the same cores, and pinning gained nothing.
        "ENABLE_CPU_PINNING": False,
    }
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if dtype != "auto":
        if CAPABILITIES[dtype] not in able:
            raise ConfigError(f"dtype = {dtype}: this CPU does not compute in it; use auto or f32")
        settings["INFERENCE_PRECISION_HINT"] = dtype
    if dtype == "f32" or (dtype == "auto" and "BF16" not in able):
        # Else integers are multiplied where weights are stored as 4 or 8 bits: 1.7 times as fast, but a
        # text's vector in a batch was up to 0.008 of its length off the one alone. In bf16 it is the same.
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    return core.compile_model(graph, "CPU", settings)


def _broken() -> EngineError:
    """Which text it was is not looked for: no other one gets a vector, either."""
    error = EngineError()
    error.poison = False
    return error


def _infer(request: Any, inputs: Inputs) -> tuple[Matrix, Matrix]:
    """One run of the model. The results are views of the request's memory, until its next run.

    Setting tensors by hand costs 20 us, the convenience of `request.infer({...})` 30 to 45.
    """
    for index, array in enumerate(inputs):
        request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
    request.infer()
    return request.get_output_tensor(0).data, request.get_output_tensor(1).data
