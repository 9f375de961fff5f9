"""The default model against sentence-transformers' vectors, in the precisions of this machine."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.embeddings import Prepared
from llmrs.errors import ConfigError
from llmrs.models import engine
from llmrs.models.resolve import DEFAULT_MODEL

pytestmark = pytest.mark.model

REQUIRED = {"f32": 0.999999, "bf16": 0.9998}
TIMEOUT = 60.0


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


ABLE = engine.ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ["f32", "auto", *(dtype for dtype in ("bf16",) if engine.CAPABILITIES[dtype] in ABLE)]
"""Those of this CPU. Where it lacks one, OpenVINO has no arithmetic that would stand in: that is refused."""


@pytest.fixture(scope="module", params=PRECISIONS)
def backend(request, default_f32):
    if request.param == "f32":
        return default_f32
    return LocalBackend(DEFAULT_MODEL, dtype=request.param, offline=True)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_a_precision_that_the_cpu_lacks_is_refused(dtype, monkeypatch):
    """As on a CPU with AVX2 alone."""
    older = SimpleNamespace(get_property=lambda *names: ["FP32", "INT8"])
    monkeypatch.setattr(engine.ov, "Core", lambda: older)
    with pytest.raises(
        ConfigError, match=f"dtype = {dtype}: this CPU does not compute in it; use auto or f32"
    ):
        LocalBackend(DEFAULT_MODEL, dtype=dtype, offline=True)


def test_the_precision_is_the_one_asked_for(backend, request):
    wanted = request.node.callspec.params["backend"]
    assert backend.precision == wanted or (wanted == "auto" and backend.precision in REQUIRED)


def test_each_text_alone(backend, references):
    texts, _, expected = references
    prepared = backend.prepare(texts, truncate="end")
    vectors = np.concatenate([backend.embed([each], timeout=TIMEOUT).matrix for each in prepared])
    assert cosines(vectors, expected).min() >= REQUIRED[backend.precision]


def test_all_texts_in_one_batch(backend, references):
    texts, _, expected = references
    vectors = backend.embed(backend.prepare(texts, truncate="end"), timeout=TIMEOUT).matrix
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape
    assert vectors.flags.c_contiguous
    assert vectors.flags.owndata
    assert cosines(vectors, expected).min() >= REQUIRED[backend.precision]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_vector_does_not_depend_on_its_batch(backend, references, seed):
    """Nor on its place: batches are shuffled, cut at random, and hold texts twice."""
    texts, _, expected = references
    random = np.random.default_rng(seed)
    order = random.integers(0, len(texts), 40)
    prepared = backend.prepare([texts[index] for index in order], truncate="end")
    size = int(random.integers(2, 20))
    vectors = np.concatenate(
        [backend.embed(prepared[at : at + size], timeout=TIMEOUT).matrix for at in range(0, 40, size)]
    )
    assert cosines(vectors, expected[order]).min() >= REQUIRED[backend.precision]


def test_empty_and_blank_texts_are_the_models_empty_text(backend):
    vectors = backend.embed(backend.prepare(["", "  \n\t "]), timeout=TIMEOUT).matrix
    assert backend.prepare([""])[0].n_tokens == 2
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.isfinite(vectors).all()


def test_every_length_agrees_with_its_neighbour_shapes(default_f32):
    """Each padded length is used once, filled and not; the vectors are those of the text alone."""
    random = np.random.default_rng(0)
    for length in (1, 7, 8, 9, 63, 64, 65, 80, 81, 128, 129, 160, 255, 256):
        ids = random.integers(1000, 30000, length).astype(np.int32)
        longer = random.integers(1000, 30000, min(256, length + 5)).astype(np.int32)
        alone = default_f32.embed([Prepared(ids, length)], timeout=TIMEOUT).matrix[0]
        pair = [Prepared(longer, len(longer)), Prepared(ids, length), Prepared(ids, length)]
        for vector in default_f32.embed(pair, timeout=TIMEOUT).matrix[1:]:
            assert cosines(vector, alone) >= 0.999999


def test_more_slots_compute_the_same_at_once(references):
    texts, _, expected = references
    backend = LocalBackend(DEFAULT_MODEL, dtype="f32", slots=2, offline=True)
    assert backend.limits.slots == 2
    prepared = backend.prepare(texts, truncate="end")
    results = {}

    def work(name):
        results[name] = backend.embed(prepared, timeout=TIMEOUT).matrix

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cosines(results[name], expected).min() >= REQUIRED["f32"] for name in range(2)] == [True, True]
