"""The command line: `llmrs serve`, `check-config`, `models`, `embed`, `fetch` and `bench`.

Hands a configuration to the room that does the work, imported only then: `llmrs --help` and
`llmrs check-config` load no engine and no server. `flags` knows the arguments.

Exit codes: 0, 1 for a failed command, 2 for a wrong configuration or command line, 3 for a model
that cannot be loaded, 130 for Ctrl-C, 141 for a reader that went away. Errors made on purpose are
one line on standard error; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from llmrs.config import OPTIONS, Config, reference_table
from llmrs.errors import ConfigError, ServiceError, StartupError
from llmrs.flags import configuration, parse

if TYPE_CHECKING:
    from llmrs.embeddings import Matrix

CHUNK = 256
"""Texts embedded at a time by `llmrs embed`: bounds its memory, whatever standard input holds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: this process's) and return the exit code."""
    try:
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            return COMMANDS[arguments.command](arguments)
        except SystemExit as end:  # --help and --version, and a worker's end: what they wrote must arrive
            if not end.code and sys.stdout is not None:
                _write(b"")
            raise
    except (StartupError, ServiceError) as error:
        _tell("error", error)
        return error.exit_code if isinstance(error, StartupError) else 1
    except KeyboardInterrupt:
        return 130
    finally:
        _let_go(sys.stdout)
        _let_go(sys.stderr)


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is told to stop."""
    config = configuration(arguments)
    from llmrs.server.process import serve as run

    return run(config)


def check_config(arguments: argparse.Namespace) -> int:
    """Print every setting with its source, or fail as `serve` would."""
    if arguments.markdown:
        _print(reference_table())
        return 0
    config = configuration(arguments)
    rows = [(option.name, config.shown(option.name), config.sources[option.name]) for option in OPTIONS]
    for number, model in enumerate(config.models, 1):
        own = [key for key, source in model.sources.items() if source != config.sources[key]]
        rows += [(f"models.{number}.{key}", model.shown(key), model.sources[key]) for key in own]
    _print(_table([("key", "value", "source"), *rows]))
    for warning in config.warnings:
        _tell("warning", warning)
    return 0


def models(arguments: argparse.Namespace) -> int:
    """Print what the configuration would serve."""
    config = configuration(arguments)
    titles = ("name", "folder or address", "dimensions", "max tokens", "state")
    _print(_table([titles, *(row for model in config.served for row in _describe(model))]))
    return 0


def embed(arguments: argparse.Namespace) -> int:
    """Print the vectors of texts: JSON arrays, one a line, or a NumPy file."""
    config = configuration(arguments)
    from llmrs.embedder import Embedder

    with Embedder(
        config.model_path,
        engine=config.engine,
        model_file=config.model_file,
        dtype=config.dtype,
        device=config.device,
        normalize=config.normalize_embeddings,
        batch_size=config.batch_size,
        offline=config.offline,
    ) as embedder:
        texts = _texts(arguments.texts)
        chunks = iter(lambda: list(itertools.islice(texts, CHUNK)), [])
        matrices = (embedder.embed(chunk, truncate=arguments.truncate) for chunk in chunks)
        if arguments.format == "npy":
            _write(_npy(matrices, embedder.dimensions))
        else:
            for matrix in matrices:
                # str() of a float32 is its shortest text that reads back as the same float32.
                _print("".join(f"[{','.join(map(str, row))}]\n" for row in matrix))
    return 0


def fetch(arguments: argparse.Namespace) -> int:
    """Make models' files local, downloading what is missing, and print their folders, one a line."""
    config = configuration(arguments)
    if arguments.revision is not None:
        if arguments.model_path is None or "@" in arguments.model_path:
            raise ConfigError("--revision needs a MODEL without a revision of its own")
        config = replace(config, model_path=f"{config.model_path}@{arguments.revision}")
    named = arguments.model_path is not None
    wanted = [config] if named else [model for model in config.served if model.uses_local_backend]
    if not wanted:
        raise ConfigError("no local model is configured; name a MODEL to fetch")
    for model in wanted:
        _print(f"{_folder(model, update=arguments.update)}\n")
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Measure a service and print the report; 1 if it had faults or gave no answer.

    The API key is OPENAI_API_KEY, as for other clients: a flag would show it to everyone who can
    list processes.
    """
    from llmrs import loadtest

    load = loadtest.Load(
        url=arguments.url,
        model=arguments.model,
        clients=arguments.clients,
        seconds=arguments.seconds,
        texts=arguments.texts,
        words=arguments.words,
        encoding=arguments.encoding,
        api_key=os.environ.get("OPENAI_API_KEY"),
    )
    report = loadtest.run(load, loadtest.show_progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    _print(json.dumps(report) + "\n" if arguments.json else loadtest.as_table(report))
    return 1 if report["faults"] or not report["requests"] else 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "serve": serve,
    "check-config": check_config,
    "models": models,
    "embed": embed,
    "fetch": fetch,
    "bench": bench,
}
"""What runs each command, and gives its exit code."""


def _describe(config: Config) -> list[tuple[str, ...]]:
    """What a model is and how it is, a line for each of its places."""
    from llmrs.backends import open_backend

    backend = open_backend(config)
    try:
        backend.check(timeout=config.request_timeout)
        info, replicas = backend.info, backend.replicas
    finally:
        backend.close()
    what = (config.model_name or info.name, info.dimensions, info.max_input_tokens)
    name, *numbers = ("unknown" if cell is None else str(cell) for cell in what)
    if not replicas:
        return [(name, _place(config), *numbers, "up")]
    return [(name, replica.url, *numbers, replica.reason or replica.state) for replica in replicas]


def _place(config: Config) -> str:
    """Where the vectors come from: a folder, an address, or the name of a backend."""
    if config.uses_http_backend:
        return ", ".join(config.backend_url)
    if not config.uses_local_backend:
        return config.backend_type
    return _folder(config)


def _folder(config: Config, *, update: bool = False) -> str:
    """A local model's, fetched where it is not on this machine."""
    from llmrs.models.resolve import resolve

    folder = resolve(
        config.model_path,
        engine=config.engine,
        model_file=config.model_file,
        offline=config.offline,
        update=update,
    )
    return str(folder)


