"""Several models in one configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrs.config import OPTIONS, Config, load
from llmrs.errors import ConfigError

TWO = """
batch_size = 16
[[models]]
model_name = "small"
model_aliases = ["s"]
[[models]]
model_name = "far"
backend_url = ["http://a:1", "http://b:1"]
batch_size = 64
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def read(text: str, **environ: str) -> Config:
        Path("config.toml").write_text(text)
        return load(environ=environ)

    return read


def test_each_table_is_a_model_with_the_flat_keys_as_defaults(read) -> None:
    config = read(TWO)
    small, far = config.served
    assert (small.model_name, small.batch_size, small.uses_local_backend) == ("small", 16, True)
    assert (far.model_name, far.batch_size, far.uses_http_backend) == ("far", 64, True)
    assert far.sources["batch_size"].endswith("config.toml, model 2")
    assert small.sources["batch_size"].endswith("config.toml")


def test_without_tables_the_flat_keys_are_the_model(read) -> None:
    config = read("batch_size = 16")
    assert config.served == (config,)
    assert not config.models


def test_it_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TWO)
    config = load({"port": "1234"}, environ={}, path=str(path))
    path.write_text(TWO.replace("16", "8"))
    again = config.reread()
    assert (again.port, again.served[0].batch_size) == (1234, 8)
    assert config.file == str(path)


NAMED = '[[models]]\nmodel_name = "mine"\nmodel_path = "/models/v1"\n'


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (NAMED, None, "names no model any more"),
        (NAMED, "", "names no model any more"),
        (NAMED, "port = 1234\n", "names no model any more"),
        (NAMED, NAMED[: NAMED.index("model_path")], "neither model_path nor backend_url"),
        ('model_path = "/models/v1"\n', "", "names no model any more"),
        ('model_name = "mine"\nbackend_url = "http://a:1"\n', 'model_name = "mine"\n', "neither"),
    ],
)
def test_a_file_that_lost_its_models_is_not_taken_for_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, now: str | None, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("config.toml")
    file.write_text(before)
    config = load(environ={})
    file.unlink() if now is None else file.write_text(now)
    with pytest.raises(ConfigError, match=reason):
        config.reread()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("", ""),
        ("", NAMED),
        (NAMED, NAMED.replace("v1", "v2")),
        (NAMED, NAMED.replace('model_path = "/models/v1"', 'backend_url = "http://a:1"')),
        (NAMED, NAMED.replace("mine", "yours")),
        (NAMED, '[[models]]\nmodel_name = "default"\n'),
        ('model_path = "/models/v1"\n', NAMED),
    ],
)
def test_a_file_may_name_other_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, now: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("config.toml")
    file.write_text(before)
    config = load(environ={})
    file.write_text(now)
    assert config.reread().served


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models = 5", "expected [[models]] tables"),
        ("models = [5]", "expected [[models]] tables"),
        (TWO + "port = 5", "port (config.toml, model 2): it is for the whole service"),
        (TWO + "batch_sice = 5", 'did you mean "batch_size"?'),
        (TWO + "workers = 0", "workers = 0 (config.toml, model 2): expected"),
        (TWO.replace("far", "s"), "models 1 and 2 of [[models]] have the same name 's'"),
        (TWO.replace('model_name = "far"', ""), "model 2 of [[models]] has no model_name"),
        ('model_path = "x"\n' + TWO, "contradicts [[models]]"),
        ('model_file = "x"\n' + TWO, "contradicts [[models]]"),
        (TWO + 'token_ids = "native"\nbackend_protocol = "ollama"', "contradicts"),
    ],
)
def test_what_cannot_be_meant(read, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(text)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_environment_may_give_defaults_but_not_the_model(read) -> None:
    assert read(TWO, WORKERS="3").served[1].workers == 3
    with pytest.raises(ConfigError, match=r"model_name = .* \(environment MODEL_NAME\) contradicts"):
        read(TWO, MODEL_NAME="x")


def test_what_is_for_one_model_is_marked() -> None:
    per_model = {option.name for option in OPTIONS if option.per_model}
    assert {"model_path", "backend_url", "batch_size", "queue_capacity", "dtype", "token_ids"} <= per_model
    assert {"engine", "device", "model_file", "load_on", "unload_after"} <= per_model
    assert "model_memory" not in per_model
    assert not per_model & {"host", "port", "api_key", "payload_limit", "processes", "log_level"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('load_on = "request"\nbackend_url = "http://a:1"', "not computed here"),
        ("unload_after = 5", "load_on is start"),
    ],
)
def test_what_is_said_in_vain_about_loading_is_told(read, text: str, reason: str) -> None:
    assert any(reason in warning for warning in read(text).warnings)
    assert not read('load_on = "request"\nunload_after = 5').warnings
    assert not read('load_on = "request"\nunload_after = 5\nmodel_memory = 5\nprocesses = 2').warnings
