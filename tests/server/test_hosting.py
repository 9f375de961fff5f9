"""The engine's side of several processes: it computes the model that is meant, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import falcon.testing
import gevent
import msgspec
import numpy as np
import pytest

from llmrs.backends.frames import Standing, Wanted, read_vectors, write_batch
from llmrs.backends.identity import DIGEST_BYTES, digest_of, files_of, settings_of
from llmrs.config import Config, load
from llmrs.embeddings import Prepared
from llmrs.errors import ModelError
from llmrs.server.app import Application
from llmrs.server.auth import ApiKeys
from llmrs.server.hosting import FAILED_SECONDS, START_SECONDS, UNUSED_SECONDS, Hosting
from tests.models.makers import HIDDEN, Made, make_model, make_static, write_safetensors

IDS = np.array([2, 4, 5, 3], np.int32)
BATCH = [Prepared(IDS, len(IDS))]


class Engine:
    """An engine process's application without a process, and two models that differ in their weights."""

    def __init__(self, folder: Path) -> None:
        self.one, self.other = make_model(folder / "one", seed=1), make_model(folder / "other", seed=2)
        self.config = load({"dtype": "f32", "model_path": str(self.one.folder)}, environ={}, path=os.devnull)
        self.app = Application((), self.config, ApiKeys(()), engine=True)
        assert self.app.hosting is not None
        self.hosting: Hosting = self.app.hosting
        self.now = 1000.0
        self.hosting._clock = lambda: self.now
        self._client = falcon.testing.TestClient(self.app)

    def row(self, model: Made, **changes: Any) -> Config:
        return replace(self.config, model_path=str(model.folder), **changes)

    def digest(self, model: Made, **changes: Any) -> bytes:
        return digest_of(self.row(model, **changes), files_of(model.folder))

    def ask(self, model: Made, digest: bytes | None = None, **changes: Any) -> Standing:
        wanted = Wanted(digest or self.digest(model, **changes), settings_of(self.row(model, **changes)))
        answer = self._client.simulate_post("/model", body=msgspec.json.encode(wanted))
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=Standing)

    def await_answer(self, model: Made, digest: bytes | None = None, **changes: Any) -> Standing:
        """What it says once it is not loading."""
        with gevent.Timeout(60):
            while (standing := self.ask(model, digest, **changes)).state == "loading":
                gevent.sleep(0.02)
        return standing

    def send(self, digest: bytes) -> falcon.testing.Result:
        return self._client.simulate_post("/batch", body=write_batch(digest, BATCH))

    def vector(self, digest: bytes) -> np.ndarray:
        answer = self.send(digest)
        assert answer.status_code == 200, answer.text
        return read_vectors(answer.content, digest, 1, HIDDEN)[0]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    engine.hosting.open(strict=True)
    yield engine
    engine.app.close()


def is_of(vector: np.ndarray, model: Made) -> bool:
    expected = np.asarray(model.oracle(IDS))
    return bool(np.allclose(vector, expected, atol=1e-4))


def test_a_batch_is_computed_by_the_model_it_names(engine: Engine) -> None:
    assert is_of(engine.vector(engine.digest(engine.one)), engine.one)
    assert engine.await_answer(engine.other).state == "ready"
    assert is_of(engine.vector(engine.digest(engine.other)), engine.other)
    assert is_of(engine.vector(engine.digest(engine.one)), engine.one)
    assert not is_of(engine.vector(engine.digest(engine.one)), engine.other), "or all of this says nothing"


@pytest.mark.parametrize("changes", [{"dtype": "bf16"}, {"model_name": "x"}, {"batch_size": 3}])
def test_a_batch_for_other_settings_is_refused(engine: Engine, changes: dict[str, Any]) -> None:
    answer = engine.send(engine.digest(engine.one, **changes))
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "not_ready"


def test_a_batch_for_other_files_is_refused(engine: Engine) -> None:
    before = engine.digest(engine.one)
    os.replace(engine.other.folder / "model.safetensors", engine.one.folder / "model.safetensors")
    after = engine.digest(engine.one)
    assert engine.send(after).status_code == 503
    assert is_of(engine.vector(before), engine.one), "who has read the old files gets the old vectors"
    assert engine.await_answer(engine.one).state == "ready"
    assert is_of(engine.vector(after), engine.other)


def test_files_that_are_not_those_the_gateway_has_read_are_not_loaded_for_it(engine: Engine) -> None:
    before = engine.digest(engine.other)
    make_model(engine.other.folder, seed=3)
    standing = engine.await_answer(engine.other, before)
    assert standing.state == "failed"
    assert "files" in standing.reason
    assert engine.send(before).status_code == 503


@pytest.mark.parametrize("frame", [b"", b"x" * 7, b"x" * DIGEST_BYTES, b"x" * (DIGEST_BYTES + 8)])
def test_what_is_no_batch_is_refused(engine: Engine, frame: bytes) -> None:
    assert engine._client.simulate_post("/batch", body=frame).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{}", b'{"digest":"","settings":{"port":1}}', b"[1"])
def test_what_is_no_question_is_refused(engine: Engine, body: bytes) -> None:
    assert engine._client.simulate_post("/model", body=body).status_code == 400


def test_a_model_that_nobody_asks_for_is_released(engine: Engine) -> None:
    assert engine.await_answer(engine.other).state == "ready"
    engine.now += UNUSED_SECONDS - 1
    engine.hosting.sweep()
    engine.vector(engine.digest(engine.other))  # a batch asks, too
    engine.now += UNUSED_SECONDS - 1
    engine.hosting.sweep()
    assert is_of(engine.vector(engine.digest(engine.other)), engine.other)
    engine.now += UNUSED_SECONDS + 1
    engine.hosting.sweep()
    assert engine.send(engine.digest(engine.other)).status_code == 503
    assert len(engine.app.models) == 1, "that of the start waits longer for the first to ask"
    engine.now += START_SECONDS
    engine.hosting.sweep()
    assert not engine.app.models


def test_what_cannot_be_loaded_is_told_and_not_tried_again_at_once(engine: Engine) -> None:
    whole = (engine.other.folder / "model.safetensors").read_bytes()
    stamp = (engine.other.folder / "model.safetensors").stat().st_mtime_ns
    write_safetensors(engine.other.folder / "model.safetensors", {"x": np.zeros(3)})
    broken = engine.digest(engine.other)
    standing = engine.await_answer(engine.other)
    assert (standing.state, "model.safetensors" in standing.reason) == ("failed", True)
    assert engine.ask(engine.other) == standing
    assert engine.send(broken).status_code == 503
    engine.now += FAILED_SECONDS
    assert engine.ask(engine.other).state == "loading"
    assert engine.await_answer(engine.other) == standing
    (engine.other.folder / "model.safetensors").write_bytes(whole)
    os.utime(engine.other.folder / "model.safetensors", ns=(stamp, stamp))
    assert engine.await_answer(engine.other).state == "ready", "mended files are another model"


def test_a_static_model_is_left_to_the_gateways(tmp_path: Path) -> None:
    static = make_static(tmp_path / "static", 8)
    config = load({"model_path": str(static.folder)}, environ={}, path=os.devnull)
    app = Application((), config, ApiKeys(()), engine=True)
    try:
        assert app.hosting is not None
        app.hosting.open(strict=True)
        assert not app.models
    finally:
        app.close()


def test_a_model_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    try:
        write_safetensors(engine.one.folder / "model.safetensors", {"x": np.zeros(3)})
        with pytest.raises(ModelError):
            engine.hosting.open(strict=True)
        engine.hosting.open(strict=False)
        assert not engine.app.models
    finally:
        engine.app.close()
