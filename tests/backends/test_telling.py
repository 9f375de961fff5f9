"""What each backend can be told: obeyed, done here, or refused by the field's name; and what was cut."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.pool import open_http
from llmrs.backends.protocols import TEI, Azure, Embed, Ollama, OpenAI, Protocol
from llmrs.backends.refusals import refusal
from llmrs.backends.transport import Answer
from llmrs.config import Config
from llmrs.embeddings import CallOptions
from llmrs.errors import ContextLengthExceeded, InvalidRequest, UpstreamRejected, UpstreamTooLong

from .services import shapes
from .services.vectors import WIDTH, cut, vector
from .services.wire import serve

LONG = "first " + "word " * 400 + "last"
SHORT = "a short text"

SHAPES = {
    "embed": shapes.embed(),
    "tei": shapes.tei(),
    "tei, without a tokenizer": shapes.tei(tokenizes=False),
    "tei, without info": shapes.tei(info=False, max_client_batch_size=32),
    "ollama": shapes.ollama(openai_too=True),
    "openai": shapes.openai(cuts=True, unit=True),
    "openai, llmrs": shapes.llmrs(),
}


def backend_at(service, **options):
    backend = open_http(Config(backend_url=(service.url,), **options))
    backend.check(timeout=5)
    return backend


def embed(backend, inputs, *, truncate=None, dimensions=None):
    prepared = backend.prepare_for(inputs, truncate=truncate, prompt="", dimensions=dimensions)
    return backend.embed(prepared, timeout=10)


def direction(row):
    row = np.array(row, np.float64)
    return row / np.linalg.norm(row)


def assert_same(matrix, expected):
    for row, other in zip(matrix, expected, strict=True):
        np.testing.assert_allclose(direction(row[: len(other)]), direction(other), atol=1e-6)


# Long inputs.

CAN = {
    "embed": {"end"},
    "tei": {"none", "start", "end"},
    "ollama": {"none", "end"},
    "openai": {"end"},
    "openai, llmrs": {"none", "start", "end"},
}
"""What is obeyed; everything else is refused."""


@pytest.mark.parametrize("truncate", ["none", "start", "end", None])
@pytest.mark.parametrize("name", SHAPES)
def test_long_texts_are_treated_as_was_asked_or_refused_by_name(name, truncate):
    can = CAN.get(name) or CAN[name.partition(",")[0]]
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        before = len(service.posts())
        if truncate is not None and truncate not in can:
            with pytest.raises(
                InvalidRequest, match=f"truncate must not be {truncate}: .*{backend.kind}"
            ) as e:
                embed(backend, [SHORT, LONG], truncate=truncate)
            assert (e.value.param, e.value.status) == ("truncate", 400)
            assert len(service.posts()) == before, "nothing was asked"
            return
        if truncate == "none":
            with pytest.raises(UpstreamTooLong) as e:
                embed(backend, [SHORT, LONG], truncate=truncate)
            assert (e.value.code, e.value.poison) == ("context_length_exceeded", True)
            return
        vectors = embed(backend, [SHORT, LONG, SHORT + "."], truncate=truncate)
        lost = cut(LONG, shapes.LONGEST, side=truncate or "end")
        assert_same(vectors.matrix, [vector(SHORT), vector(lost), vector(SHORT + ".")])
        known = name not in ("embed", "openai")
        assert vectors.cut == ([False, True, False] if known else None)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("n_long", [0, 1, 5, 12])
def test_which_of_a_batch_were_cut(name, n_long):
    texts = [f"text {i}" for i in range(12)]
    where = [5 * i % 12 for i in range(n_long)]
    for i in where:
        texts[i] = f"{i} " + LONG
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        before = len(service.posts())
        vectors = embed(backend, texts)
        assert_same(vectors.matrix, [vector(cut(text, shapes.LONGEST)) for text in texts])
        if name in ("embed", "openai") or not n_long:
            assert vectors.cut is None
        else:
            assert vectors.cut == [i in where for i in range(12)]
        calls = len(service.posts()) - before
        parts = -(-12 // backend.limits.batch_size)
        # Nothing too long costs nothing more; a tokenizer tells all at once, else each long text costs a few.
        assert calls <= parts + (2 * parts if name == "tei" else 10 * n_long)
        assert calls == parts or n_long


def test_a_batch_that_is_all_too_long_costs_a_tokenizer_two_calls_more():
    with serve(shapes.tei(max_client_batch_size=32)) as service:
        backend = backend_at(service)
        before = len(service.posts())
        assert embed(backend, [f"{i} {LONG}" for i in range(32)]).cut == [True] * 32
        assert [request.path for request in service.posts()[before:]] == ["/embed", "/tokenize", "/embed"]


@pytest.mark.parametrize("name", ["tei", "ollama", "openai, llmrs"])
def test_a_text_that_is_too_long_is_no_call_that_is_too_large(name):
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        before = backend.limits
        for n_texts in (2, 3, 4):
            embed(backend, [f"{n_texts} {LONG}", *(f"{n_texts} {i}" for i in range(n_texts - 1))])
        assert backend.limits == before


def test_the_backends_own_way_is_its_own():
    """TEI with --auto-truncate false refuses what others cut, where nobody says anything."""
    with serve(shapes.tei(auto_truncate=False)) as service:
        backend = backend_at(service)
        with pytest.raises(UpstreamTooLong):
            embed(backend, [LONG])
        assert embed(backend, [LONG], truncate="end").cut == [True]


def test_what_is_short_for_sure_needs_no_telling():
    with serve(shapes.openai(cuts=True)) as service:  # it says that it takes 512 tokens
        backend = backend_at(service)
        plain = backend.prepare([SHORT])
        assert backend.prepare([SHORT], truncate="none") == plain
        assert backend.prepare([SHORT], truncate="start") == plain
        for text in ("x" * 500, "é"):  # a character may become several
            with pytest.raises(InvalidRequest, match="truncate must not be none"):
                backend.prepare([text], truncate="none")


@pytest.mark.parametrize("owner", ["vllm", "llamacpp"])
def test_servers_that_refuse_long_texts_by_themselves_need_no_telling(owner):
    with serve(shapes.openai(owner=owner)) as service:
        backend = backend_at(service)
        embed(backend, [LONG], truncate="none")
        assert service.posts()[-1].json.keys() == {"model", "input", "encoding_format"}
        with pytest.raises(InvalidRequest, match="truncate must not be start"):
            embed(backend, [LONG], truncate="start")


# Prompts.


def with_prompt(backend, **asked):
    return backend.prepare_for([SHORT], truncate=None, prompt="", dimensions=None, **asked)


@pytest.mark.parametrize("field", ["input_type", "prompt_name"])
def test_which_prompt_is_meant_another_llmrs_is_told(field):
    with serve(shapes.llmrs()) as service:
        backend = backend_at(service)
        backend.embed([*with_prompt(backend, **{field: "query"}), *backend.prepare([SHORT])], timeout=10)
        assert [post.json.get(field) for post in service.posts()[-2:]] == ["query", None]


@pytest.mark.parametrize("name", sorted({*SHAPES} - {"openai, llmrs"}))
def test_prompts_of_other_backends_are_refused_by_name(name):
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        for field in ("input_type", "prompt_name"):
            with pytest.raises(InvalidRequest, match=f"{field} is not supported: which prompts") as caught:
                with_prompt(backend, **{field: "query"})
            assert caught.value.param == field


@pytest.mark.parametrize("field", ["dimensions", "truncate", "input_type", "prompt_name"])
def test_a_field_that_a_backend_refuses_is_named(field):
    """And not the input, as which another llmrs and OpenAI tell them apart."""
    body = {"error": {"message": "secret", "type": "invalid_request_error", "param": field, "code": None}}
    for encoded in (json.dumps(body).encode(), json.dumps(body, separators=(",", ":")).encode()):
        error = refusal(Answer(400, {}, encoded), None).about(0)
        assert (error.status, error.param, error.message) == (
            400, field, f"{field} is not accepted by the backend",
        )  # fmt: skip


def test_what_was_asked_before_the_backend_was_known_is_judged_when_it_is():
    with serve(shapes.openai(cuts=True)) as service:
        backend = open_http(Config(backend_url=(service.url,)))
        prepared = backend.prepare([LONG], truncate="none")
        with pytest.raises(UpstreamRejected, match="truncate must not be none") as caught:
            backend.embed(prepared, timeout=5)
        assert caught.value.about(0).param == "truncate"
        assert caught.value.poison, "its neighbours asked for nothing"


@pytest.mark.parametrize("name", ["tei", "openai, llmrs"])
@pytest.mark.parametrize("truncate", [None, "start", "end", "none"])
def test_long_token_ids_are_cut_where_the_backend_can(name, truncate):
    ids = list(range(1000, 1400))
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        if truncate == "none":
            with pytest.raises((ContextLengthExceeded, UpstreamTooLong)):
                embed(backend, [ids], truncate=truncate)
            return
        vectors = embed(backend, [[1, 2], ids], truncate=truncate)
        lost = cut(ids, shapes.LONGEST, side=truncate or "end")
        assert_same(vectors.matrix, [vector([1, 2]), vector(lost)])
        assert vectors.cut == [False, True]


# Widths.


@pytest.mark.parametrize("name", ["tei", "ollama", "openai, llmrs"])
def test_dimensions_are_told_and_rows_of_several_widths_share_a_batch(name):
    with serve(SHAPES[name]) as service:
        backend = backend_at(service)
        assert backend.shortens
        batch = [
            *backend.prepare_for(["a"], truncate=None, prompt="", dimensions=4),
            *backend.prepare_for(["a"], truncate=None, prompt="", dimensions=None),
            *backend.prepare_for(["a"], truncate="end", prompt="", dimensions=2),
            *backend.prepare_for(["a"], truncate=None, prompt="", dimensions=WIDTH),
        ]
        assert len({text.key for text in batch}) == 3, "no vector is shared but with the same wishes"
        assert batch[1].key == batch[3].key
        before = len(service.posts())
        matrix = backend.embed(batch, timeout=5).matrix
        asked = [request.json.get("dimensions") for request in service.posts()[before:]]
        assert sorted(asked, key=str) == [2, 4, None]
        assert matrix.shape == (4, WIDTH)
        assert_same(matrix[:1], [vector("a")[:4]])
        assert_same(matrix[2:3], [vector("a")[:2]])
        assert_same(matrix[[1, 3]], [vector("a")] * 2)
        assert not matrix[0, 4:].any()
        assert not matrix[2, 2:].any()


def test_a_backend_that_ignores_dimensions_is_found_out():
    with serve(shapes.openai()) as service:
        backend = backend_at(service)
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="allow_any_dimensions") as caught:
                embed(backend, ["a"], dimensions=4)
            assert caught.value.param == "dimensions"
            assert not backend.shortens
            backend._shortens = True
        assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]


def test_where_any_dimensions_are_allowed_vectors_are_shortened_here():
    with serve(shapes.tei()) as service:
        backend = backend_at(service, allow_any_dimensions=True)
        assert not backend.shortens
        embed(backend, ["a"], dimensions=4)
        assert "dimensions" not in service.posts()[-1].json


def test_a_protocol_without_dimensions():
    with serve(shapes.embed()) as service:
        backend = backend_at(service)
        assert not backend.shortens
        embed(backend, ["a"], dimensions=4)  # for the caller to shorten, or refuse
        assert "dimensions" not in service.posts()[-1].json


# Lengths, ids and empty texts.


@pytest.mark.parametrize(
    ("name", "always"), [("embed", False), ("tei", False), ("ollama", True), ("openai", True)]
)
def test_who_normalizes_whatever_is_asked(name, always):
    with serve(SHAPES[name]) as service:
        assert backend_at(service).always_normalizes == always


def test_openai_vectors_of_other_lengths_are_as_the_backend_made_them():
    with serve(shapes.openai()) as service:
        assert not backend_at(service).always_normalizes


@pytest.mark.parametrize(
    ("shape", "forwards", "takes"),
    [
        (shapes.openai(), True, True),
        (shapes.llmrs(), True, True),
        (shapes.openai(owner="vllm"), False, True),
        (shapes.tei(), False, True),
        (shapes.embed(), False, False),
        (shapes.ollama(), False, False),
    ],
    ids=["openai", "llmrs", "vllm", "tei", "embed", "ollama"],
)
def test_token_ids(shape, forwards, takes):
    """Ids of an unknown vocabulary go only where they may be OpenAI's."""
    with serve(shape) as service:
        backend = open_http(Config(backend_url=(service.url,)))
        assert not backend.forwards_ids, "before it is known"
        backend.check(timeout=5)
        assert backend.forwards_ids == forwards
        if takes:
            assert embed(backend, [[1, 2]]).matrix.tolist() == [vector([1, 2])]
        else:
            with pytest.raises(InvalidRequest, match="texts, not token ids"):
                backend.prepare([[1, 2]])


