"""llmrs around a model that computes nothing: what all but the engine costs.

The whole service as it is served, from the worker class to the response body; only the vectors come
from a table instead of a model, and texts are not tokenized.

    python bench/null_service.py --port 3000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from llmrs.backends.base import Backend
from llmrs.config import Config
from llmrs.embeddings import Input, Limits, ModelInfo, Prepared, Truncate, Vectors
from llmrs.server.process import Server

DIMENSIONS = 384


class NullBackend(Backend):
    """The same vector for every text."""

    kind = "null"
    waits_on: ClassVar[Literal["cpu", "network"]] = "cpu"
    info = ModelInfo("null", DIMENSIONS, 512)
    limits = Limits(batch_size=32, batch_tokens=16384, slots=1, efficient_tokens=512)

    def __init__(self) -> None:
        self._vector = np.random.default_rng(0).normal(size=DIMENSIONS).astype(np.float32)

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate = "none", prompt: str = ""
    ) -> list[Prepared]:
        return [Prepared(each, 8) for each in inputs]

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        return Vectors(np.tile(self._vector, (len(batch), 1)))

    def check(self, *, timeout: float) -> None:
        return


class NullServer(Server):
    """The server of `llmrs serve` with the application around a NullBackend."""

    def load(self) -> object:
        from llmrs.server.app import create_app

        return create_app([NullBackend()], self._config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=3000)
    NullServer(Config(port=parser.parse_args().port, queue_capacity=10_000)).run()
