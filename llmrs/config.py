"""The configuration: one table of options, and what its values must not say together.

`Config` is the table. Each row states a key, its default, its type and its meaning; environment
variable, flag, `--help`, the reference table and the checks of the sample file follow from it, so
that none can drift from the others. `options` knows the types of values, `sources` reads them.

Precedence: command line, environment, configuration file, default. Whatever is unknown, of the
wrong type, out of range or contradictory ends the start: a service that runs with other settings
than were written is worse than one that does not run. Nothing is read at import.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

from llmrs.errors import ConfigError
from llmrs.options import (
    Kind,
    Option,
    address,
    boolean,
    choice,
    device,
    inside,
    integer,
    origin,
    rate,
    seconds,
    secret,
    several,
    share,
    text,
    url,
    version,
)
from llmrs.sources import Rank, Setting, file_name, gather

D = TypeVar("D")
T = TypeVar("T")

DEFAULT_BACKEND_URL = "http://127.0.0.1:8000"
"""Where `backend_type = "proxy"` alone looks for its backend: the port that uvicorn and vLLM take."""

PAYLOAD_MEMORY = 256 << 20
"""Sixteen bodies of the default `payload_limit`."""

DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""PyTorch's names of the dtypes."""

LEVELS = {"trace": "debug", "warn": "warning", "err": "error", "fatal": "critical"}
"""Other programs' names of levels of severity."""


def option(default: D, kind: Kind[T], meaning: str, *, per_model: bool = False) -> D | T:
    """One row of the table. Typed as the value it stands for, as dataclass fields are."""
    row: Any = field(default=default, metadata={"kind": kind, "meaning": meaning, "per_model": per_model})
    return row  # type: ignore[no-any-return]


