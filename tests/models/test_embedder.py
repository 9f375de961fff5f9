"""The in-process API."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

import llmrs
from llmrs.embedder import INLINE_CHARACTERS, Embedder
from llmrs.embeddings import Vectors
from llmrs.errors import ContextLengthExceeded, EngineError, InvalidRequest, ModelError, NonFiniteEmbedding
from tests.models.makers import HIDDEN, make_model, make_static, write_json

TEXTS = ["hello world", "a", "", "a b c d e f g h i j k l m n o p", "hello", "query : hello"] * 5


@pytest.fixture(scope="module")
def embedder(tiny):
    with Embedder(str(tiny.folder), dtype="f32", batch_size=4, threads=1) as embedder:
        yield embedder


def test_the_signature_is_the_same_for_threads_and_tasks():
    assert inspect.signature(Embedder.embed) == inspect.signature(Embedder.aembed)


def expected(tiny, embedder, texts):
    prepared = embedder._backend.prepare(texts, truncate="end")
    vectors = np.stack([tiny.oracle(each.payload) for each in prepared])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_package_offers_it_without_loading_it():
    assert llmrs.Embedder is Embedder
    assert llmrs.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="nothing"):
        llmrs.nothing  # noqa: B018
    heavy = ("numpy", "openvino", "tokenizers", "gevent", "falcon", "requests", "huggingface_hub")
    code = f"import sys, llmrs; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_embedding_loads_no_server():
    code = (
        "import sys; from llmrs import Embedder;"
        "servers = {'gevent', 'falcon', 'gunicorn', 'requests', 'prometheus_client', 'huggingface_hub'};"
        "assert not servers & set(sys.modules), servers & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def static(tmp_path):
    made = make_static(tmp_path / "static", 16)
    with Embedder(str(made.folder), batch_size=4) as embedder:
        yield embedder


@pytest.mark.parametrize("n_texts", [1, 9])
def test_short_texts_of_a_static_model_are_computed_by_who_asks(static, monkeypatch, n_texts):
    """Waking a thread would take longer. Many texts go to one as ever."""
    threads = set()
    embed = static._collector._embed
    monkeypatch.setattr(
        static._collector,
        "_embed",
        lambda *args, **kwargs: (threads.add(threading.get_ident()), embed(*args, **kwargs))[1],
    )
    texts = [f"hello {letter}" for letter in "abcdefghi"[:n_texts]]
    own = static.embed(texts)
    np.testing.assert_array_equal(asyncio.run(static.aembed(texts)), own)
    assert threads == {threading.get_ident()}
    threads.clear()
    monkeypatch.setattr(static._collector, "_inline_tokens", 1)
    np.testing.assert_array_equal(static.embed(texts), own)
    assert threads
    assert threading.get_ident() not in threads


def test_a_static_model_that_fails_or_is_closed(static, monkeypatch):
    monkeypatch.setattr(static._collector, "_embed", lambda *args, **kwargs: 1 // 0)
    with pytest.raises(EngineError, match="could not compute"):
        static.embed("hello")
    monkeypatch.undo()
    static.close()
    with pytest.raises(EngineError, match="unloaded"):
        static.embed("hello")


def test_order_and_values(tiny, embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), HIDDEN) == (len(TEXTS), embedder.dimensions)
    np.testing.assert_allclose(vectors, expected(tiny, embedder, TEXTS), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_one_text_gives_one_row(embedder):
    np.testing.assert_allclose(embedder.embed("hello"), embedder.embed(["hello"]), atol=1e-6)
    assert embedder.embed("hello").shape == (1, HIDDEN)


def test_no_text_gives_no_row(embedder):
    assert embedder.embed([]).shape == (0, HIDDEN)


@pytest.fixture
def batches(embedder, monkeypatch):
    """Tokens of each text of each batch that reaches the engine."""
    batches = []
    embed = embedder._backend.embed

    def watched(batch, *, timeout):
        batches.append([each.n_tokens for each in batch])
        return embed(batch, timeout=timeout)

    monkeypatch.setattr(embedder._collector, "_embed", watched)
    return batches


def test_batches_stay_within_the_limits(embedder, batches):
    texts = [" ".join("abcdefghijklmnop"[:n]) for n in range(1, 16)]
    embedder.embed(texts)
    assert max(map(len, batches)) == 4
    assert sorted(tokens for batch in batches for tokens in batch) == list(range(3, 18))


def test_the_token_budget_counts_too(embedder, batches, monkeypatch):
    monkeypatch.setitem(vars(embedder._backend.limits), "batch_tokens", 40)
    texts = ["a b c d e f g h i j k l m n " + last for last in "abcdefghi"]  # 17 tokens each
    embedder.embed(texts)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 1]


def test_without_normalization(tiny):
    with Embedder(str(tiny.folder), dtype="f32", normalize=False, threads=1) as embedder:
        vectors = embedder.embed(TEXTS)
        prepared = embedder._backend.prepare(TEXTS)
    raw = np.stack([tiny.oracle(each.payload) for each in prepared])
    np.testing.assert_allclose(vectors, raw, rtol=1e-3, atol=1e-4)


def test_truncation(embedder, tiny):
    long = "a b " * 100
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\]"):
        embedder.embed(["a", long], truncate="none")
    room = tiny.max_tokens - 2
    np.testing.assert_allclose(embedder.embed(long), embedder.embed("a b " * (room // 2)), atol=1e-6)
    np.testing.assert_allclose(
        embedder.embed("c " * 100 + "d", truncate="start"), embedder.embed("c " * (room - 1) + "d"), atol=1e-6
    )


def test_what_a_tokenizer_cuts_off_where_nobody_says(tmp_path):
    made = make_model(tmp_path)
    settings = {"truncation_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(tmp_path / "tokenizer_config.json", settings)
    long = "c " * 100 + "d"
    with Embedder(str(tmp_path), dtype="f32", threads=1) as embedder:
        rows = [
            embedder.embed(long),
            asyncio.run(embedder.aembed(long)),
            embedder.embed(long, truncate="start"),
        ]
        kept = embedder.embed("c " * (made.max_tokens - 3) + "d")
        for row in rows:
            np.testing.assert_allclose(row, kept, atol=1e-6)
        assert not np.allclose(embedder.embed(long, truncate="end"), kept, atol=1e-3)


def test_prompts(tmp_path):
    made = make_model(tmp_path)
    prompts = {"query": "query: ", "document": "passage: ", "plain": "hello "}
    write_json(
        tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "plain"}
    )
    with Embedder(str(made.folder), dtype="f32", threads=1) as embedder:
        for input_type, prompt in (("query", "query: "), ("document", "passage: "), (None, "hello ")):
            with_prompt = embedder.embed("a", input_type=input_type)
            np.testing.assert_allclose(with_prompt, expected(made, embedder, [prompt + "a"]), atol=1e-5)


@pytest.mark.parametrize("texts", [["a", 3], [None], [["a"]], [b"a"]])
def test_only_strings(embedder, texts):
    with pytest.raises(TypeError, match="must be strings"):
        embedder.embed(texts)


def test_batch_size_must_be_positive(tiny):
    with pytest.raises(ValueError, match="batch_size"):
        Embedder(str(tiny.folder), batch_size=0)


def test_a_model_that_is_not_there():
    with pytest.raises(ModelError):
        Embedder("/no/such/folder", offline=True)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_vectors_are_never_handed_out(embedder, monkeypatch, bad, normalize):
    embed = embedder._backend.embed

    def broken(batch, *, timeout):
        matrix = embed(batch, timeout=timeout).matrix
        matrix[[each.n_tokens == 2 for each in batch], 3] = bad
        return Vectors(matrix)

    monkeypatch.setattr(embedder._collector, "_embed", broken)
    monkeypatch.setattr(embedder, "_normalize", normalize)
    with pytest.raises(NonFiniteEmbedding, match="index 2"):
        embedder.embed(["hello", "a", "", "world"])


def test_large_and_zero_vectors_are_scaled_safely(embedder):
    matrix = np.array([[3e38, 3e38], [0, 0], [1e-30, 0]], np.float32)
    scaled = embedder._finished(matrix, 2)
    np.testing.assert_allclose(scaled, [[0.5**0.5, 0.5**0.5], [0, 0], [1, 0]], rtol=1e-6)
    assert scaled.dtype == np.float32


def test_threads(tiny, embedder):
    wanted = expected(tiny, embedder, TEXTS)
    failures = []

    def work(shift):
        texts = TEXTS[shift:] + TEXTS[:shift]
        vectors = embedder.embed(texts)
        if not np.allclose(vectors, np.roll(wanted, -shift, axis=0), rtol=1e-3, atol=1e-5):
            failures.append(shift)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_closed(tiny):
    with Embedder(str(tiny.folder), dtype="f32", threads=1) as embedder:
        assert len(embedder.embed("a")) == 1
    with pytest.raises(EngineError, match="unloaded"):
        embedder.embed("a")


def test_a_forgotten_embedder_ends_its_threads(tiny):
    def threads():
        return {thread for thread in threading.enumerate() if thread.name.startswith("llmrs-embedder")}

    before = threads()
    embedder = Embedder(str(tiny.folder), dtype="f32", threads=1)
    embedder.embed("a")
    mine = threads() - before
    assert mine
    del embedder
    gc.collect()
    for thread in mine:
        thread.join(60)
        assert not thread.is_alive()


# -- smaller widths and named prompts ---------------------------------------------------------------


def declare(folder, sizes):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "matryoshka_dimensions": sizes})


@pytest.mark.parametrize("normalize", [True, False])
def test_a_smaller_width_is_cut_and_scaled_again(tiny, normalize):
    with Embedder(str(tiny.folder), dtype="f32", normalize=normalize, threads=1) as embedder:
        whole = embedder.embed(TEXTS)
        cut = embedder.embed(TEXTS, dimensions=5)
        assert embedder.embed([], dimensions=5).shape == (0, 5)
        np.testing.assert_array_equal(embedder.embed("a", dimensions=HIDDEN), embedder.embed("a"))
    assert cut.shape == (len(TEXTS), 5)
    lengths = np.linalg.norm(whole[:, :5].astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(cut, whole[:, :5] / lengths, atol=1e-6)


@pytest.mark.parametrize("width", [0, -1, HIDDEN + 1])
def test_a_width_the_model_does_not_have(embedder, width):
    with pytest.raises(InvalidRequest, match="dimensions must be"):
        embedder.embed("a", dimensions=width)


def test_declared_widths_are_the_only_ones(tmp_path):
    made = make_model(tmp_path)
    declare(made.folder, [8, 16])
    with Embedder(str(made.folder), dtype="f32", threads=1) as embedder:
        assert embedder.embed("a", dimensions=8).shape == (1, 8)
        with pytest.raises(InvalidRequest, match=f"dimensions must be {HIDDEN} or of 8, 16"):
            embedder.embed("a", dimensions=9)


def test_prompts_by_name(tmp_path):
    made = make_model(tmp_path)
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"plain": "hello "}})
    with Embedder(str(made.folder), dtype="f32", threads=1) as embedder:
        named = embedder.embed("a", prompt_name="plain")
        np.testing.assert_allclose(named, expected(made, embedder, ["hello a"]), atol=1e-5)
        with pytest.raises(InvalidRequest, match="no prompt of that name"):
            embedder.embed("a", prompt_name="other")


# -- asyncio ----------------------------------------------------------------------------------------


def test_tasks_get_what_threads_get(embedder):
    async def main():
        alone = await asyncio.gather(*(embedder.aembed(text) for text in TEXTS))
        together = await embedder.aembed(TEXTS)
        long = await embedder.aembed(["a b c " * INLINE_CHARACTERS, "b"], dimensions=4)
        nothing = await embedder.aembed([])
        return np.concatenate(alone), together, long, nothing

    alone, together, long, nothing = asyncio.run(main())
    np.testing.assert_allclose(alone, embedder.embed(TEXTS), atol=1e-5)
    np.testing.assert_allclose(together, embedder.embed(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        long, embedder.embed(["a b c " * INLINE_CHARACTERS, "b"], dimensions=4), atol=1e-5
    )
    assert nothing.shape == (0, HIDDEN)


def test_tasks_share_batches(tiny, monkeypatch):
    sizes = []
    with Embedder(str(tiny.folder), dtype="f32", threads=1) as embedder:
        embed = embedder._backend.embed
        gate = threading.Event()

        def watched(batch, *, timeout):
            sizes.append(len(batch))
            assert gate.wait(60)
            return embed(batch, timeout=timeout)

        monkeypatch.setattr(embedder._collector, "_embed", watched)

        async def main():
            first = asyncio.create_task(embedder.aembed("hello"))
            while not sizes:
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(embedder.aembed(letter)) for letter in "abcdefgh"]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(first, *rest)

        asyncio.run(main())
    assert sizes == [1, 8]


def test_a_cancelled_task_leaves_nothing_behind(embedder, monkeypatch):
    gate = threading.Event()
    embed = embedder._backend.embed

    def slow(batch, *, timeout):
        assert gate.wait(60)
        return embed(batch, timeout=timeout)

    monkeypatch.setattr(embedder._collector, "_embed", slow)

    async def main():
        task = asyncio.create_task(embedder.aembed("hello"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gate.set()  # the batch comes back to a loop that is closed
    assert embedder.embed("a").shape == (1, HIDDEN)


def test_errors_reach_tasks(embedder):
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\]"):
        asyncio.run(embedder.aembed(["a", "a b " * 100], truncate="none"))
    with pytest.raises(TypeError, match="must be strings"):
        asyncio.run(embedder.aembed(["a", 3]))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_mean_of_chunks(tiny, normalize):
    room = tiny.max_tokens - 2
    parts = ["a b " * (room // 2), "c d " * (room // 2), "e f g "]
    with Embedder(str(tiny.folder), dtype="f32", threads=1, normalize=normalize) as embedder:
        found = embedder.embed(["hello", "".join(parts)], truncate="chunk_mean")
        chunks = embedder.embed(parts).astype(np.float64)
        mean = np.average(chunks, axis=0, weights=[room, room, 3])
        if normalize:
            mean /= np.linalg.norm(mean)
        np.testing.assert_allclose(found[1], mean, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[0], embedder.embed("hello")[0], atol=1e-5)
        waited = asyncio.run(embedder.aembed(["hello", "".join(parts)], truncate="chunk_mean"))
        np.testing.assert_allclose(waited, found, rtol=1e-3, atol=1e-5)


def test_callers_who_share_a_batch_share_no_memory(tiny):
    with Embedder(str(tiny.folder), dtype="f32", normalize=False, threads=1) as embedder:
        found = []
        callers = [
            threading.Thread(target=lambda: found.append(embedder.embed(["hello world"]))) for _ in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(found) == 8
    assert not any(np.shares_memory(a, b) for i, a in enumerate(found) for b in found[:i])
