"""What each type of value takes, in both spellings, and how a refusal reads."""

from __future__ import annotations

import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmrs.config import BY_NAME, OPTIONS, load
from llmrs.errors import ConfigError
from llmrs.options import MAX_SHOWN, MAX_TEXT, UnfitError

SECRET = "tr0ub4dor"

TEXTS = [
    ("port", "0", 0),
    ("port", " 65535\n", 65535),
    ("request_timeout", "0.5", 0.5),
    ("request_timeout", "60", 60.0),
    ("cors_allow_origin", "*", ("*",)),
    (
        "cors_allow_origin",
        "HTTPS://App.Example:443, http://localhost:8080,http://[::1],tauri://localhost",
        ("https://app.example", "http://localhost:8080", "http://[::1]", "tauri://localhost"),
    ),
    ("key_rate", "0", 0.0),
    ("key_rate", "0.5", 0.5),
    ("log_requests", "1", 1.0),
    ("load_on", "Request", "request"),
    ("unload_after", "0", 0.0),
    ("model_memory", "0", 0),
    ("workers", "8", 8),
    *(("offline", text, True) for text in ("true", "1", "yes", "on", "TRUE", " Yes ")),
    *(("normalize_embeddings", text, False) for text in ("false", "0", "no", "off", "OFF")),
    ("engine", "OpenVINO", "openvino"),
    *(("device", text, text.lower()) for text in ("auto", "CPU", "cuda", "cuda:1", "mps", "xpu:12")),
    ("model_file", "onnx/model_quantized.onnx", "onnx/model_quantized.onnx"),
    ("dtype", "float32", "f32"),
    ("dtype", "BFloat16", "bf16"),
    ("dtype", "float16", "f16"),
    ("log_level", "INFO", "info"),
    *(("log_level", text, "warning") for text in ("WARN", "warn", "Warning")),
    *(("log_level", text, "critical") for text in ("FATAL", "critical")),
    *(("log_level", text, level) for text, level in (("err", "error"), ("TRACE", "debug"))),
    ("backend_type", "candle", "local"),
    ("backend_type", "CANDLE", "local"),
    ("backend_type", "Local", "local"),
    ("backend_type", "My.Backend-2", "My.Backend-2"),
    ("model_aliases", " a, b ,c", ("a", "b", "c")),
    ("api_key", "one,two", ("one", "two")),
    ("backend_api_key", "a,b", "a,b"),
    ("host", "[::1]", "::1"),
    ("host", "fe80::1%eth0", "fe80::1%eth0"),
    ("host", "my-host.example", "my-host.example"),
    ("host", "unix:///run/l.sock", "unix:/run/l.sock"),
    ("backend_url", "HTTP://h:1/v1", ("HTTP://h:1/v1",)),
    ("backend_url", "http://[::1]:8000", ("http://[::1]:8000",)),
    ("model_name", "模型", "模型"),
]


@pytest.mark.parametrize(("key", "text", "value"), TEXTS)
def test_text(key, text, value):
    assert BY_NAME[key].kind.from_text(text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("port", text) for text in ("-1", "65536", "3000.0", "1_000", "0x10", "٣", "", " ", "9" * 5000)),
        *(("request_timeout", text) for text in ("0", "-1", "nan", "inf", "1e3", "86401", "")),
        *(("cors_allow_origin", text) for text in ("app.example", "https://a/", "https://a/b", "null", "")),
        *(("cors_allow_origin", text) for text in ("https://*.example", "https://u@a", "https://a:x")),
        *(("key_rate", text) for text in ("0.001", "-1", "nan", "100001")),
        *(("offline", text) for text in ("", "2", "t", "enabled")),
        *(("batch_size", text) for text in ("0", "65537")),
        *(("workers", text) for text in ("0", "auto")),
        *(("engine", text) for text in ("onnx", "", "cuda")),
        *(("device", text) for text in ("", "gpu", "cuda:", "cuda:-1", "cpu:0", "meta", "auto:1")),
        *(("model_file", text) for text in ("", "/m.onnx", "../m.onnx", "onnx/../m", "onnx//m", "./m", "m/")),
        *(("dtype", text) for text in ("int8", "", "f64")),
        *(("load_on", text) for text in ("", "use", "never")),
        *(("unload_after", text) for text in ("-1", "604801", "nan")),
        *(("model_memory", text) for text in ("-1", "1.5", "1G")),
        ("worker_class", "sync"),
        ("log_format", "xml"),
        *(("log_requests", text) for text in ("1.01", "-0.1", "nan", "all")),
        *(("backend_type", text) for text in ("", "a b", "../x", "a:b", "x" * 101)),
        *(("model_name", text) for text in ("", "  ", "a\nb", "a\0b", "\udc80", "x" * (MAX_TEXT + 1))),
        *(("api_key", text) for text in ("", ",", "a,,b", "a,", "a b", "é", "a\r\nb")),
        *(("host", text) for text in ("", "a b", "h:80", "1.2.3.4:80", "http://h", "-h", "a/b", "x" * 254)),
        *(("host", text) for text in ("unix:", "unix:relative", "unix:/run/", "unix:/" + "x" * 107)),
        *(("backend_url", text) for text in ("", "h:80", "ftp://h", "http://", "http:h", "http://h:x")),
        *(
            ("backend_url", text)
            for text in ("http://[::1", "http://h:0", "http://a b", "unix:", "http://h?a")
        ),
        *(("backend_url", text) for text in ("http://u:p@h", "http://u@h", "http://h:99999", "http://h/#a")),
    ],
)
def test_text_refused(key, text):
    with pytest.raises(UnfitError):
        BY_NAME[key].kind.from_text(text)