class Origin(NamedTuple):
    """What a configuration was loaded with: flags by key, and the file that was named."""

    flags: Mapping[str, str]
    path: str | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """The settings of the service. Immutable, hashable, picklable; its repr masks secrets.

    Made by `load`, which checks them; made directly, values are taken as they are.

    Attributes:
        sources: where each value comes from, by key: `default`, the configuration file's path,
            `environment PORT` or `command line --port`.
        warnings: what is legal but has no effect, a sentence each.
        models: one for each [[models]] table, its keys in place of the flat ones; empty without tables.
        origin: what `load` was given.
    """

    host: str = option("127.0.0.1", address(), "address to listen on, or unix:/path")
    port: int = option(3000, integer(0, 65535), "port to listen on; 0 picks a free one")

    backend_type: str = option(
        "auto",
        choice(
            "auto", "local", "proxy", aliases={"candle": "local"}, others="the name of an installed backend"
        ),
        "what computes vectors: local (also written candle), proxy (an HTTP backend), or the name of an "
        "entry point in the group llmrs.backends; auto is proxy if backend_url is set, else local",
        per_model=True,
    )
    backend_url: tuple[str, ...] = option(
        (),
        several(url()),
        "address of the HTTP backend, or addresses of several that serve the same model; unset with "
        f"backend_type proxy: {DEFAULT_BACKEND_URL}",
        per_model=True,
    )
    backend_protocol: str = option(
        "auto",
        choice("auto", "embed", "openai", "tei", "ollama", "azure"),
        "what the HTTP backend speaks; auto finds out",
        per_model=True,
    )
    backend_api_key: str | None = option(
        None,
        secret("a key of visible ASCII characters"),
        "key for the HTTP backend, a bearer token except for azure",
        per_model=True,
    )
    backend_api_version: str | None = option(
        None,
        version(),
        "api-version that an azure backend is asked with; unset: that in backend_url",
        per_model=True,
    )
    backend_ca_file: str | None = option(
        None,
        text("a path", "PATH"),
        "file of certificates (PEM) that alone may vouch for an https backend, for a certificate authority "
        "of your own; unset: SSL_CERT_FILE and SSL_CERT_DIR, else the system's and Mozilla's",
        per_model=True,
    )

    model_name: str | None = option(
        None,
        text("a name", "NAME"),
        "name to serve the model under, and to ask an HTTP backend for; unset: the last part of the "
        "model's path, or the name the backend gives",
        per_model=True,
    )
    model_aliases: tuple[str, ...] = option(
        (), several(text("a name", "NAME")), "more names for the model", per_model=True
    )
    unknown_model: str = option(
        "reject",
        choice("reject", "default"),
        "what a request gets that asks for a model by a name that none has: 404, or, where one model is "
        "served, that model",
    )
    model_path: str = option(
        "sentence-transformers/all-MiniLM-L6-v2",
        text("a folder or a model id", "MODEL"),
        "local model: a folder in the sentence-transformers layout, or a Hugging Face model id",
        per_model=True,
    )
    offline: bool = option(False, boolean(), "never download a model")
    engine: str = option(
        "auto",
        choice("auto", "openvino", "torch"),
        "what computes a local model: openvino, or torch for what openvino cannot; auto: the first that can",
        per_model=True,
    )
    device: str = option(
        "auto",
        device(),
        "where engine torch computes: cpu, cuda, cuda:1, mps; auto: cuda where there is a GPU, else cpu",
        per_model=True,
    )
    model_file: str | None = option(
        None,
        inside(),
        "local model: its file to take, such as onnx/model_quantized.onnx; unset: model.safetensors where "
        "that can be built, else onnx/model.onnx or openvino/openvino_model.xml",
        per_model=True,
    )
    dtype: str = option(
        "auto",
        choice("auto", "f32", "bf16", "f16", aliases=DTYPES),
        "local arithmetic; auto: what suits the CPU",
        per_model=True,
    )
    inference_threads: int = option(
        0, integer(0, 1024), "threads computing the local model; 0: all usable cores", per_model=True
    )
    load_on: str = option(
        "start",
        choice("start", "request"),
        "when a local model is loaded: at the start, or on its first request",
        per_model=True,
    )
    unload_after: float = option(
        0.0,
        seconds(0, 604800),
        "seconds without a request after which a model that is loaded on request is unloaded; 0: never",
        per_model=True,
    )
    model_memory: int = option(
        0,
        integer(0, 1 << 50),
        "bytes that the weights of all local models may have together; beyond it, those that are loaded on "
        "request are unloaded, the least recently used first; 0: no limit",
    )
    normalize_embeddings: bool = option(True, boolean(), "scale vectors to length 1", per_model=True)

    default_prompt: str | None = option(
        None,
        text("a prompt's name", "NAME"),
        "local model: its prompt that is put in front of texts of requests that name none; unset: the "
        "model's own default, if it has one",
        per_model=True,
    )

    batch_size: int = option(32, integer(1, 65536), "most texts in one backend batch", per_model=True)
    max_batch_tokens: int = option(
        16384, integer(1, 1 << 30), "most tokens in one backend batch", per_model=True
    )
    workers: int | None = option(
        None,
        integer(1, 1024),
        "batches in flight, for each HTTP backend; unset: by model and cores, 4 HTTP",
        per_model=True,
    )
    queue_capacity: int = option(
        100,
        integer(1, 1_000_000),
        "most requests that are tokenized and wait for a batch; more wait at the door",
        per_model=True,
    )
    queue_seconds: float = option(
        30.0,
        seconds(0.001, 86400),
        "most seconds a request may be predicted to wait, or wait at the door; else the answer is 429",
        per_model=True,
    )

    max_client_batch_size: int = option(2048, integer(1, 1_000_000), "most inputs in one request")
    max_request_tokens: int = option(300_000, integer(1, 1 << 30), "most tokens in one request")
    payload_limit: int = option(16_777_216, integer(1, 1 << 30), "most bytes in a request body")
    payload_memory: int = option(
        PAYLOAD_MEMORY,
        integer(1, 1 << 40),
        "most bytes that the bodies of all requests of a process take together, the first 64 KiB of each not "
        "counted; more are answered 503",
    )
    request_timeout: float = option(
        60.0, seconds(0.001, 86400), "seconds until a request is answered 504, queue included"
    )
    hang_timeout: float = option(
        60.0,
        seconds(0, 86400),
        "seconds after which a local model's computing hangs: the server is not ready, and ends for its "
        "supervisor 10 seconds later; 0: never",
        per_model=True,
    )
    token_ids: str = option(
        "auto",
        choice("auto", "native", "cl100k", "reject"),
        "how token ids are read: native as the model's own, cl100k as OpenAI's, reject answers 400; auto: "
        "cl100k, and as they are for backends that may be OpenAI",
        per_model=True,
    )
    truncate: str | None = option(
        None,
        choice("none", "start", "end", "chunk_mean"),
        "what becomes of texts longer than the model takes, where a request does not say: none answers 400, "
        "start and end cut off that end, chunk_mean takes the mean of parts; unset: the end that the model's "
        "tokenizer cuts off, and what an HTTP backend does by itself",
        per_model=True,
    )
    empty_input: str = option(
        "accept", choice("accept", "reject"), "whether an empty text is embedded or 400"
    )
    allow_any_dimensions: bool = option(
        False,
        boolean(),
        "let requests shorten vectors of models that declare no sizes for it",
        per_model=True,
    )

    api_key: tuple[str, ...] = option(
        (), several(secret("a key of visible ASCII characters")), "key that clients must send; unset: none"
    )
    api_key_file: str | None = option(
        None,
        text("a path", "PATH"),
        "file with more such keys, a line each: the key, and a name for it if you like; read again when it "
        "changes",
    )
    key_concurrency: int = option(
        0, integer(0, 1_000_000), "most requests of one API key at a time, in each process; 0: no limit"
    )
    key_rate: float = option(
        0.0,
        rate(0.01, 100_000),
        "requests a second of one API key, on average, in each process; what a second gives may come at "
        "once; 0: no limit",
    )

    cors_allow_origin: tuple[str, ...] = option(
        (),
        several(origin()),
        "origin of the web pages that may call from a browser, or * for all; unset: none",
    )

    watch_config: bool = option(
        True,
        boolean(),
        "look at the configuration file, and switch models when it changes; other keys need a restart",
    )
    admin_key: str | None = option(
        None,
        secret("a key of visible ASCII characters"),
        "key for POST /admin/reload, which reads the configuration again; unset: there is no such path",
    )
    worker_class: str = option(
        "llmrs",
        choice("llmrs", "gevent"),
        "gunicorn worker class: llmrs is this package's own and several times cheaper per request, gevent "
        "is gunicorn's",
    )
    processes: int = option(
        1,
        integer(1, 64),
        "processes that answer HTTP; where there are several, one more computes the local models for all",
    )
    worker_connections: int = option(2000, integer(1, 1_000_000), "most client connections at a time")
    keepalive: int = option(75, integer(0, 86400), "seconds an idle client connection stays open")
    graceful_timeout: int = option(30, integer(1, 86400), "seconds that a stop waits for requests to finish")
    metrics: str = option(
        "open",
        choice("open", "key", "off"),
        "GET /metrics: for everyone, only with an API key, or not at all",
    )
    tei_metrics: bool = option(False, boolean(), "count under the names of text-embeddings-inference, too")
    log_level: str = option(
        "info",
        choice("debug", "info", "warning", "error", "critical", aliases=LEVELS),
        "least severity that is logged",
    )
    log_format: str = option("text", choice("text", "json"), "form of a log line")
    log_requests: float = option(
        0.0, share(), "share of the requests that get a log line; above 0, those answered 5xx always do"
    )
    tracing: str = option(
        "off",
        choice("off", "otel"),
        "otel: spans for OpenTelemetry, configured by the OTEL_* variables; needs the extra otel",
    )

    sources: Mapping[str, str] = field(
        default_factory=lambda: dict.fromkeys(BY_NAME, "default"), compare=False
    )
    warnings: tuple[str, ...] = field(default=(), compare=False)
    models: tuple[Config, ...] = ()
    origin: Origin = field(default_factory=lambda: Origin({}, None), compare=False)

    @property
    def served(self) -> tuple[Config, ...]:
        """One configuration for each model that is served, the default one first."""
        return self.models or (self,)

    @property
    def file(self) -> str:
        """The configuration file, whether it exists or not."""
        return file_name(self.origin.path, os.environ)

    def reread(self) -> Config:
        """What `load` would give now.

        Raises:
            ConfigError: it is wrong, or names no longer what this one does.
        """
        now = load(self.origin.flags, path=self.origin.path)
        for loss in _losses(self, now):
            raise ConfigError(loss)
        return now

    @property
    def uses_http_backend(self) -> bool:
        """Whether vectors come from an HTTP backend."""
        return self.backend_type == "proxy" or (self.backend_type == "auto" and bool(self.backend_url))

    @property
    def uses_local_backend(self) -> bool:
        """Whether vectors are computed in this process. False for other installed backends, too."""
        return self.backend_type == "local" or (self.backend_type == "auto" and not self.backend_url)

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients must send an API key."""
        return bool(self.api_key) or self.api_key_file is not None

    @property
    def has_engine_process(self) -> bool:
        """Whether a process of its own computes, for several that answer HTTP."""
        return self.processes > 1 and not all(model.uses_http_backend for model in self.served)

    @property
    def bind(self) -> str:
        """The address as gunicorn takes it: `127.0.0.1:3000`, `[::1]:3000` or `unix:/path`."""
        if self.host.startswith("unix:"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def shown(self, key: str) -> str:
        """The value of `key` in TOML's spelling, on one line, secrets masked."""
        return BY_NAME[key].kind.show(getattr(self, key))

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{key}={self.shown(key)}' for key in BY_NAME)})"


