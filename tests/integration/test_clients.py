"""The real clients, unmodified, against the real server."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.processes import Server, llmrs, tool
from tests.wire.oracles import packed

TEXTS = ["hello world", "你好，世界", "", "🙂 emoji"]
NODE = Path(__file__).parent.parent / "clients"


@pytest.fixture
def python(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def rows(answer: Any) -> np.ndarray:
    assert [row.index for row in answer.data] == list(range(len(answer.data)))
    return np.array([row.embedding for row in answer.data], np.float32)


@pytest.fixture
def expected(python: openai.OpenAI) -> np.ndarray:
    """The vectors as an explicit float request gives them."""
    found = rows(python.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS, encoding_format="float"))
    assert found.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    return found


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found * expected).sum(1).min() >= 0.9998


def test_openai_python_by_default_asks_for_base64(python: openai.OpenAI, expected: np.ndarray) -> None:
    answer = python.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS)
    assert_same(rows(answer), expected)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 8
    assert answer.model == "all-MiniLM-L6-v2"
    assert answer.object == "list"


def test_openai_python_gives_base64_strings_when_asked(python: openai.OpenAI, expected: np.ndarray) -> None:
    answer = python.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS[0], encoding_format="base64")
    text: Any = answer.data[0].embedding
    assert_same(np.frombuffer(base64.b64decode(text, validate=True), "<f4")[None], expected[:1])


def test_openai_python_dimensions_and_aliases(python: openai.OpenAI, expected: np.ndarray) -> None:
    found = rows(python.embeddings.create(model="text-embedding-3-small", input=TEXTS, dimensions=100))
    assert found.shape == (4, 100)
    cut = expected[:, :100] / np.linalg.norm(expected[:, :100], axis=1, keepdims=True)
    assert_same(found, cut)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_openai_python_output_dtypes(python: openai.OpenAI, expected: np.ndarray, dtype: str) -> None:
    """With the encoding said: left to itself, the client takes whatever comes for float32."""
    wanted = packed(expected, dtype)
    ask: Any = {"model": "all-MiniLM-L6-v2", "input": TEXTS, "extra_body": {"output_dtype": dtype}}
    for form in ("float", "base64"):
        answer = python.embeddings.create(encoding_format=form, **ask)
        assert (answer.model_extra or {})["output_dtype"] == dtype
        found: list[Any] = [row.embedding for row in answer.data]
        if form == "base64":
            found = [np.frombuffer(base64.b64decode(row), wanted.dtype) for row in found]
        numbers = np.array(found).astype(wanted.dtype)
        assert numbers.shape == wanted.shape
        # Not always computed in the same batches: the last bit may differ.
        if dtype in ("binary", "ubinary"):
            differing = np.unpackbits(numbers.view(np.uint8)) != np.unpackbits(wanted.view(np.uint8))
            assert differing.mean() < 0.02
        else:
            atol = 4e-3 if dtype == "float16" else 2
            np.testing.assert_allclose(np.float32(numbers), np.float32(wanted), rtol=0, atol=atol)


def test_openai_python_single_string_and_nulls(python: openai.OpenAI, expected: np.ndarray) -> None:
    nothing: Any = None
    answer = python.embeddings.create(
        model="all-MiniLM-L6-v2", input=TEXTS[0], dimensions=nothing, encoding_format=nothing, user=nothing
    )
    assert_same(rows(answer), expected[:1])


def test_openai_python_models(python: openai.OpenAI) -> None:
    assert [model.id for model in python.models.list()] == ["all-MiniLM-L6-v2"]
    assert python.models.retrieve("all-MiniLM-L6-v2").object == "model"


def test_openai_python_sees_errors_as_its_own_classes(python: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        python.embeddings.create(model="nothing", input="x")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as long:
        python.embeddings.create(
            model="all-MiniLM-L6-v2", input=["ok", "word " * 1000], extra_body={"truncate": "none"}
        )
    assert long.value.code == "context_length_exceeded"
    assert "1002" in long.value.message
    with pytest.raises(openai.BadRequestError):
        python.embeddings.create(model="all-MiniLM-L6-v2", input=[])


def test_openai_python_async_in_parallel(server: Server, expected: np.ndarray) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            asks = [client.embeddings.create(model="all-MiniLM-L6-v2", input=text) for text in TEXTS * 10]
            return list(await asyncio.gather(*asks))

    answers = asyncio.run(ask())
    assert_same(np.concatenate([rows(answer) for answer in answers]), np.tile(expected, (10, 1)))


def test_openai_python_waits_until_there_is_room() -> None:
    """With one place in the queue, the others wait at the door, and nothing has to be sent again."""
    with llmrs(QUEUE_CAPACITY="1", BATCH_SIZE="1") as small:

        async def ask() -> list[Any]:
            client = openai.AsyncOpenAI(base_url=f"{small.url}/v1", api_key="any", max_retries=0)
            async with client:
                return list(
                    await asyncio.gather(
                        *(
                            client.embeddings.create(model="all-MiniLM-L6-v2", input=f"text {i}")
                            for i in range(8)
                        )
                    )
                )

        assert len(asyncio.run(ask())) == 8


def test_openai_python_with_an_api_key(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text("# the team's keys\nsk-file-key\n")
    with llmrs(API_KEY="sk-env-key", API_KEY_FILE=str(key_file)) as locked:
        for key in ("sk-env-key", "sk-file-key"):
            client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key=key)
            assert len(client.embeddings.create(model="all-MiniLM-L6-v2", input="x").data) == 1
        with pytest.raises(openai.AuthenticationError) as refused:
            openai.OpenAI(base_url=f"{locked.url}/v1", api_key="sk-wrong").embeddings.create(
                model="m", input="x"
            )
        assert refused.value.code == "invalid_api_key"
        assert "sk-" not in locked.log


def test_openai_node(server: Server, expected: np.ndarray) -> None:
    node = tool("node")
    if not (NODE / "node_modules" / "openai").is_dir():
        tool("npm")  # which would have installed it
        pytest.fail("tests/clients is not installed: run `make test`")
    done = subprocess.run(
        [node, "openai_client.mjs", f"{server.url}/v1", json.dumps(TEXTS)],
        cwd=NODE, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert_same(np.array(found["default"]), expected)
    assert_same(np.array(found["float"]), expected)
    assert np.array(found["short"]).shape == (4, 64)
    assert found["models"] == ["all-MiniLM-L6-v2"]
    assert found["notFound"] == {"status": 404, "code": "model_not_found", "param": "model", "hasId": True}
    assert found["usage"]["prompt_tokens"] > 8
