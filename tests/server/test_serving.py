"""A model's threads, which only a model that is served may have."""

from __future__ import annotations

import os

import pytest

from llmrs.config import load
from llmrs.errors import ConfigError
from llmrs.server.metrics import Metrics
from llmrs.server.native import NativeThreads
from llmrs.server.serving import ServedModel
from tests.engines import FakeBackend


def test_a_model_that_cannot_be_served_leaves_no_threads() -> None:
    """Or every attempt to load it, at each change of the configuration, would leave some."""
    config = load({"default_prompt": "nothing"}, environ={}, path=os.devnull)
    tokenizing = NativeThreads(1)
    try:
        before = len(os.listdir("/proc/self/task"))
        with pytest.raises(ConfigError):
            ServedModel(FakeBackend(), config, Metrics(), tokenizing, lambda: False)
        assert len(os.listdir("/proc/self/task")) == before
    finally:
        tokenizing.close()
