"""By which names a model is asked for, and which names nobody answers to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmrs.config import load
from llmrs.embeddings import ModelInfo
from llmrs.errors import ConfigError, ModelNotFound
from llmrs.models.resolve import hub_id
from llmrs.server.names import Names, derive
from llmrs.server.registry import Registry
from tests.engines import DIMENSIONS, MAX_TOKENS, FakeBackend
from tests.server.conftest import Client

Make = Callable[..., Client]

PATH = "/v1/embeddings"


def names(*models: tuple[list[str], list[str]]) -> dict[str, int]:
    return dict(derive([Names(tuple(given), tuple(origins)) for given, origins in models]))


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (
            [(["m"], ["org/m", "m"])],
            {"org/m": 0, "org/m:latest": 0, "m:latest": 0},
        ),
        (
            [(["embed", "alias"], ["BAAI/bge-m3", "bge-m3"])],
            {
                "BAAI/bge-m3": 0, "bge-m3": 0, "BAAI/bge-m3:latest": 0, "bge-m3:latest": 0,
                "embed:latest": 0, "alias:latest": 0,
            },
        ),
        # What Ollama calls it has a tag already; another tag is another model.
        ([(["all-minilm:latest"], ["all-minilm:latest"])], {"all-minilm": 0}),
        ([(["qwen:0.6b"], ["qwen:0.6b"])], {}),
        # The same last part twice is nobody's name; the whole ids are.
        (
            [(["a"], ["x/m"]), (["b"], ["y/m"])],
            {
                "x/m": 0, "y/m": 1, "x/m:latest": 0, "y/m:latest": 1, "a:latest": 0, "b:latest": 1,
            },
        ),
        # One model in two precisions: neither has its id.
        ([(["a"], ["x/m"]), (["b"], ["x/m"])], {"a:latest": 0, "b:latest": 1}),
        # Given names win, and so do theirs with a tag.
        (
            [(["a"], ["x/m"]), (["m"], [])],
            {"x/m": 0, "x/m:latest": 0, "a:latest": 0, "m:latest": 1},
        ),
        ([(["a"], ["x/m"]), (["b", "x/m", "m:latest"], [])], {"m": 0, "a:latest": 0, "b:latest": 1,
                                                             "x/m:latest": 1}),
        ([(["m"], []), (["m:latest"], [])], {}),
    ],
)  # fmt: skip
def test_derived_names(models: Any, expected: dict[str, int]) -> None:
    assert names(*models) == expected


@pytest.mark.parametrize(
    "name", ["fake-model", "org/fake-model", "fake-model:latest", "org/fake-model:latest", ""]
)
def test_a_model_answers_to_all_of_its_names(make_client: Make, name: str) -> None:
    info = ModelInfo(
        name="fake-model", hub_id="org/fake-model", dimensions=DIMENSIONS, max_input_tokens=MAX_TOKENS
    )
    client = make_client(FakeBackend(info=info))
    for path, body in ((PATH, {"input": "x"}), ("/embed", {"inputs": "x"}), ("/embed", {"texts": "x"})):
        assert client.post(path, {**body, "model": name}).status_code == 200
    assert client.post(PATH, {"input": "x", "model": name}).json["model"] == "fake-model"
    for listing in ("/v1/models", "/models"):
        if name:
            assert client.get(f"{listing}/{name}").json["id"] == "fake-model"
    for other in ("other/fake-model", "fake-model:v2", "FAKE-MODEL", "fake", " fake-model"):
        assert client.error(404, PATH, {"input": "x", "model": other})["code"] == "model_not_found"


def test_a_name_that_a_backend_is_learnt_to_have_counts_from_then_on() -> None:
    model: Any = SimpleNamespace(name="m", names=("m",), origins=(), info=ModelInfo(), reason=None)
    registry = Registry([model])
    with pytest.raises(ModelNotFound):
        registry.get("bge-m3")
    model.names, model.origins, model.info = ("BAAI/bge-m3",), ("BAAI/bge-m3",), ModelInfo(name="BAAI/bge-m3")
    assert registry.get("bge-m3") is model
    assert registry.get("BAAI/bge-m3:latest") is model
    registry.models = ()
    with pytest.raises(ModelNotFound):
        registry.get("bge-m3")


def test_any_name_where_one_model_is_served(make_client: Make) -> None:
    client = make_client(unknown_model="default")
    answer = client.post(PATH, {"input": "x", "model": "text-embedding-3-small"})
    assert (answer.status_code, answer.json["model"]) == (200, "fake-model")
    assert client.post("/embed", {"inputs": "x", "model": "tei"}).status_code == 200
    assert client.error(400, PATH, {"input": "x", "model": 5})["param"] == "model"
    assert make_client().error(404, PATH, {"input": "x", "model": "tei"})["param"] == "model"


def test_any_name_is_no_setting_for_several_models(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    table = '[[models]]\nmodel_name = "{}"\nmodel_path = "m"\n'
    file.write_text('unknown_model = "default"\n' + table.format("a") + table.format("b"))
    with pytest.raises(ConfigError, match=r"unknown_model.*contradicts \[\[models\]\]"):
        load(environ={}, path=str(file))
    file.write_text('unknown_model = "default"\n' + table.format("a"))
    assert load(environ={}, path=str(file)).unknown_model == "default"


def test_the_hub_id_of_a_model(tmp_path: Path) -> None:
    assert hub_id("BAAI/bge-m3") == hub_id("BAAI/bge-m3@main") == "BAAI/bge-m3"
    assert hub_id("gpt2") == "gpt2"
    assert hub_id("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    for folder, found in (
        ("hub/models--BAAI--bge-m3/snapshots/5617", "BAAI/bge-m3"),
        ("hub/models--gpt2/snapshots/607a", "gpt2"),
        ("BAAI/bge-m3", None), ("models--a--b/other/x", None),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        assert hub_id(str(tmp_path / folder)) == found