def test_an_empty_text_is_called_empty():
    with serve(shapes.tei()) as service:
        backend = backend_at(service)
        with pytest.raises(InvalidRequest, match=r"input\[1\] is empty") as caught:
            backend.prepare(["a", ""])
        assert caught.value.param == "input"
        assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]
        assert [text.payload for text in backend.prepare([""], prompt="query: ")] == ["query: "]


def test_a_backend_that_is_like_tei_may_take_empty_texts():
    """Whose refusal, if it does not, says so."""
    with serve(shapes.tei(info=False)) as service:
        backend = backend_at(service, backend_protocol="tei")
        with pytest.raises(UpstreamRejected, match="refused the input as empty"):
            embed(backend, [""])


# The table.


def test_the_documented_table_is_what_the_protocols_say():
    document = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
    rows = {
        name: [cell.strip() for cell in cells.split("|")]
        for name, cells in re.findall(r"^\| `([a-z, ]+)` \| (.*) \|$", document, re.MULTILINE)
    }
    protocols: dict[str, Protocol] = {
        "embed": Embed(batch_size=1),
        "tei": TEI(),
        "ollama": Ollama("m"),
        "openai": OpenAI("m"),
        "azure": Azure("m", "/e"),
        "openai, vllm": OpenAI("m", owner="vllm"),
        "openai, llmrs": OpenAI("m", owner="llmrs"),
    }
    assert rows.keys() == protocols.keys()
    for name, protocol in protocols.items():
        truncates = [_cell(protocol.truncates, word) for word in ("none", "end", "start")]
        assert rows[name] == [
            *truncates,
            "told" if protocol.refuses_on_request else "no",
            "told" if protocol.keeps_lengths else "no",
            "told" if protocol.shortens else "no",
            "told" if protocol.prompts else "400",
            "yes" if protocol.takes_ids else "no",
            "yes" if protocol.takes_empty else "no",
        ], name
        body = protocol.body([b'"a"'], CallOptions("end", 3 if protocol.shortens else None))
        assert b"null" not in body


def _cell(truncates, word):
    if word not in truncates:
        return "400"
    return "told" if truncates[word] else "by itself"
