"""The table, its rules across keys, and what `Config` offers beside the values."""

from __future__ import annotations

import copy
import os
import pickle
import re
import stat
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from llmrs.config import OPTIONS, Config, load, reference_table

SAMPLE = Path(__file__).parents[2] / "config.toml"

UNUSED_URL = (
    'backend_url = "http://b" (config.toml) is not used, because backend_type is local '
    "(environment BACKEND_TYPE)"
)


class TestBackend:
    @pytest.mark.parametrize(
        ("settings", "http", "local"),
        [
            ({}, False, True),
            ({"backend_url": "http://b"}, True, False),
            ({"backend_type": "local"}, False, True),
            ({"backend_type": "local", "backend_url": "http://b"}, False, True),
            ({"backend_type": "proxy"}, True, False),
            ({"backend_type": "other"}, False, False),
            ({"backend_type": "other", "backend_url": "http://b"}, False, False),
        ],
    )
    def test_kind(self, load_from, settings, http, local):
        config = load_from(flags=settings)
        assert config.uses_http_backend is http
        assert config.uses_local_backend is local

    def test_proxy_alone_means_port_8000(self, load_from):
        config = load_from(environ={"BACKEND_TYPE": "proxy"})
        assert config.backend_url == ("http://127.0.0.1:8000",)
        assert config.sources["backend_url"] == "default of proxy"

    def test_an_address_is_unused_by_a_local_backend(self, load_from):
        config = load_from(file='backend_url = "http://b"', environ={"BACKEND_TYPE": "local"})
        assert config.warnings == (UNUSED_URL,)

    def test_a_backend_key_is_unused_without_a_backend(self, load_from):
        config = load_from(environ={"BACKEND_API_KEY": "hush"})
        assert len(config.warnings) == 1
        assert "backend_api_key" in config.warnings[0]
        assert "hush" not in config.warnings[0]

    def test_certificates_are_unused_without_tls(self, load_from):
        config = load_from(environ={"BACKEND_CA_FILE": "ca.pem", "BACKEND_URL": "http://a,unix:/b"})
        (warning,) = config.warnings
        assert warning == (
            'backend_ca_file = "ca.pem" (environment BACKEND_CA_FILE) is not used, '
            "because no backend_url begins with https"
        )
        assert not load_from(environ={"BACKEND_CA_FILE": "ca.pem", "BACKEND_URL": "HTTPS://a"}).warnings

    def test_the_sample_of_the_mission(self, load_from):
        file = 'backend_url = "http://127.0.0.1:8000"\nbackend_type = "Candle"'
        config = load_from(file)
        assert config.backend_type == "local"
        assert not config.uses_http_backend
        assert len(config.warnings) == 1


class TestContradictions:
    def test_protocol_of_a_local_backend(self, refusal):
        message = refusal(file='backend_protocol = "tei"', environ={"BACKEND_TYPE": "local"})
        assert message.startswith(
            'backend_protocol = "tei" (config.toml) contradicts backend_type = "local" '
            "(environment BACKEND_TYPE)"
        )

    def test_protocol_without_an_address(self, refusal):
        assert refusal(flags={"backend_protocol": "openai"}).startswith(
            'backend_protocol = "openai" (command line --backend-protocol) contradicts '
            'backend_type = "auto" (default)'
        )

    @pytest.mark.parametrize(
        "more", [{"backend_url": "http://b"}, {"backend_type": "proxy"}, {"backend_type": "x"}]
    )
    def test_protocol_of_another_backend(self, load_from, more):
        assert load_from(flags={"backend_protocol": "tei", **more}).backend_protocol == "tei"

    @pytest.mark.parametrize("protocol", ["embed", "ollama"])
    def test_native_ids_for_a_backend_that_takes_texts_only(self, refusal, protocol):
        flags = {"token_ids": "native", "backend_type": "proxy", "backend_protocol": protocol}
        assert "token_ids" in refusal(flags=flags)
        assert protocol in refusal(flags=flags)

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"backend_type": "proxy"},
            {"backend_type": "proxy", "backend_protocol": "openai"},
            {"backend_type": "proxy", "backend_protocol": "tei"},
        ],
    )
    def test_native_ids_elsewhere(self, load_from, more):
        assert load_from(flags={"token_ids": "native", **more}).token_ids == "native"

    @pytest.mark.parametrize("file", ['backend_url = ["http://a", "http://b"]', None])
    def test_several_addresses(self, load_from, file):
        config = load_from(file=file, environ={} if file else {"BACKEND_URL": "http://a,http://b"})
        assert config.backend_url == ("http://a", "http://b")

    def test_an_address_that_is_given_twice(self, refusal):
        message = refusal(file='backend_url = ["http://a", "http://a"]')
        assert message == (
            'backend_url = ["http://a", "http://a"] (config.toml): an address is given twice, remove one'
        )


