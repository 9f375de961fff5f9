"""Precedence, and what each source accepts and refuses to read."""

from __future__ import annotations

import json

import pytest

from llmrs.config import OPTIONS, Config, load
from llmrs.sources import MAX_FILE

MISSION = {  # The ten names the mission gives: a text, the value it stands for, two other values.
    "host": ("0.0.0.0", "0.0.0.0", "127.0.0.2", "::1"),
    "port": ("8080", 8080, 1, 2),
    "backend_url": ("http://b:1/v1", ("http://b:1/v1",), "https://c", "unix:/d"),
    "backend_type": ("Candle", "local", "proxy", "auto"),
    "model_name": ("m", "m", "n", "o"),
    "model_path": ("./models/m", "./models/m", "org/n", "/o"),
    "normalize_embeddings": ("false", False, True, False),
    "batch_size": ("64", 64, 1, 2),
    "workers": ("8", 8, 1, 2),
    "queue_capacity": ("1000", 1000, 1, 2),
}


def toml(key, value):
    return f"{key} = {json.dumps(value)}\n"


def written(key):
    """The text of MISSION as the TOML value it stands for."""
    text, value, *_ = MISSION[key]
    return text if isinstance(value, (str, tuple)) else value


def test_nothing_given_is_the_defaults(load_from):
    config = load_from()
    assert config == Config()
    assert set(config.sources.values()) == {"default"}
    assert config.warnings == ()


@pytest.mark.parametrize("key", MISSION)
class TestMissionNames:
    def test_file(self, load_from, key):
        config = load_from(file=toml(key, written(key)))
        assert getattr(config, key) == MISSION[key][1]
        assert config.sources[key] == "config.toml"

    def test_environment(self, load_from, key):
        config = load_from(environ={key.upper(): MISSION[key][0]})
        assert getattr(config, key) == MISSION[key][1]
        assert config.sources[key] == f"environment {key.upper()}"

    def test_command_line(self, load_from, key):
        config = load_from(flags={key: MISSION[key][0]})
        assert getattr(config, key) == MISSION[key][1]
        assert config.sources[key] == f"command line --{key.replace('_', '-')}"

    def test_precedence(self, load_from, key):
        _, value, middle, low = MISSION[key]
        environ = {key.upper(): json.dumps(middle) if not isinstance(middle, str) else middle}
        flags = {key: MISSION[key][0]}
        file = toml(key, low)
        assert getattr(load_from(file, environ, flags), key) == value
        below = load_from(file, environ)
        assert getattr(below, key) in (middle, (middle,))
        assert below.sources[key] == f"environment {key.upper()}"
        lowest = load_from(file, {})
        assert getattr(lowest, key) in (low, (low,))
        assert lowest.sources[key] == "config.toml"


def test_every_option_is_read_from_the_environment_by_its_name_only(load_from):
    environ = {option.env: "" for option in OPTIONS} | {"LLMRS_PORT": "tcp://10.0.0.1:1", "port": "1"}
    assert load_from(environ=environ) == Config()


def test_the_process_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "4000")
    assert load().port == 4000


class TestFile:
    def test_named_on_the_command_line(self, load_from, tmp_path):
        other = tmp_path / "other.toml"
        other.write_text("port = 1")
        config = load_from(file="port = 2", path=str(other), environ={"LLMRS_CONFIG": "ignored.toml"})
        assert (config.port, config.sources["port"]) == (1, str(other))

    def test_named_in_the_environment(self, load_from, tmp_path):
        (tmp_path / "other.toml").write_text("port = 1")
        config = load_from(file="port = 2", environ={"LLMRS_CONFIG": "other.toml"})
        assert (config.port, config.sources["port"]) == (1, "other.toml")

    def test_an_empty_variable_names_none(self, load_from):
        assert load_from(file="port = 2", environ={"LLMRS_CONFIG": ""}).port == 2

    @pytest.mark.parametrize("how", [{"path": "gone.toml"}, {"environ": {"LLMRS_CONFIG": "gone.toml"}}])
    def test_a_named_file_must_exist(self, refusal, how):
        assert refusal(**how) == "configuration file gone.toml: No such file or directory"

    def test_a_folder(self, refusal, tmp_path):
        (tmp_path / "config.toml").mkdir()
        assert refusal() == "configuration file config.toml: Is a directory"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"port = ", "Invalid value"),
            (b"port = 1\nport = 2", "Cannot overwrite a value"),
            (b'model_name = "\xff"', "not UTF-8"),
            (b"port = " + b"[" * 20_000, "nested too deeply"),
            (b"port = " + b"9" * 5_000, "4300 digits"),
            (b"#" * (MAX_FILE + 1), "larger than"),
        ],
    )
    def test_not_toml(self, refusal, tmp_path, content, reason):
        (tmp_path / "config.toml").write_bytes(content)
        message = refusal()
        assert message.startswith("configuration file config.toml: ")
        assert reason in message

    def test_a_byte_order_mark_is_no_key(self, load_from):
        assert load_from(file="\ufeffport = 1").port == 1

    @pytest.mark.parametrize("path", ["a\0b", "a\nb"])
    def test_an_odd_path_stays_one_line(self, refusal, path):
        assert "configuration file" in refusal(path=path)


class TestUnknownKey:
    @pytest.mark.parametrize(
        ("file", "key", "near"),
        [
            ("prot = 1", "prot", "port"),
            ("PORT = 1", "PORT", "port"),
            ("batch-size = 1", "batch-size", "batch_size"),
            ("[[model]]\nname = 'a'", "model", None),
            ("[server]\nport = 1", "server", None),
            ('"a\\nb" = 1', "'a\\nb'", None),
        ],
    )
    def test_in_the_file(self, refusal, file, key, near):
        message = refusal(file=file)
        assert message.startswith(f'unknown key "{key}" (config.toml)')
        if near:
            assert message.endswith(f'did you mean "{near}"?')

    def test_given_by_a_caller(self, refusal):
        assert refusal(flags={"prot": "1"}) == 'unknown key "prot" (command line); did you mean "port"?'
