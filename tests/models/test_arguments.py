"""Every argument of the in-process API: all spellings that the server takes, and no wrong value.

A wrong value ends in a ValueError (or, for a text, a TypeError) that names the argument and says what is
allowed; a right one arrives in the one spelling that is used inside.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmrs.embedder
from llmrs.config import BY_NAME, load
from llmrs.embedder import KEYS, Embedder
from llmrs.embeddings import Truncate
from llmrs.errors import ConfigError, InvalidRequest
from llmrs.prompts import INPUT_TYPES
from tests.models.makers import make_model, write_json

ARGUMENTS = [name for name in inspect.signature(Embedder.__init__).parameters if name != "self"]
OPTIONAL = {"model_file"}
"""Arguments that may be None."""

ODD = [
    None, True, False, 0, 1, -1, 1.0, 0.5, float("nan"), 10**30, Decimal(1), "", " ", "nonsense", "F 32",
    "1", "true",
    b"f32", [], ["auto"], {}, (), object(), np.float32, np.int64(4), np.array([1, 2]), Path("/x"), "a\nb",
    "x" * 5000, "../up", "cuda:abc", "auto", "Auto", "FLOAT32",
]  # fmt: skip


class Passed(Exception):
    """What the backend was asked for."""


@pytest.fixture(scope="module", autouse=True)
def _no_model():
    """Nothing is loaded: the arguments are what is looked at."""

    def backend(model: str, **others: Any) -> None:
        raise Passed({"model": model, **others})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llmrs.embedder, "LocalBackend", backend)
        yield


def passed(**arguments: Any) -> dict[str, Any]:
    with pytest.raises(Passed) as caught:
        Embedder(**arguments)
    found: dict[str, Any] = caught.value.args[0]
    return found


def check(argument: str, value: Any) -> None:
    """A value is refused with its name and what is allowed, or arrives as the server has it."""
    option = BY_NAME[KEYS.get(argument, argument)]
    with pytest.raises((Passed, ConfigError)) as caught:
        Embedder(**{argument: value})
    if isinstance(caught.value, ConfigError):
        message = str(caught.value)
        assert message.startswith(f"{argument} = ")
        assert option.kind.expected in message
        assert "\n" not in message
    elif argument == "normalize":
        assert isinstance(value, bool)
    elif value is None:
        assert argument in OPTIONAL
    else:
        given = os.fspath(value) if isinstance(value, Path) else value
        assert caught.value.args[0][argument] == option.kind.check(given)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_odd_values(argument: str) -> None:
    for value in ODD:
        check(argument, value)


@pytest.mark.parametrize("argument", ARGUMENTS)
@given(value=st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.lists(st.text(), max_size=2)))
def test_any_value(argument: str, value: Any) -> None:
    check(argument, value)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_something_is_wrong_for_each(argument: str) -> None:
    with pytest.raises(ConfigError):
        Embedder(**{argument: object()})


@pytest.mark.parametrize(
    ("argument", "spelling"),
    [
        ("dtype", "float32"), ("dtype", "bfloat16"), ("dtype", "float16"), ("dtype", "FLOAT32"),
        ("dtype", "F16"), ("dtype", "auto"), ("engine", "OpenVINO"), ("engine", "Torch"),
        ("device", "CUDA:1"), ("device", "CPU"),
    ],
)  # fmt: skip
def test_the_spellings_are_the_servers(argument: str, spelling: str) -> None:
    served = getattr(load({argument: spelling}, environ={}, path=os.devnull), argument)
    assert passed(**{argument: spelling})[argument] == served


def test_a_path_is_a_model() -> None:
    assert passed(model=Path("/models/mine"))["model"] == "/models/mine"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    make_model(folder)
    prompts = {"query": "query: ", "plain": "hello "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        patch.setattr(llmrs.embedder, "LocalBackend", llmrs.backends.local.LocalBackend)
        embedder = Embedder(str(folder), dtype="float32", threads=1)
    with embedder:
        yield embedder


CALLS = ["embed", "aembed"]


def call(embedder: Embedder, name: str, texts: Any = "a", **arguments: Any) -> Any:
    if name == "embed":
        return embedder.embed(texts, **arguments)
    return asyncio.run(embedder.aembed(texts, **arguments))


ALLOWED = {
    "dimensions": ["None", "1 to "],
    "truncate": list(get_args(Truncate)),
    "input_type": list(INPUT_TYPES),
    "prompt_name": ["plain", "query"],
}
"""What a refusal says, by argument."""

RIGHT: dict[str, list[Any]] = {
    "dimensions": [None, 1, 2],
    "truncate": [None, *get_args(Truncate)],
    "input_type": [None, *(word for word, meant in INPUT_TYPES.items() if meant in ("query", "document"))],
    "prompt_name": [None, "query", "plain"],
}


def test_the_table_has_all_arguments() -> None:
    assert {"self", "texts", *ALLOWED} == set(inspect.signature(Embedder.embed).parameters)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("argument", ALLOWED)
def test_odd_arguments_of_a_call(embedder: Embedder, name: str, argument: str) -> None:
    for value in RIGHT[argument]:
        call(embedder, name, **{argument: value})
    for value in ODD:
        if any(
            value is right or (type(value) is type(right) and value == right) for right in RIGHT[argument]
        ):
            continue
        for texts in ("a", []):
            with pytest.raises(InvalidRequest) as caught:
                call(embedder, name, texts, **{argument: value})
            assert argument in str(caught.value) or caught.value.param == argument
            if isinstance(value, str) or argument != "prompt_name":
                assert all(word in str(caught.value) for word in ALLOWED[argument]), str(caught.value)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("texts", [None, 3, b"ab", {"a": 1}, {"a"}, object(), [1], ["a", None], [b"a"]])
def test_what_is_no_text(embedder: Embedder, name: str, texts: Any) -> None:
    with pytest.raises(TypeError, match="texts must be"):
        call(embedder, name, texts)
