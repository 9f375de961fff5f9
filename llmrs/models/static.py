"""A static model, computed: token ids in, the means of their word vectors out.

A text takes a microsecond or a few, most of it to fetch its rows from memory, so there is no graph, no thread
of its own and nothing to warm up. The table stays a mapped file where it holds float32; in other dtypes it
is converted once, when it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrs import _fast
from llmrs.embeddings import Matrix, Vectors
from llmrs.errors import ConfigError, EngineError, ModelError
from llmrs.models import golden
from llmrs.models.folder import ModelFolder
from llmrs.models.modules import Normalize
from llmrs.models.packing import Ints
from llmrs.models.weights import Weights
from llmrs.models.wordtable import MAPPING, WEIGHTS, Static, table_name, table_shape

STREAMS = 2
"""A long batch is computed on one thread while short ones go past it."""


class Table(NamedTuple):
    """Word vectors by token id.

    Attributes:
        numbers: float32, [rows, width].
        mapping: int32, the row of each id; None where that is the id itself.
        weights: float32, what the row of each id is multiplied by; None for 1.
    """

    numbers: Matrix
    mapping: Ints | None
    weights: NDArray[np.float32] | None


class StaticEngine:
    """The word table of a folder.

    Attributes:
        dimensions: width of the vectors.
        precision: always `f32`.
        streams: batches computed at the same time.
        threads: one for each.
        is_broken: never.
    """

    precision = "f32"
    threads = 1
    is_broken = False

    def __init__(self, folder: ModelFolder, *, dtype: str = "auto", streams: int = 0) -> None:
        """Map the table and check it.

        Args:
            dtype: `auto` or `f32`.
            streams: batches computed at the same time; 0 for what suits.

        Raises:
            ConfigError: another dtype was asked for.
            ModelError: the tensors do not fit each other, or are damaged.
        """
        if dtype not in ("auto", "f32"):
            raise ConfigError(f"dtype = {dtype}: a static model computes in f32; use auto or f32")
        encoder = folder.encoder
        assert isinstance(encoder, Static)  # see open_engine
        self.dimensions = folder.dimensions
        self.streams = streams or STREAMS
        self._normalizes = any(isinstance(step, Normalize) for step in folder.steps)
        weights = Weights.of(folder.path)
        weights.read_ahead()
        self._table = load_table(weights, encoder)
        golden.check(
            lambda texts: self.embed(texts).matrix,
            vocabulary=encoder.vocabulary,
            longest=encoder.max_tokens,
            precision=self.precision,
            place=str(folder.path),
        )

    def embed(self, texts: Sequence[Ints], *, timeout: float = float("inf")) -> Vectors:
        """Vectors of texts given as token ids, float32 [len(texts), dimensions], in order.

        A text may have no ids, and has the zero vector then. Nothing here takes long enough for `timeout`
        to be looked at.

        Raises:
            EngineError: an id is outside the vocabulary.
        """
        lengths = np.array([len(text) for text in texts], np.int64)
        ids = texts[0] if len(texts) == 1 else np.concatenate(texts)
        try:
            matrix = _fast.mean_rows(ids, lengths, *self._table)
        except ValueError as error:  # a text that `prepare` would not have let through
            raise EngineError() from error
        if self._normalizes:
            matrix = unit_rows(matrix)
        if self.dimensions < matrix.shape[1]:
            matrix = np.ascontiguousarray(matrix[:, : self.dimensions])
        return Vectors(matrix, cells=len(ids))

    def computing_since(self) -> float | None:
        """Never known: no computation is long enough to hang."""
        return None


def unit_rows(matrix: Matrix) -> Matrix:
    """The rows scaled to length 1; those that are zero stay so, and those that are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        scaled = matrix / np.where(lengths == 0, 1, lengths)[:, None]
    return scaled.astype(np.float32)


def load_table(weights: Weights, encoder: Static) -> Table:
    """The word table in a file.

    Raises:
        ModelError: a tensor has another shape or dtype than it must have, or a row is not there.
    """
    rows, width = table_shape(weights)
    numbers = weights.get(table_name(weights), (rows, width), integers=True).floats()
    mapping, factors = None, None
    if weights.shape(MAPPING) is not None:
        found = weights.get(MAPPING, (encoder.vocabulary,), integers=True).data
        if found.dtype.kind != "i" or found.min() < 0 or found.max() >= rows:
            raise ModelError(f"{weights.place}: tensor {MAPPING} names rows that the table does not have")
        mapping = found.astype(np.int32)
    if weights.shape(WEIGHTS) is not None:
        factors = weights.get(WEIGHTS, (encoder.vocabulary,)).floats()
    weights.check_all_known()
    return Table(numbers, mapping, factors)