@pytest.mark.parametrize(
    ("key", "toml", "value"),
    [
        ("request_timeout", "60", 60.0),
        ("payload_limit", "0x10", 16),
        ("api_key", '"one"', ("one",)),
        ("api_key", '["one", "two"]', ("one", "two")),
        ("api_key", "[]", ()),
    ],
)
def test_toml(load_from, key, toml, value):
    assert getattr(load_from(f"{key} = {toml}"), key) == value


@pytest.mark.parametrize(
    ("key", "toml", "refused"),
    [
        ("port", '"3000"', 'port = "3000" (config.toml): expected an integer from 0 to 65535'),
        ("port", "true", "port = true (config.toml): expected an integer from 0 to 65535"),
        ("port", "3000.0", "port = 3000.0 (config.toml): expected an integer from 0 to 65535"),
        ("port", "[1]", "port = [1] (config.toml): expected an integer from 0 to 65535"),
        ("port", "{a = 1}", "port = a table (config.toml): expected an integer from 0 to 65535"),
        (
            "port",
            "0x" + "f" * 9999,
            "port = a huge integer (config.toml): expected an integer from 0 to 65535",
        ),
        ("offline", "1", "offline = 1 (config.toml): expected true or false"),
        ("offline", '"true"', 'offline = "true" (config.toml): expected true or false'),
        (
            "request_timeout",
            "nan",
            "request_timeout = nan (config.toml): expected a number of seconds from 0.001",
        ),
        ("request_timeout", "true", "request_timeout = true (config.toml): expected a number of seconds"),
        ("model_name", "5", "model_name = 5 (config.toml): expected a name"),
        ("model_name", '" a"', 'model_name = " a" (config.toml): expected a name'),
        ("model_name", '""', 'model_name = "" (config.toml): expected a name'),
        ("dtype", "16", "dtype = 16 (config.toml): expected one of auto, f32, bf16, f16"),
        ("model_file", '"/m"', 'model_file = "/m" (config.toml): expected a path inside the model\'s folder'),
        ("model_aliases", '["a", 1]', 'model_aliases = ["a", 1] (config.toml): expected a name, or several'),
        (
            "model_aliases",
            '"a,b"',
            'model_aliases = "a,b" (config.toml): expected a name, several of them as an',
        ),
        ("model_aliases", '[["a"]]', "model_aliases = [[...]] (config.toml): expected a name, or several"),
        ("model_name", "1979-05-27", "model_name = 1979-05-27 (config.toml): expected a name"),
    ],
)
def test_toml_refused(refusal, key, toml, refused):
    assert refusal(f"{key} = {toml}").startswith(refused)


def test_a_long_value_is_cut(refusal):
    message = refusal(environ={"PORT": "x" * 10_000})
    assert len(message) < MAX_SHOWN + 100
    assert message.startswith('port = "xxx')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_key", f"ok,{SECRET} x"),
        ("api_key", f"ok,,{SECRET}"),
        ("backend_api_key", f"{SECRET} {SECRET}"),
        ("backend_url", f"http://u:{SECRET}@h"),
        ("backend_url", f"http://{SECRET}@h"),
        ("backend_url", f"http://u:a?{SECRET}@h"),
        ("backend_url", f'http://u:"{SECRET}/x@h'),
        ("backend_url", f"http:/u:{SECRET}\n@h,http://h"),
        ("backend_url", f"h:1?key={SECRET}"),
        ("backend_url", f"http://h/?key={SECRET}#x"),
        ("backend_url", f"http://[{SECRET}@h"),
        ("backend_url", f"http://u:{SECRET}@h:port"),
    ],
)
def test_secrets_are_masked_in_refusals(refusal, key, value):
    for source in ({"environ": {key.upper(): value}}, {"flags": {key: value}}):
        message = refusal(**source)
        assert SECRET not in message
        assert "***" in message


@pytest.mark.parametrize(
    "toml", [SECRET.join(('"', ' x"')), f'["a", "{SECRET} x"]', f'{{a = "{SECRET}"}}', "12345"]
)
def test_secrets_are_masked_in_refusals_of_the_file(refusal, toml):
    for key in ("api_key", "backend_api_key"):
        message = refusal(f"{key} = {toml}")
        assert SECRET not in message
        assert "12345" not in message


environ_texts = st.text(min_size=1, max_size=60) | st.text(string.printable, min_size=1, max_size=60)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@given(text=environ_texts)
@example(text="unix:/a")
@example(text="http://[")
@example(text="\ud800")
@example(text="9" * 5000)
@example(text="http://h:" + "9" * 5000)
@example(text="http://\u2100@h")
def test_any_text_loads_or_is_refused_in_one_line(option, text):
    outcome = outcome_of(option.env, text)
    if isinstance(outcome, ConfigError):
        assert str(outcome).isprintable()
        assert str(outcome).startswith(f"{option.name} = ")
    else:
        assert getattr(outcome, option.name) is not None
        assert repr(outcome).isprintable()
        assert outcome.sources[option.name] == f"environment {option.env}"


def outcome_of(variable, text):
    """The configuration, or the ConfigError; anything else that is raised fails the test."""
    try:
        return load({}, {variable: text}, os.devnull)
    except ConfigError as error:
        return error
