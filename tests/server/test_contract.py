"""The HTTP contract, route by route and row by row, without a socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import gevent
import numpy as np
import pytest

from llmrs import wire
from llmrs.embeddings import Limits, ModelInfo
from llmrs.errors import ConfigError, DeadlineExceeded, ServiceError
from tests.engines import DIMENSIONS, MAX_TOKENS, FakeBackend, vector_of
from tests.server.conftest import Client

PATH = "/v1/embeddings"
LIMITS = wire.RequestLimits(max_inputs=10)
Make = Callable[..., Client]


def unit(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    vector = vector_of(text)[:dimensions].astype(np.float64)
    return vector / np.linalg.norm(vector)


def assert_vectors(found: np.ndarray, texts: list[str], dimensions: int = DIMENSIONS) -> None:
    np.testing.assert_allclose(found, [unit(text, dimensions) for text in texts], rtol=0, atol=1e-6)


# -- what succeeds ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/", "/embeddings/"])
def test_the_answer_has_openais_shape(client: Client, path: str) -> None:
    result = client.post(path, {"input": ["one two", "three"], "model": "fake-model", "user": "x", "more": 1})
    assert result.status_code == 200
    answer = result.json
    assert set(answer) == {"object", "data", "model", "usage"}
    assert answer["object"] == "list"
    assert answer["model"] == "fake-model"
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [set(row) for row in answer["data"]] == [{"object", "index", "embedding"}] * 2


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("texts", ["a single text", ["one"], ["a", "", "中文", "😀", "a"]])
def test_vectors_are_in_order_and_of_length_one(client: Client, texts: Any, encoding: str | None) -> None:
    found = client.vectors({"input": texts, "encoding_format": encoding})
    assert_vectors(found, [texts] if isinstance(texts, str) else [" ".join(t.split()) for t in texts])


def test_explicit_nulls_mean_absent(client: Client) -> None:
    found = client.vectors(
        {
            "input": "x", "model": None, "encoding_format": None, "dimensions": None, "user": None,
            "input_type": None, "truncate": None,
        }
    )  # fmt: skip
    assert_vectors(found, ["x"])


def test_vectors_as_the_model_gives_them_when_the_server_does_not_normalize(make_client: Make) -> None:
    client = make_client(normalize_embeddings=False)
    np.testing.assert_array_equal(client.vectors({"input": "x"})[0], vector_of("x"))


def test_many_texts_go_through_several_batches(client: Client) -> None:
    texts = [f"text {i}" for i in range(50)]
    assert_vectors(client.vectors({"input": texts, "encoding_format": "base64"}), texts)
    assert max(map(len, client.backend.batches)) == 4


def test_requests_of_many_clients_share_batches_and_get_their_own_vectors(make_client: Make) -> None:
    client = make_client(FakeBackend(limits=Limits(8, 1000, 1), seconds=0.002))
    failures: list[BaseException] = []

    def run(i: int) -> None:
        # The test client is driven greenlet by greenlet: gevent's hub serves them all.
        try:
            assert_vectors(client.vectors({"input": f"client {i}"}), [f"client {i}"])
        except BaseException as failure:
            failures.append(failure)

    gevent.joinall([gevent.spawn(run, i) for i in range(64)], timeout=30)
    assert not failures
    assert len(client.backend.batches) < 40


def test_the_same_text_twice_in_a_batch_is_computed_once_and_counted_twice(client: Client) -> None:
    result = client.post(PATH, {"input": ["same", "other", "same"]})
    assert client.backend.batches == [["same", "other"]]
    assert result.json["usage"]["prompt_tokens"] == 9
    assert_vectors(client.vectors({"input": ["same", "other", "same"]}), ["same", "other", "same"])


def test_dimensions_cut_and_normalize_again(make_client: Make) -> None:
    info = ModelInfo(name="m", dimensions=DIMENSIONS, max_input_tokens=MAX_TOKENS, matryoshka=(2, 4))
    client = make_client(FakeBackend(info=info))
    assert_vectors(client.vectors({"input": "x", "dimensions": 4}), ["x"], 4)
    assert_vectors(client.vectors({"input": "x", "dimensions": DIMENSIONS}), ["x"])
    error = client.error(400, PATH, {"input": "x", "dimensions": 3})
    assert error["param"] == "dimensions"
    assert "2, 4, 8" in error["message"]


def test_dimensions_of_other_models_need_a_setting(make_client: Make) -> None:
    assert make_client().error(400, PATH, {"input": "x", "dimensions": 3})["param"] == "dimensions"
    assert_vectors(make_client(allow_any_dimensions=True).vectors({"input": "x", "dimensions": 3}), ["x"], 3)


def test_dimensions_beyond_a_width_only_the_answer_tells(make_client: Make) -> None:
    client = make_client(FakeBackend(info=ModelInfo()), allow_any_dimensions=True)
    assert client.error(400, PATH, {"input": "x", "dimensions": 9})["param"] == "dimensions"
    assert client.vectors({"input": "x", "dimensions": 5}).shape == (1, 5)


def test_a_zero_vector_stays_zero(client: Client) -> None:
    assert (client.vectors({"input": "zero"}) == 0).all()


def test_input_type_and_prompts(client: Client) -> None:
    assert_vectors(client.vectors({"input": "x", "input_type": "query"}), ["query: x"])
    assert_vectors(client.vectors({"input": "x", "input_type": "document"}), ["passage: x"])
    assert_vectors(client.vectors({"input": "x", "prompt_name": "sts"}), ["similar: x"])
    for body in ({"inputs": "x"}, {"texts": "x"}):
        for asked, text in (({"prompt_name": "sts"}, "similar: x"), ({"input_type": "query"}, "query: x")):
            rows = client.post("/embed", {**body, **asked}).json
            assert_vectors(np.array(rows["vectors"] if "texts" in body else rows), [text])
        assert client.error(400, "/embed", {**body, "prompt_name": "none"})["param"] == "prompt_name"
        assert client.error(400, "/embed", {**body, "input_type": "other"})["param"] == "input_type"
    assert client.error(400, PATH, {"input": "x", "prompt_name": "none"})["param"] == "prompt_name"


def test_which_prompt_counts(make_client: Make) -> None:
    """The named one, then that of the input's type, then the configured one, then the model's own."""
    prompts = {"query": "query: ", "sts": "similar: ", "plain": "text: ", "": "default: "}
    info = ModelInfo(name="m", dimensions=DIMENSIONS, max_input_tokens=MAX_TOKENS, prompts=prompts)
    own = make_client(FakeBackend(info=info))
    configured = make_client(FakeBackend(info=info), default_prompt="sts")
    for client, default in ((own, "default: x"), (configured, "similar: x")):
        assert_vectors(client.vectors({"input": "x"}), [default])
        assert_vectors(client.vectors({"input": "x", "prompt_name": None, "input_type": None}), [default])
        assert_vectors(client.vectors({"input": "x", "input_type": "query"}), ["query: x"])
        assert_vectors(client.vectors({"input": "x", "input_type": "document"}), ["x"])
        both = {"input": "x", "input_type": "query", "prompt_name": "plain"}
        assert_vectors(client.vectors(both), ["text: x"])
    with pytest.raises(ConfigError, match=r"default_prompt = 'nothing'.*only plain, query, sts"):
        make_client(FakeBackend(info=info), default_prompt="nothing")


def test_prompts_are_counted(client: Client) -> None:
    for asked, tokens in (({}, 3), ({"input_type": "query"}, 4), ({"prompt_name": "sts"}, 4)):
        assert client.post(PATH, {"input": "x", **asked}).json["usage"]["total_tokens"] == tokens


def test_token_ids_get_no_prompt(make_client: Make) -> None:
    client = make_client(token_ids="native")
    assert_vectors(client.vectors({"input": [[7, 8]], "prompt_name": "sts"}), ["#7 #8"])


def test_truncation_is_disclosed(client: Client) -> None:
    words = [str(i) for i in range(20)]
    long = " ".join(words)
    result = client.post(PATH, {"input": ["short", long, long], "truncate": "end"})
    assert result.headers["x-truncated-inputs"] == "2"
    assert result.json["usage"]["prompt_tokens"] == 3 + 2 * MAX_TOKENS
    assert_vectors(client.vectors({"input": long, "truncate": "start"}), [" ".join(words[-14:])])
    assert "x-truncated-inputs" not in client.post(PATH, {"input": "short", "truncate": "end"}).headers


def test_native_token_ids(make_client: Make) -> None:
    client = make_client(token_ids="native")
    assert_vectors(client.vectors({"input": [5, 6, 7]}), ["#5 #6 #7"])
    assert_vectors(client.vectors({"input": [[5], [6, 7]]}), ["#5", "#6 #7"])
    assert "[1]" in client.error(400, PATH, {"input": [[5], [5000]]})["message"]


def test_timings_and_request_ids(client: Client) -> None:
    headers = client.post(PATH, {"input": "x"}).headers
    assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == [
        "queue", "tokenize", "inference", "total",
    ]  # fmt: skip
    mine = client.post(PATH, {"input": "x"}, headers={"X-Request-Id": "my-id_1.2"})
    assert mine.headers["x-request-id"] == "my-id_1.2"
    for bad in ("with space", "x" * 129, "semi;colon", ""):
        assert client.get("/livez", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad
    first, second = (client.get("/livez").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_the_legacy_form(client: Client) -> None:
    result = client.post("/embed", {"texts": ["a", "b"], "normalize_embeddings": False, "batch_size": 1})
    answer = result.json
    assert set(answer) == {"vectors", "count", "vector_dim", "model_path"}
    assert (answer["count"], answer["vector_dim"], answer["model_path"]) == (2, DIMENSIONS, "fake-model")
    np.testing.assert_array_equal(np.array(answer["vectors"], np.float32), [vector_of("a"), vector_of("b")])
    assert client.backend.batches == [["a"], ["b"]]
    assert_vectors(np.array(client.post("/embed", {"texts": "a"}).json["vectors"]), ["a"])


def test_the_legacy_form_cuts_long_texts_and_says_so(client: Client) -> None:
    result = client.post("/embed", {"texts": "w " * 50})
    assert result.status_code == 200
    assert result.headers["x-truncated-inputs"] == "1"


def test_teis_form(client: Client) -> None:
    assert_vectors(np.array(client.post("/embed", {"inputs": ["a", "b"]}).json), ["a", "b"])
    assert_vectors(np.array(client.post("/embed", {"inputs": "a"}).json), ["a"])
    raw = client.post("/embed", {"inputs": "a", "normalize": False}).json
    np.testing.assert_array_equal(np.array(raw, np.float32), [vector_of("a")])
    assert client.error(400, "/embed", {"inputs": "w " * 50, "truncate": False})["code"] == (
        "context_length_exceeded"
    )
    assert client.post("/embed", {"inputs": "w " * 50, "truncate": True}).status_code == 200


def test_models(make_client: Make) -> None:
    client = make_client(model_name="org/served", model_aliases="text-embedding-3-small,other")
    listing = client.get("/v1/models").json
    assert listing["object"] == "list"
    entry = listing["data"][0]
    assert entry["id"] == "org/served"
    assert entry["object"] == "model"
    assert entry["dimensions"] == DIMENSIONS
    assert entry["max_input_tokens"] == MAX_TOKENS
    assert entry["normalized"] is False
    assert entry["backend"] == "fake"
    assert entry["aliases"] == ["text-embedding-3-small", "other"]
    assert entry["prompts"] == ["document", "query", "sts"]
    assert isinstance(entry["created"], int)
    for path in ("/v1/models/org/served", "/v1/models/org%2Fserved", "/v1/models/other", "/v1/models/other/"):
        assert client.get(path).json == entry
    assert client.get("/v1/models/else").json["error"]["code"] == "model_not_found"
    assert client.vectors({"input": "x", "model": "text-embedding-3-small"}).shape == (1, DIMENSIONS)
    assert client.post(PATH, {"input": "x", "model": "other"}).json["model"] == "org/served"


def test_health(client: Client) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json["status"] == "ok"
    assert answer.json["backend_url"] is None
    assert answer.json["model_name"] == "fake-model"
    assert client.get("/readyz").status_code == 200
    assert client.get("/livez").json == {"status": "ok"}


def test_health_tells_when_the_backend_is_down(client: Client) -> None:
    client.app.models[0].health._set("nobody listens at the backend's address")
    for path in ("/health", "/readyz"):
        result = client.get(path)
        assert result.status_code == 503
        assert result.json["status"] == "unavailable"
        assert result.json["reason"] == "nobody listens at the backend's address"
        assert result.json["error"]["code"] == "not_ready"
        assert result.headers["retry-after"] == "1"
    assert client.get("/livez").status_code == 200


def test_probes_answer_head(client: Client) -> None:
    for path in ("/health", "/readyz", "/livez", "/v1/models"):
        result = client.request("HEAD", path)
        assert result.status_code == 200
        assert result.content == b""


# -- what is refused: one row of the contract's table each ---------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"input": "x"} x', b'{"input": NaN}', b'{"dimensions": Infinity, "input": "x"}',
        b'"text"', b"[]", b"null", b"\xff\xfe", b'{"input": "\xff"}', b"\xef\xbb\xbf",
        b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
def test_not_json(client: Client, body: bytes) -> None:
    error = client.error(400, PATH, body)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "; charset=utf-8"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_content_types_that_are_not_taken(client: Client, headers: dict[str, str]) -> None:
    error = client.error(415, PATH, {"input": "x"}, headers=headers)
    assert (error["param"], error["code"]) == (None, "unsupported_content_type")


@pytest.mark.parametrize(
    "content_type",
    ["APPLICATION/JSON", "application/json; charset=UTF-8", 'application/json;charset="utf-8"'],
)
def test_content_types_that_are_taken(client: Client, content_type: str) -> None:
    assert client.post(PATH, {"input": "x"}, headers={"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize("path", [PATH, "/embeddings", "/embed"])
def test_no_content_type_means_json(client: Client, path: str) -> None:
    for headers in ({}, {"Content-Type": ""}, {"Content-Type": " "}):
        body = b"\xef\xbb\xbf" + json.dumps({"inputs" if path == "/embed" else "input": "x"}).encode()
        assert client.request("POST", path, body=body, headers=headers).status_code == 200
        broken = client.request("POST", path, body=b"{", headers=headers)
        assert broken.json["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("//v1/embeddings", "input"),
        ("/v1//embeddings//", "input"),
        ("///embed", "inputs"),
        ("/embeddings//", "input"),
    ],
)
def test_repeated_slashes_are_one(client: Client, path: str, name: str) -> None:
    assert client.post(path, {name: "x"}).status_code == 200
    for page in ("//livez", "//v1///models", "/models//", "//v1/models//fake-model", "/health//"):
        assert client.get(page).status_code == 200
    assert client.get("//nothing").status_code == 404


def test_models_are_listed_beside_the_embeddings(client: Client) -> None:
    for path in ("/models", "/models/fake-model"):
        assert client.get(path).json == client.get(f"/v1{path}").json
        assert client.request("HEAD", path).status_code == 200


@pytest.mark.parametrize(
    ("body", "mentions"),
    [
        ({}, ""), ({"input": None}, ""), ({"input": 5}, ""), ({"input": {}}, ""), ({"input": True}, ""),
        ({"input": []}, ""), ({"input": [[]]}, "[0]"), ({"input": ["a", 1]}, "[1]"),
        ({"input": ["a", None]}, "[1]"), ({"input": [1, "a"]}, "[1]"), ({"input": [1, True]}, "[1]"),
        ({"input": [1.5]}, "[0]"), ({"input": [[1], ["a"]]}, "[1]"), ({"input": [[1], 2]}, "[1]"),
        ({"input": [["a"]]}, "[0]"), ({"input": [[[1]]]}, "[0]"), ({"input": [1, -1]}, "[1]"),
    ],
)  # fmt: skip
def test_inputs_that_are_none(make_client: Make, body: dict[str, Any], mentions: str) -> None:
    error = make_client(token_ids="native").error(400, PATH, body)
    assert (error["type"], error["param"]) == ("invalid_request_error", "input")
    assert mentions in error["message"]


def test_a_lone_surrogate(client: Client) -> None:
    assert client.error(400, PATH, b'{"input": ["ok", "\\ud800"]}')["param"] == "input"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("encoding_format", ["Float", "", "hex", 1, ["float"]]),
        ("output_dtype", ["Int8", "", "Float", 8, ["int8"]]),
        ("dimensions", [0, -1, True, "8", 8.0, 1.5, 10**20]),
        ("input_type", ["question", 1, ""]),
        ("prompt_name", ["", 1, ["sts"]]),
        ("truncate", ["left", "", 1]),
        ("model", [5, ["fake-model"], True]),
    ],
)
def test_fields_with_bad_values(client: Client, field: str, values: list[Any]) -> None:
    for value in values:
        error = client.error(400, PATH, {"input": "x", field: value})
        assert (error["type"], error["param"]) == ("invalid_request_error", field), value


def test_dimensions_beyond_the_models(client: Client) -> None:
    assert client.error(400, PATH, {"input": "x", "dimensions": DIMENSIONS + 1})["param"] == "dimensions"


def test_an_unknown_model(client: Client) -> None:
    error = client.error(404, PATH, {"input": "x", "model": "gpt-x"})
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error", "model", "model_not_found",
    )  # fmt: skip
    assert "fake-model" in error["message"]
    assert "gpt-x" not in error["message"]
    # It is the first thing to know, before the other fields are looked at.
    assert client.error(404, PATH, {"input": [], "model": "gpt-x", "dimensions": 0})["param"] == "model"


def test_any_model_of_a_backend_that_was_never_reached(make_client: Make) -> None:
    client = make_client(FakeBackend(info=ModelInfo()))
    client.app.models[0].health._set("the backend cannot be reached")
    assert client.error(502, PATH, {"input": "x", "model": "theirs"})["code"] == "upstream_error"
    client.app.models[0].health._set(None)
    assert client.error(404, PATH, {"input": "x", "model": "theirs"})["code"] == "model_not_found"


def test_too_many_inputs(make_client: Make) -> None:
    client = make_client(max_client_batch_size=3)
    assert client.vectors({"input": ["a"] * 3}).shape[0] == 3
    error = client.error(400, PATH, {"input": ["a"] * 4})
    assert (error["param"], error["code"]) == ("input", "array_above_max_length")


def test_one_input_too_long(client: Client) -> None:
    error = client.error(400, PATH, {"input": ["ok", "w " * 30], "truncate": "none"})
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
    assert f"This model's maximum context length is {MAX_TOKENS} tokens" in error["message"]
    assert "[1]" in error["message"]
    assert "32" in error["message"]


def test_too_many_tokens_together(make_client: Make) -> None:
    error = make_client(max_request_tokens=10).error(400, PATH, {"input": ["a b c"] * 3})
    assert (error["param"], error["code"]) == ("input", "max_tokens_per_request")


def test_empty_inputs_can_be_refused(make_client: Make) -> None:
    error = make_client(empty_input="reject").error(400, PATH, {"input": ["a", ""]})
    assert error["param"] == "input"
    assert "[1]" in error["message"]


def test_token_ids_are_refused_with_the_remedies(make_client: Make) -> None:
    for token_input in ([1, 2], [[1], [2]]):
        error = make_client(token_ids="reject").error(400, PATH, {"input": token_input})
        assert error["param"] == "input"
        for remedy in ("native", "cl100k", "check_embedding_ctx_length=False"):
            assert remedy in error["message"]


def test_a_body_over_the_limit(make_client: Make) -> None:
    client = make_client(payload_limit=1000)
    assert client.post(PATH, b'{"input": "x"}' + b" " * 986).status_code == 200
    error = client.error(413, PATH, b'{"input": "x"}' + b" " * 987)
    assert (error["param"], error["code"]) == (None, "request_too_large")


def test_errors_about_inputs_name_the_field_that_holds_them(client: Client) -> None:
    long = "w " * 50
    error = client.error(400, "/embed", {"inputs": ["x", long], "truncate": False})
    assert error["param"] == "inputs"
    assert "inputs[1]" in error["message"]
    error = client.error(500, "/embed", {"texts": ["x", "poison"]})
    assert error["param"] == "texts"
    assert "texts[1]" in error["message"]


def test_an_unknown_method(client: Client) -> None:
    result = client.request("BREW", "/health")
    assert (result.status_code, result.json["error"]["code"]) == (405, "method_not_allowed")
    assert result.headers["allow"]


def test_nobody_tokenizes_for_who_has_left(make_client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    model = client.app.models[0]
    prepared: list[int] = []
    prepare = client.backend.prepare

    def slow(inputs: Any, **options: Any) -> Any:
        prepared.append(len(inputs))
        time.sleep(0.2)
        return prepare(inputs, **options)

    monkeypatch.setattr(client.backend, "prepare", slow)
    request = wire.parse_openai(json.dumps({"input": ["a" * 3000], "truncate": "end"}).encode(), LIMITS)
    gone = [False]

    def ask(i: int) -> str:
        try:
            model.embed(request, time.monotonic() + 20, lambda: gone[0])
        except ServiceError as error:
            return type(error).__name__
        return "answered"

    asks = [gevent.spawn(ask, i) for i in range(5)]
    gevent.sleep(0.1)
    gone[0] = True
    gevent.joinall(asks, timeout=20)
    assert prepared == [1], "the others left while they waited for the tokenizer"
    assert [each.value for each in asks].count("ClientGone") >= 4
    assert model.collector.waiting == 0


def test_unknown_paths_and_methods(client: Client) -> None:
    result = client.get("/v1/nothing")
    assert (result.status_code, result.json["error"]["code"]) == (404, "unknown_url")
    for method, path in (("GET", PATH), ("DELETE", PATH), ("POST", "/health"), ("PUT", "/embed")):
        result = client.request(method, path)
        assert (result.status_code, result.json["error"]["code"]) == (405, "method_not_allowed")
        assert result.headers["allow"]
    head = client.request("HEAD", "/v1/nothing")
    assert (head.status_code, head.content) == (404, b"")


def test_api_keys(make_client: Make) -> None:
    client = make_client(keys=("secret-one", "secret-two"))
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "secret-one"},
        {"Authorization": "Basic secret-one"}, {"Authorization": "Bearer secret-on"},
        {"Authorization": "Bearer secret-one secret-two"}, {"Authorization": "Bearer schlüssel"},
    ):  # fmt: skip
        for path in (PATH, "/embed", "/nothing"):
            # The body is not even looked at: it is not JSON.
            result = client.post(path, b"not json", headers=headers)
            assert result.status_code == 401
            error = result.json["error"]
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert result.headers["www-authenticate"] == "Bearer"
            assert "secret" not in result.text
            assert "wrong" not in result.text
            assert "invalid_request_error" not in result.text
    for key in ("secret-one", "secret-two"):
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {key}"}
            assert client.post(PATH, {"input": "x"}, headers=headers).status_code == 200
    for path in ("/health", "/livez", "/readyz"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/models").status_code == 401


def test_queue_full(make_client: Make) -> None:
    client = make_client(queue_capacity=1, queue_seconds=0.05)
    collector = client.app.models[0].collector
    place = collector.admit(lambda: None, 1e12)
    # Decided before the texts are looked at by the model: this one is too long.
    result = client.post(PATH, {"input": "w " * 100})
    assert result.status_code == 429
    error = result.json["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    assert 1 <= int(result.headers["retry-after"]) <= 120
    assert int(result.headers["retry-after-ms"]) >= 1000
    assert "invalid_request_error" not in result.text
    collector.cancel(place)
    assert client.post(PATH, {"input": "x"}).status_code == 200


def test_more_work_waits_than_a_request_may_wait_for(make_client: Make) -> None:
    client = make_client(queue_seconds=5)
    collector = client.app.models[0].collector
    client.vectors({"input": "one text measures the speed"})
    place = collector.admit(lambda: None, 1e12, n_tokens=10**9)
    bulk = {"input": [f"text {i}" for i in range(5)]}
    result = client.post(PATH, bulk)
    assert (result.status_code, result.json["error"]["code"]) == (429, "queue_full")
    assert int(result.headers["retry-after"]) <= 38
    assert client.post(PATH, {"input": "x"}).status_code == 200, "it would not wait for the bulk work"
    collector.cancel(place)
    assert client.post(PATH, bulk).status_code == 200


def test_a_client_may_say_how_long_it_waits(client: Client) -> None:
    late = client.post(PATH, {"input": "slow text"}, headers={"X-Request-Timeout": "0.05"})
    assert (late.status_code, late.json["error"]["code"]) == (504, "timeout")
    patient = client.post(PATH, {"input": "slow text"}, headers={"X-Request-Timeout": "30"})
    assert patient.status_code == 200
    for nonsense in ("0", "-1", "nan", "inf", "1e3", "", "soon", "0.0", "1" * 30):
        refused = client.post(PATH, {"input": "x"}, headers={"X-Request-Timeout": nonsense})
        assert refused.status_code == 400, nonsense
        assert "X-Request-Timeout" in refused.json["error"]["message"]


def test_short_deadlines_of_clients_do_not_make_a_backend_look_down(make_client: Make) -> None:
    class Far(FakeBackend):
        waits_on = "network"

        def embed(self, batch: Any, *, timeout: float) -> Any:
            gevent.sleep(0.2)
            raise DeadlineExceeded("the backend did not answer in time")

    client = make_client(Far())
    for number in range(6):
        headers = {"X-Request-Timeout": "0.05"}
        assert client.post(PATH, {"input": f"text {number}"}, headers=headers).status_code == 504
        gevent.sleep(0.25)
    assert client.get("/readyz").status_code == 200


def test_a_model_that_hangs_is_not_ready(client: Client) -> None:
    watchdog = client.app.models[0].watchdog
    watchdog.reason = "the model hangs"
    for path in ("/health", "/readyz"):
        result = client.get(path)
        assert (result.status_code, result.json["reason"]) == (503, "the model hangs")
    result = client.post(PATH, {"input": "x"})
    assert (result.status_code, result.json["error"]["code"]) == (503, "not_ready")
    assert 1 <= int(result.headers["retry-after"]) <= 120
    watchdog.reason = None
    assert client.get("/readyz").status_code == client.post(PATH, {"input": "x"}).status_code == 200


def test_draining(client: Client) -> None:
    client.app.draining = lambda: True
    result = client.post(PATH, {"input": "x"})
    assert (result.status_code, result.json["error"]["code"]) == (503, "not_ready")
    assert result.headers["retry-after"] == "1"
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200


def test_the_deadline(make_client: Make) -> None:
    client = make_client(request_timeout=0.1)
    error = client.error(504, PATH, {"input": "slow"})
    assert (error["type"], error["code"]) == ("server_error", "timeout")
    assert client.app.models[0].collector.waiting == 0


def test_an_unreachable_backend(client: Client) -> None:
    result = client.post(PATH, {"input": "unreachable"})
    error = result.json["error"]
    assert result.status_code == 502
    assert (error["type"], error["code"]) == ("server_error", "upstream_error")
    assert "invalid_request_error" not in result.text


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_vector_that_is_not_finite(client: Client, encoding: str) -> None:
    result = client.post(PATH, {"input": ["a", "nan"], "encoding_format": encoding})
    error = result.json["error"]
    assert result.status_code == 500
    assert (error["type"], error["code"]) == ("server_error", "non_finite_embedding")
    assert result.headers["x-should-retry"] == "false"
    assert "index 1" in error["message"]
    assert client.post(PATH, {"input": "a"}).status_code == 200


@pytest.mark.parametrize("text", ["poison", "broken"])
def test_a_failing_engine_answers_the_culprit_only(make_client: Make, text: str) -> None:

    client = make_client(FakeBackend(limits=Limits(16, 1000, 1), seconds=0.001))
    bodies = [{"input": ["good", text]}, *({"input": f"good {i}"} for i in range(8))]
    answers = [gevent.spawn(client.post, PATH, body) for body in bodies]
    gevent.joinall(answers, timeout=20)
    statuses = [answer.value.status_code for answer in answers]
    assert statuses == [500] + [200] * 8
    culprit = answers[0].value.json["error"]
    assert (culprit["type"], culprit["code"]) == ("server_error", "internal_error")
    assert "[1]" in culprit["message"]
    assert any(len(batch) > 2 for batch in client.backend.batches), "they did share a batch"


def test_a_bug_shows_no_details(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(client.app.models[0], "embed", explode)
    result = client.post(PATH, {"input": "x"})
    assert (result.status_code, result.json["error"]["code"]) == (500, "internal_error")
    assert "secret" not in result.text


def test_duplicate_keys_never_break_anything(client: Client) -> None:
    assert client.post(PATH, b'{"input": "x", "input": "y"}').status_code in (200, 400)


def test_errors_never_echo_the_input(client: Client) -> None:
    needle = "n33dle"
    bodies: list[dict[str, Any]] = [
        {"input": {needle: 1}}, {"input": [needle, 1]}, {"input": f"{needle} " * 50, "truncate": False},
        {"input": "x", "model": needle}, {"input": "x", "encoding_format": needle},
        {"input": "x", "dimensions": needle}, {"input": f"poison {needle}"}, {"input": f"nan {needle}"},
    ]  # fmt: skip
    for body in bodies:
        result = client.post(PATH, body)
        assert result.status_code >= 400
        assert needle not in result.text


def test_nothing_is_left_in_the_queue_by_failures(client: Client) -> None:
    for text in ("w " * 100, "poison", "broken", "nan", "unreachable"):
        assert client.post(PATH, {"input": text, "truncate": "none"}).status_code >= 400
    collector = client.app.models[0].collector
    assert (collector.waiting, collector.running) == (0, 0)
    assert client.post(PATH, {"input": "x"}).status_code == 200


def test_closing_answers_what_waits(make_client: Make) -> None:

    client = make_client(FakeBackend(limits=Limits(1, 1000, 1)))
    answers = [gevent.spawn(client.post, PATH, {"input": f"slow {i}"}) for i in range(3)]
    gevent.sleep(0.05)
    client.app.close()
    gevent.joinall(answers, timeout=10)
    assert sorted(answer.value.status_code for answer in answers) == [200, 503, 503]
    assert client.backend.closed