OPTIONS: tuple[Option, ...] = tuple(
    Option(row.name, default=row.default, **row.metadata) for row in fields(Config) if row.metadata
)
"""The rows of the table, in its order."""

BY_NAME: Mapping[str, Option] = {row.name: row for row in OPTIONS}


def load(
    argv_overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    path: str | None = None,
) -> Config:
    """Read the configuration from all its sources and check it.

    Args:
        argv_overrides: texts given on the command line, by key (`{"port": "8080"}`).
        environ: environment variables; None is this process's.
        path: configuration file; None is what LLMRS_CONFIG names, else config.toml if it exists.

    Raises:
        ConfigError: one line with the key, its value (secrets masked), its source and the remedy.
    """
    flags = argv_overrides or {}
    settings, tables = gather(OPTIONS, flags, os.environ if environ is None else environ, path)
    config = _config(settings)
    models = tuple(_config(settings | table) for table in tables)
    for contradiction in _contradictory_models(config, settings, models):
        raise ConfigError(contradiction)
    warnings = [warning for model in models or (config,) for warning in _ineffective(model)]
    return replace(
        config, models=models, warnings=tuple(dict.fromkeys(warnings)), origin=Origin(dict(flags), path)
    )


def _config(settings: dict[str, Setting]) -> Config:
    """The configuration that settings make, for one model."""
    settings = dict(settings)
    if settings["backend_type"].value == "proxy" and not settings["backend_url"].value:
        settings["backend_url"] = Setting((DEFAULT_BACKEND_URL,), "default of proxy", Rank.DEFAULT)
    limit, memory = settings["payload_limit"], settings["payload_memory"]
    if memory.rank is Rank.DEFAULT and memory.value < limit.value:
        settings["payload_memory"] = Setting(limit.value, "default: payload_limit", Rank.DEFAULT)
    values = {key: setting.value for key, setting in settings.items()}
    config = Config(**values, sources={key: setting.source for key, setting in settings.items()})
    for contradiction in _contradictions(config, settings):
        raise ConfigError(contradiction)
    return config


