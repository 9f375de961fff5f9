"""Where settings come from: defaults, a TOML file, the environment, the command line.

Knows the rows of a table but none of them by name. Later sources replace earlier ones, key by
key. Every refusal is a ConfigError of one line with key, value (secrets masked), source and
reason.

Environment variables are looked up by the table's names and never listed: the environment
belongs to the whole machine, so a foreign variable is not a mistake. The file and the command
line are ours alone, so an unknown key in them is one.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from llmrs.errors import ConfigError
from llmrs.options import Option, UnfitError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 brings no TOML reader.
    import tomli as tomllib

CONFIG_FILE = "config.toml"
"""The file read from the working directory when nothing names one."""

CONFIG_VARIABLE = "LLMRS_CONFIG"
"""The environment variable that names the file."""

MAX_FILE = 1 << 20
"""Bytes of the largest file: bounds what a wrong path (a device, a model's weights) can cost."""


class Rank(IntEnum):
    """Precedence: the higher one wins."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    COMMAND_LINE = 3


class Setting(NamedTuple):
    """The value of one option, and where it comes from in words."""

    value: Any
    source: str
    rank: Rank


class Settings(NamedTuple):
    """What all sources say: the setting of every option, and of each [[models]] table those it has."""

    flat: dict[str, Setting]
    models: list[dict[str, Setting]]


def gather(
    table: Iterable[Option],
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    path: str | None,
) -> Settings:
    """The setting of every option in `table`, by key.

    Args:
        table: the options.
        flags: texts from the command line, by key.
        environ: environment variables; one that is empty counts as unset.
        path: the configuration file; None looks for one (see `read_file`).

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    options = {option.name: option for option in table}
    settings = {name: Setting(option.default, "default", Rank.DEFAULT) for name, option in options.items()}
    file, values = read_file(path, environ)
    models = _models(options, values.pop("models", []), file)
    for key, value in values.items():
        settings[key] = _setting(_known(options, key, file), value, file, Rank.FILE)
    for name, option in options.items():
        if value := environ.get(option.env):
            settings[name] = _setting(option, value, f"environment {option.env}", Rank.ENVIRONMENT)
    for key, value in flags.items():
        option = _known(options, key, "command line")
        settings[key] = _setting(option, value, f"command line {option.flag}", Rank.COMMAND_LINE)
    return Settings(settings, models)


def _models(options: Mapping[str, Option], tables: Any, file: str) -> list[dict[str, Setting]]:
    """The settings in the [[models]] tables of a file."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"models ({file}): expected [[models]] tables, one for each model")
    per_model = {name: option for name, option in options.items() if option.per_model}
    models = []
    for number, table in enumerate(tables, 1):
        source = f"{file}, model {number}"
        for key in table:
            if key in options and key not in per_model:
                raise ConfigError(f"{key} ({source}): it is for the whole service, not for one model")
        models.append(
            {
                key: _setting(_known(per_model, key, source), value, source, Rank.FILE)
                for key, value in table.items()
            }
        )
    return models


def read_file(path: str | None, environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The configuration file's name for messages, and its keys and values.

    It is `path`, else what LLMRS_CONFIG names, else config.toml in the working directory. Only
    the last may be missing: a file that somebody asked for is an error when it is not there.
    """
    named = path is not None or bool(environ.get(CONFIG_VARIABLE))
    path = file_name(path, environ)
    shown = path if path.isprintable() else ascii(path)
    try:
        return shown, tomllib.loads(_read_text(path))
    except FileNotFoundError as error:
        if not named:
            return shown, {}
        reason = error.strerror
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # Not TOML, too large, or a path with NUL.
        reason = " ".join(str(error).split())
    raise ConfigError(f"configuration file {shown}: {reason}")


def file_name(path: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file: `path`, else what LLMRS_CONFIG names, else config.toml."""
    return path if path is not None else environ.get(CONFIG_VARIABLE) or CONFIG_FILE


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` with the known word nearest to `word`, or nothing if none is near."""
    near = difflib.get_close_matches(word[:100], list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _read_text(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"larger than {MAX_FILE} bytes")
    return content.decode("utf-8-sig")  # Some editors put a byte order mark in front.


def _known(options: Mapping[str, Option], key: str, source: str) -> Option:
    if key in options:
        return options[key]
    shown = key[:100] if key.isprintable() else ascii(key[:100])
    hint = suggestion(key.lower().replace("-", "_"), options)
    raise ConfigError(f'unknown key "{shown}" ({source}){hint or "; llmrs check-config lists all keys"}')


def checked(option: Option, value: Any, name: str, source: str) -> Any:
    """The value of an option that a program gives as an object, under a name of its own.

    Raises:
        ConfigError: the option does not take it; the message says what it takes.
    """
    if not isinstance(value, (bool, int, float, str)):  # shown by its type: a repr may say anything
        given = "None" if value is None else f"of type {type(value).__name__}"
        raise ConfigError(f"{name} = {given} ({source}): expected {option.kind.expected}")
    return _parsed(option, option.kind.check, value, name, source)


def _setting(option: Option, value: Any, source: str, rank: Rank) -> Setting:
    parse = option.kind.check if rank is Rank.FILE else option.kind.from_text
    return Setting(_parsed(option, parse, value, option.name, source), source, rank)


def _parsed(option: Option, parse: Callable[[Any], Any], value: Any, name: str, source: str) -> Any:
    try:
        return parse(value)
    except UnfitError as error:
        reason = str(error) or f"expected {option.kind.expected}"
        raise ConfigError(f"{name} = {option.kind.show(value)} ({source}): {reason}") from None