class TestAddress:
    @pytest.mark.parametrize(
        ("flags", "bind"),
        [
            ({}, "127.0.0.1:3000"),
            ({"host": "0.0.0.0", "port": "0"}, "0.0.0.0:0"),
            ({"host": "localhost"}, "localhost:3000"),
            ({"host": "::1"}, "[::1]:3000"),
            ({"host": "[::]"}, "[::]:3000"),
            ({"host": "unix:/run/l.sock"}, "unix:/run/l.sock"),
        ],
    )
    def test_bind(self, load_from, flags, bind):
        assert load_from(flags=flags).bind == bind

    def test_a_socket_has_no_port(self, refusal):
        message = refusal(environ={"HOST": "unix:/run/l.sock", "PORT": "3000"})
        assert message.startswith(
            'port = 3000 (environment PORT) contradicts host = "unix:/run/l.sock" (environment HOST)'
        )

    def test_a_port_over_a_socket(self, refusal):
        assert "contradicts" in refusal(file='host = "unix:/run/l.sock"', flags={"port": "1"})

    def test_a_socket_replaces_a_weaker_port(self, load_from):
        assert load_from(file="port = 3000", environ={"HOST": "unix:/run/l.sock"}).bind == "unix:/run/l.sock"


class TestKeyFile:
    def test_readable(self, load_from, tmp_path):
        (tmp_path / "keys").write_text("k")
        assert load_from(environ={"API_KEY_FILE": "keys"}).api_key_file == "keys"

    def test_a_pipe_is_not_opened(self, load_from, tmp_path):
        os.mkfifo(tmp_path / "keys")
        assert stat.S_ISFIFO(os.stat(tmp_path / "keys").st_mode)
        assert load_from(environ={"API_KEY_FILE": "keys"}).api_key_file == "keys"

    def test_missing(self, refusal):
        assert refusal(environ={"API_KEY_FILE": "keys"}) == (
            'api_key_file = "keys" (environment API_KEY_FILE): no such file'
        )

    def test_a_folder(self, refusal, tmp_path):
        (tmp_path / "keys").mkdir()
        assert "is a folder" in refusal(environ={"API_KEY_FILE": "keys"})

    def test_no_permission(self, refusal, tmp_path, monkeypatch):
        (tmp_path / "keys").write_text("k")
        # Permission bits do not bind root, whom tests may run as.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert "no permission" in refusal(environ={"API_KEY_FILE": "keys"})


class TestObject:
    @pytest.fixture
    def config(self, load_from):
        return load_from(environ={"API_KEY": "hush,quiet", "BACKEND_API_KEY": "hush", "PORT": "1"})

    def test_copies_are_equal(self, config):
        for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), replace(config)):
            assert other == config
            assert hash(other) == hash(config)
            assert other.sources == config.sources
            assert other.warnings == config.warnings
        assert replace(config, port=2) != config

    def test_frozen(self, config):
        with pytest.raises(FrozenInstanceError):
            config.port = 2

    def test_repr_masks_secrets(self, config):
        assert "hush" not in repr(config)
        assert "quiet" not in repr(config)
        assert "port=1" in repr(config)
        assert 'api_key=["***", "***"]' in repr(config)

    def test_made_directly(self):
        config = Config(port=0, backend_url=("http://b",))
        assert config.uses_http_backend
        assert set(config.sources) == {option.name for option in OPTIONS}


class TestTable:
    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_defaults_fit_their_own_kind(self, option):
        if option.default not in (None, ()):
            value = option.kind.check(
                list(option.default) if isinstance(option.default, tuple) else option.default
            )
            assert value == option.default
            assert type(value) is type(option.default)

    def test_names(self):
        names = [option.name for option in OPTIONS]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
        assert (OPTIONS[0].env, OPTIONS[0].flag) == ("HOST", "--host")

    def test_reference_has_a_row_for_each(self):
        head, _rule, *rows = reference_table().splitlines()
        assert head == "| key | environment | flag | default | meaning |"
        assert len(rows) == len(OPTIONS)
        for option, row in zip(OPTIONS, rows, strict=True):
            assert row.startswith(f"| `{option.name}` | `{option.env}` | `{option.flag}` | `")
            assert row.count("|") == 6
            assert option.meaning in row


class TestSample:
    def test_changes_nothing(self):
        assert load({}, {}, str(SAMPLE)) == Config()

    def test_every_key_once(self):
        keys = re.findall(r"^(?:# )?([a-z_]+) = ", SAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(keys) == sorted(option.name for option in OPTIONS)

    def test_only_what_has_no_default_is_commented_out(self):
        lines = re.findall(r"^# ([a-z_]+ = .*)$", SAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
        unset = {option.name for option in OPTIONS if option.default in (None, ())}
        assert {line.split()[0] for line in lines} == unset

    def test_uncommented_lines_load(self, load_from):
        lines = re.findall(r"^# ([a-z_]+ = .*)$", SAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
        used = [
            line
            for line in lines
            if not line.startswith(("api_key_file", "backend_ca_file", "backend_api_version"))
        ]
        config = load_from("\n".join(used))
        assert config.sources["workers"] == "config.toml"
        assert config.warnings == ()


class TestPayloadMemory:
    def test_there_must_be_room_for_one_body(self, refusal):
        message = refusal(environ={"PAYLOAD_LIMIT": "1000"}, flags={"payload_memory": "999"})
        assert message.startswith(
            "payload_memory = 999 (command line --payload-memory) contradicts payload_limit = 1000"
        )

    def test_unset_it_grows_with_the_limit(self, load_from):
        config = load_from(environ={"PAYLOAD_LIMIT": str(1 << 29)})
        assert config.payload_memory == 1 << 29
        assert config.sources["payload_memory"] == "default: payload_limit"
        assert load_from().payload_memory == 256 << 20