def reference_table() -> str:
    """The whole table in Markdown: key, environment variable, flag, default, meaning."""
    lines = ["| key | environment | flag | default | meaning |", "|---|---|---|---|---|"]
    for row in OPTIONS:
        default = row.kind.show(row.default)
        meaning = f"{row.meaning} ({row.kind.expected})"
        lines.append(f"| `{row.name}` | `{row.env}` | `{row.flag}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _contradictions(config: Config, settings: Mapping[str, Setting]) -> Iterator[str]:
    """What cannot be meant, a line each. Single values are right by now."""

    def given(key: str) -> str:
        return f"{key} = {config.shown(key)} ({config.sources[key]})"

    # A port from a weaker source than the socket's belongs to the address that was replaced.
    if config.host.startswith("unix:") and settings["port"].rank >= settings["host"].rank:
        yield f"{given('port')} contradicts {given('host')}: a Unix socket has no port, remove one of them"
    if config.payload_memory < config.payload_limit:
        yield (
            f"{given('payload_memory')} contradicts {given('payload_limit')}: there must be room for one body"
        )
    if len(set(config.backend_url)) < len(config.backend_url):
        yield f"{given('backend_url')}: an address is given twice, remove one"
    if "*" in config.cors_allow_origin and len(config.cors_allow_origin) > 1:
        yield f"{given('cors_allow_origin')}: * allows all origins, give it alone"
    if config.backend_protocol != "auto" and config.uses_local_backend:
        yield (
            f"{given('backend_protocol')} contradicts {given('backend_type')} without an HTTP backend: set "
            "backend_type to proxy, or remove backend_protocol"
        )
    if config.has_engine_process and not config.uses_local_backend:
        yield f"{given('processes')}: an installed backend ({given('backend_type')}) runs in one process"
    if config.has_engine_process and config.worker_class != "llmrs":
        yield f"{given('processes')} contradicts {given('worker_class')}: set worker_class to llmrs"
    takes_ids = not config.uses_http_backend or config.backend_protocol in ("auto", "openai", "tei", "azure")
    if config.token_ids == "native" and not takes_ids:
        yield (
            f"{given('token_ids')} contradicts {given('backend_protocol')}: only openai and tei backends "
            "take token ids, set token_ids to cl100k or reject"
        )
    if config.truncate == "chunk_mean" and config.uses_http_backend:
        yield (
            f"{given('truncate')} contradicts {given('backend_type')}: only a local model is known to split "
            "texts, set truncate to none, start or end"
        )
    if config.api_key_file is not None and (reason := _unreadable(config.api_key_file)):
        yield f"{given('api_key_file')}: {reason}"


IDENTITY = (
    "backend_type",
    "backend_url",
    "backend_protocol",
    "model_name",
    "model_aliases",
    "model_path",
    "model_file",
)
"""What says which model is meant, and so cannot be said for several at once."""

PLACE = ("model_path", "backend_url")
"""What says where a model's vectors come from."""


def _contradictory_models(
    config: Config, settings: Mapping[str, Setting], models: Sequence[Config]
) -> Iterator[str]:
    """What the [[models]] tables cannot mean, a line each."""
    if config.unknown_model == "default" and len(models) > 1:
        yield (
            f"unknown_model = default ({config.sources['unknown_model']}) contradicts [[models]]: of several "
            "models none answers for all names, set it to reject"
        )
    if not models:
        return
    for key in IDENTITY:
        if settings[key].rank > Rank.DEFAULT:
            source = config.sources[key]
            yield f"{key} = {config.shown(key)} ({source}) contradicts [[models]]: write it into one of them"
    owners: dict[str, int] = {}
    for number, model in enumerate(models, 1):
        if model.model_name is None and len(models) > 1:
            yield f"model {number} of [[models]] has no model_name: of several, each must have one"
        for name in filter(None, (model.model_name, *model.model_aliases)):
            if owners.setdefault(name, number) != number:
                yield f"models {owners[name]} and {number} of [[models]] have the same name {name[:100]!a}"


def _losses(before: Config, now: Config) -> Iterator[str]:
    """What was named before and is not now, a line each.

    A file that is gone, empty, or cut in the middle of a write looks as if the default model were wanted, and
    nobody who edits a file wants another model's vectors under the old name.
    """
    if _is_given(before, IDENTITY) and not _is_given(now, IDENTITY):
        yield f"{now.file} names no model any more; to serve the default model, name it or restart"
    places = {model.model_name: model for model in before.served if _is_given(model, PLACE)}
    for model in now.served:
        if model.model_name in places and not _is_given(model, PLACE):
            yield f"model {model.model_name} has neither model_path nor backend_url any more"


def _is_given(config: Config, keys: Iterable[str]) -> bool:
    """Whether one of the keys has a value that is not the default."""
    return any(not model.sources[key].startswith("default") for model in config.served for key in keys)


def _ineffective(config: Config) -> Iterator[str]:
    """What is set without effect, a sentence each."""
    for key in ("backend_url", "backend_api_key", "backend_api_version", "backend_ca_file"):
        if config.uses_local_backend and getattr(config, key):
            yield (
                f"{key} = {config.shown(key)} ({config.sources[key]}) is not used, because backend_type is "
                f"{config.backend_type} ({config.sources['backend_type']})"
            )
    if config.uses_http_backend and config.backend_ca_file and not any(map(_is_https, config.backend_url)):
        yield (
            f"backend_ca_file = {config.shown('backend_ca_file')} ({config.sources['backend_ca_file']}) is "
            "not used, because no backend_url begins with https"
        )
    if config.backend_api_version and config.uses_http_backend and config.backend_protocol != "azure":
        yield (
            f"backend_api_version = {config.shown('backend_api_version')} "
            f"({config.sources['backend_api_version']}) is not used, because backend_protocol is not azure"
        )
    for key in ("load_on", "unload_after", "model_memory"):
        if getattr(config, key) != BY_NAME[key].default and (reason := _stays_loaded(config, key)):
            yield f"{key} = {config.shown(key)} ({config.sources[key]}) is not used, because {reason}"
    for key in ("key_concurrency", "key_rate"):
        if getattr(config, key) and not config.asks_for_keys:
            yield (
                f"{key} = {config.shown(key)} ({config.sources[key]}) is not used, because neither api_key "
                "nor api_key_file is set"
            )


def _is_https(url: str) -> bool:
    return url.lower().startswith("https:")


def _stays_loaded(config: Config, key: str) -> str | None:
    """Why a model is not unloaded whatever `key` says, or None."""
    if not config.uses_local_backend and key != "model_memory":
        return "the model is not computed here"
    if key == "unload_after" and config.load_on == "start":
        return "load_on is start"
    return None


def _unreadable(path: str) -> str | None:
    """Why the file at `path` cannot be read, or None. Not opened: it may be a pipe, read only once."""
    if not os.path.exists(path):
        return "no such file"
    if os.path.isdir(path):
        return "is a folder, expected a file"
    return None if os.access(path, os.R_OK) else "no permission to read it"
