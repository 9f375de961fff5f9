"""The local backend behind the contract, and how a backend is chosen."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import threading
import time
import weakref

import numpy as np
import pytest

from llmrs.backends import open_backend
from llmrs.backends.local import LocalBackend, open_local
from llmrs.config import Config
from llmrs.embeddings import Prepared
from llmrs.errors import ConfigError, DeadlineExceeded, EngineError, ModelError, NotReady
from llmrs.models import engine as engine_module
from llmrs.models.engine import streams_for
from llmrs.models.folder import read_folder
from llmrs.models.plan import plan
from tests.engines import FakeBackend
from tests.models.makers import HIDDEN, write_json


def test_what_it_says_about_itself(tiny_backend, tiny):
    info = tiny_backend.info
    assert (tiny_backend.kind, tiny_backend.waits_on) == ("local", "cpu")
    assert (info.name, info.dimensions, info.max_input_tokens) == ("tiny-bert", HIDDEN, tiny.max_tokens)
    assert not info.normalized
    tiny_backend.check(timeout=1)


def test_vectors_are_the_models(tiny_backend, tiny):
    prepared = tiny_backend.prepare(["hello world", [5, 6, 7], "a b c d e f g"])
    vectors = tiny_backend.embed(prepared, timeout=10)
    expected = np.stack([tiny.oracle(each.payload) for each in prepared])
    np.testing.assert_allclose(vectors.matrix, expected, rtol=1e-4, atol=1e-5)
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix.flags.owndata


def test_an_answer_is_not_overwritten_by_the_next(tiny_backend):
    first = tiny_backend.embed(tiny_backend.prepare(["hello"]), timeout=10).matrix
    copy = first.copy()
    tiny_backend.embed(tiny_backend.prepare(["world"]), timeout=10)
    np.testing.assert_array_equal(first, copy)


def test_an_empty_batch(tiny_backend):
    assert tiny_backend.embed([], timeout=10).matrix.shape == (0, HIDDEN)


def test_it_tells_how_many_places_it_computed(tiny_backend):
    lengths = (5, 3, 30)
    texts = [Prepared(np.full(length, 5, np.int32), length) for length in lengths]
    runs = plan(lengths, tiny_backend.info.max_input_tokens)
    assert tiny_backend.embed(texts, timeout=10).cells == sum(run.rows * run.columns for run in runs)


def test_the_timeout_is_for_the_whole_call(tiny_backend, monkeypatch):
    infer = engine_module._infer

    def slow(*arguments):
        time.sleep(0.05)
        return infer(*arguments)

    monkeypatch.setattr(engine_module, "_infer", slow)
    texts = tiny_backend.prepare(["a " * 30, "a"] * 200, truncate="end")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        tiny_backend.embed(texts, timeout=0.2)
    assert time.monotonic() - began < 2
    monkeypatch.undo()
    assert len(tiny_backend.embed(texts, timeout=60).matrix) == 400


def test_a_failing_batch_is_an_engine_error(tiny_backend, tiny):
    """Here a text longer than the model, which `prepare` would never let through."""
    length = tiny.max_tokens + 1
    with pytest.raises(EngineError) as raised:
        tiny_backend.embed([Prepared(np.full(length, 5, np.int32), length)], timeout=10)
    assert raised.value.poison


def test_a_model_is_not_trusted_once_its_inference_has_failed(tiny, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("Exception from src/inference:\n details over lines")

    backend = LocalBackend(str(tiny.folder), dtype="f32", threads=1)
    texts = backend.prepare(["hello"])
    assert not backend.is_broken
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "_infer", fail)
        with pytest.raises(EngineError, match="could not compute") as raised:
            backend.embed(texts, timeout=10)
    assert "details" not in str(raised.value)
    assert not raised.value.poison, "which text it was does not matter any more"
    assert backend.is_broken
    with pytest.raises(NotReady) as refused:
        backend.embed(texts, timeout=10)
    assert refused.value.retry_after


def test_what_was_computed_while_the_model_broke_is_not_handed_out(tiny, monkeypatch):
    backend = LocalBackend(str(tiny.folder), dtype="f32", threads=1)
    real = engine_module._infer

    def infer(*arguments):
        backend._engine.is_broken = True  # as another thread's run would
        return real(*arguments)

    monkeypatch.setattr(engine_module, "_infer", infer)
    with pytest.raises(EngineError):
        backend.embed(backend.prepare(["hello"]), timeout=10)


def test_inference_does_not_hold_the_gil(default_f32):
    """Another thread gets on while a batch is computed."""
    prepared = default_f32.prepare(["word " * 250] * 16, truncate="end")
    longest = 0.0
    computing = threading.Event()

    def work():
        default_f32.embed(prepared, timeout=60)
        computing.set()

    thread = threading.Thread(target=work)
    began = last = time.perf_counter()
    thread.start()
    while not computing.is_set():
        time.sleep(0.0005)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    thread.join()
    assert longest < (last - began) / 2


def test_closed(tiny):
    backend = LocalBackend(str(tiny.folder), dtype="f32", threads=1)
    prepared = backend.prepare(["hello"])
    backend.close()
    backend.close()
    for call in (lambda: backend.check(timeout=1), lambda: backend.embed(prepared, timeout=1)):
        with pytest.raises(EngineError, match="unloaded"):
            call()


def test_a_model_on_demand(tiny):
    """Texts are prepared before it is loaded; loaded and unloaded it is the same model."""
    backend = LocalBackend(str(tiny.folder), dtype="f32", threads=1, on_demand=True)
    eager = LocalBackend(str(tiny.folder), dtype="f32", threads=1)
    assert (backend.on_demand, backend.is_loaded, eager.on_demand, eager.is_loaded) == (
        True,
        False,
        False,
        True,
    )
    assert backend.limits == eager.limits
    prepared = backend.prepare(["hello"])
    backend.check(timeout=1)
    with pytest.raises(EngineError):
        backend.embed(prepared, timeout=10)
    for _ in "ab":
        backend.load()
        assert backend.is_loaded
        np.testing.assert_array_equal(
            backend.embed(prepared, timeout=10).matrix, eager.embed(prepared, timeout=10).matrix
        )
        engine = weakref.ref(backend._engine)
        backend.unload()
        assert engine() is None, "or its memory would stay until the next collection, or for ever"
    assert backend.computing_since() is None
    assert not backend.is_broken


def test_what_a_model_weighs_is_known_before_it_is_loaded(tiny):
    backend = LocalBackend(str(tiny.folder), dtype="f32", threads=1, on_demand=True)
    assert backend.weight_bytes == (tiny.folder / "model.safetensors").stat().st_size


def test_other_weights_than_those_of_its_configuration_are_not_loaded(made):
    backend = LocalBackend(str(made.folder), dtype="f32", threads=1, on_demand=True)
    weights = made.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, ns=(1, 1))
    with pytest.raises(ModelError, match="weights have changed"):
        backend.load()
    assert not backend.is_loaded


def test_unloading_gives_the_memory_back(default_f32, tiny):
    """Ten rounds of two models leave no more behind than the first."""
    large = LocalBackend(dtype="f32", threads=1, on_demand=True)
    small = LocalBackend(str(tiny.folder), dtype="f32", threads=1, on_demand=True)
    sizes, loaded = [], 0
    for _ in range(10):
        for backend in (large, small):
            backend.load()
            loaded = max(loaded, resident_bytes())
            backend.unload()
        sizes.append(resident_bytes())
    assert loaded - min(sizes) > large.weight_bytes / 2, "or this measures nothing"
    assert max(sizes[5:]) - sizes[0] < large.weight_bytes / 2


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_dtype_that_the_cpu_lacks(tiny, monkeypatch):
    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

    monkeypatch.setattr(engine_module.ov, "Core", Core)
    for dtype in ("f16", "bf16"):
        with pytest.raises(ConfigError, match=f"dtype = {dtype}.*use auto or f32") as raised:
            LocalBackend(str(tiny.folder), dtype=dtype)
        assert "\n" not in str(raised.value)


def test_prompts_reach_info(made):
    write_json(made.folder / "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
    assert LocalBackend(str(made.folder)).info.prompts == {"query": "query: "}


# -- choosing -------------------------------------------------------------------------------------


def test_the_configuration_reaches_the_backend(tiny):
    config = Config(
        model_path=str(tiny.folder),
        dtype="f32",
        batch_size=7,
        workers=2,
        max_batch_tokens=99,
        inference_threads=1,
    )
    backend = open_backend(config)
    assert isinstance(backend, LocalBackend)
    assert backend.precision == "f32"
    assert (backend.limits.batch_size, backend.limits.batch_tokens, backend.limits.slots) == (7, 99, 2)


@pytest.mark.parametrize(("threads", "slots"), [(1, 1), (2, 2), (8, 2), (16, 4)])
def test_unset_workers_follow_the_threads(tiny, threads, slots):
    backend = open_local(Config(model_path=str(tiny.folder), inference_threads=threads))
    assert backend.limits.slots == slots
    assert backend.description.endswith(f"{slots} x {threads // slots} threads")


def test_a_large_model_computes_one_batch_at_a_time(tiny):
    encoder = read_folder(tiny.folder).encoder
    large = dataclasses.replace(
        encoder,
        layers=encoder.layers[:1] * 12,
        heads=12,
        key_heads=12,
        head_width=64,
        hidden=768,
        intermediate=3072,
    )
    assert large.multiplications == 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert [streams_for(large, threads) for threads in (1, 2, 16)] == [1, 1, 1]


def test_a_text_that_comes_alone_has_all_threads(tiny):
    """Two copies of the model; whichever computes, the vector is the same."""
    engine = engine_module.Engine(read_folder(tiny.folder), dtype="f32", threads=2, streams=2)
    text = np.array([5, 6, 7], np.int32)
    expected = tiny.oracle(text)[None]
    claimed = []

    def claim(n_texts, home):
        claimed.append(engine._claim(n_texts))
        assert claimed[-1][1] is home
        np.testing.assert_allclose(engine.embed([text]).matrix, expected, rtol=1e-4, atol=1e-5)

    np.testing.assert_allclose(engine.embed([text]).matrix, expected, rtol=1e-4, atol=1e-5)
    claim(1, engine._lone)
    assert not engine._lone
    claim(1, engine._idle)
    for request, home in claimed:
        home.append(request)
    claimed.clear()
    claim(2, engine._idle)
    assert engine._lone
    assert engine._claim(1)[1] is engine._idle, "a stream computes already"


def test_every_text_fits_a_batch(tiny):
    backend = open_local(Config(model_path=str(tiny.folder), max_batch_tokens=3))
    assert backend.limits.batch_tokens == backend.info.max_input_tokens


def test_a_model_that_is_not_there_stops_the_start(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        open_backend(Config(model_path=str(tmp_path / "none"), offline=True))


def test_an_address_means_an_http_backend():
    backend = open_backend(Config(backend_url=("http://127.0.0.1:1",)))
    assert backend.waits_on == "network"
    backend.close()


class Installed:
    """An entry point of an installed package."""

    def __init__(self, name, opener):
        self.name = name
        self.value = "package.module:opener"
        self.load = opener


@pytest.fixture
def install(monkeypatch):
    def install(name, load):
        def entry_points(group):
            return [Installed(name, load)] if group == "llmrs.backends" else []

        monkeypatch.setattr("llmrs.backends.entry_points", entry_points)
        return Config(backend_type=name)

    return install


def test_an_installed_backend(install):
    seen = []
    config = install("mine", lambda: lambda config: seen.append(config) or FakeBackend())
    assert isinstance(open_backend(config), FakeBackend)
    assert seen == [config]


def test_a_backend_that_is_not_installed(install):
    install("mine", lambda: FakeBackend)
    with pytest.raises(ConfigError, match="only local, proxy, mine"):
        open_backend(Config(backend_type="other"))


def test_an_installed_backend_that_cannot_be_imported(install):
    def load():
        raise ImportError("no module named secret")

    with pytest.raises(ConfigError, match="cannot be imported") as raised:
        open_backend(install("mine", load))
    assert "secret" not in str(raised.value)


def test_an_installed_backend_that_is_none(install):
    with pytest.raises(ConfigError, match="does not return"):
        open_backend(install("mine", lambda: lambda config: object()))


def test_entry_points_are_looked_up_for_real():
    assert list(importlib.metadata.entry_points(group="llmrs.backends")) == []
    with pytest.raises(ConfigError, match="no such backend"):
        open_backend(Config(backend_type="surely-not-installed"))