def _texts(arguments: Iterable[str]) -> Iterator[str]:
    """The texts to embed, `-` replaced by the lines of standard input."""
    for argument in arguments:
        if argument == "-":
            yield from (_utf8(line, "standard input").rstrip("\r\n") for line in sys.stdin.buffer)
        else:
            yield _utf8(os.fsencode(argument), "command line")


def _utf8(text: bytes, source: str) -> str:
    # Decoded here, because Python lets undecodable bytes pass as surrogates in some locales.
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise StartupError(f"{source}: expected text in UTF-8") from None


def _npy(matrices: Iterable[Matrix], dimensions: int) -> bytes:
    """All rows as one NumPy file, [n, dimensions]."""
    import numpy as np

    # Written to memory, because NumPy seeks in real files and standard output may be a pipe.
    file = io.BytesIO()
    np.save(file, np.concatenate([np.empty((0, dimensions), np.float32), *matrices]))
    return file.getvalue()


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines, columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _print(text: str) -> None:
    _write(text.encode(errors="backslashreplace"))


def _write(data: bytes) -> None:
    """Write to standard output; a reader that went away, as `head` does, ends the process quietly.

    Raises:
        StartupError: it cannot be written to: it is closed, or its disk is full.
    """
    if sys.stdout is None:
        raise StartupError("standard output is closed, and the answer has no other place to go")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        raise StartupError(f"standard output cannot be written: {error.strerror}") from None


def _tell(kind: str, what: object) -> None:
    """A line on standard error. That nobody can read it changes no exit code."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"llmrs: {kind}:", " ".join(str(what).split()), file=sys.stderr, flush=True)


def _let_go(stream: TextIO | None) -> None:
    """Python flushes it once more at its end. If that fails, it ends with 120, whatever we return."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):  # ValueError: somebody has closed it
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
