"""The arguments of the command line: which there are, and the configuration they make.

Says nothing of what a command does: `cli` does. Flags of the configuration follow from its table,
so there is no second list of options here. Mistakes are ConfigErrors of one line.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from llmrs import __version__
from llmrs.config import OPTIONS, Config, load
from llmrs.errors import ConfigError
from llmrs.sources import CONFIG_FILE, CONFIG_VARIABLE, suggestion


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as `command` and its flags; without a command, the flags are those of `serve`.

    Raises:
        ConfigError: one line naming the argument; no value is repeated, because it could be a secret.
        SystemExit: --help and --version have been answered.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["serve", *argv]
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        # Not argparse's own message: that repeats all of them, and a mistyped --api-key's value.
        word = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        hint = suggestion(word, ["--config", *(option.flag for option in OPTIONS)])
        raise ConfigError(f"unknown option {word[:100]!a}{hint}" if word else "unexpected argument")
    return arguments


def configuration(arguments: argparse.Namespace) -> Config:
    """The configuration, the flags of a parsed command line in front; raises ConfigError."""
    given = {option.name: getattr(arguments, option.name, None) for option in OPTIONS}
    overrides = {
        key: value if isinstance(value, str) else ",".join(value)
        for key, value in given.items()
        if value is not None
    }
    return load(overrides, path=arguments.config)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ConfigErrors: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="llmrs", description="An OpenAI-compatible text embedding service.")
    parser.add_argument("--version", action="version", version=f"llmrs {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, (about, add_flags) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.add_argument(
            "--config",
            metavar="PATH",
            help=f"configuration file [env {CONFIG_VARIABLE}, default {CONFIG_FILE} if it exists]",
        )
        add_flags(command)
    return parser


def _add_config_flags(command: argparse.ArgumentParser) -> None:
    """A flag for every option."""
    command.usage = f"{command.prog} [--config PATH] [--KEY VALUE ...]"  # The generated one fills a screen.
    for option in OPTIONS:
        about = f"{option.meaning} [env {option.env}, default {option.kind.show(option.default)}]"
        how: dict[str, Any] = {"metavar": option.kind.metavar, "help": about.replace("%", "%%")}
        if isinstance(option.default, bool):
            how |= {"nargs": "?", "const": "true"}
        elif isinstance(option.default, tuple):
            how |= {"action": "append"}
        command.add_argument(option.flag, dest=option.name, **how)


def _add_check_flags(command: argparse.ArgumentParser) -> None:
    about = "print the reference table of all settings instead"
    command.add_argument("--markdown", action="store_true", help=about)
    _add_config_flags(command)


def _add_embed_flags(command: argparse.ArgumentParser) -> None:
    """Only what computing here needs; switches take no value, or they would swallow a text."""
    add = command.add_argument
    add("texts", metavar="TEXT", nargs="+", help="a text; - stands for the lines of standard input")
    add("--model", "--model-path", dest="model_path", metavar="MODEL", help="folder or model id")
    _add_choice(command)
    add("--format", choices=("json", "npy"), default="json", help="JSON lines or one NumPy file [json]")
    add(
        "--truncate",
        choices=("none", "start", "end"),
        help="the end that long texts lose [the end, unless the model's tokenizer says start]",
    )
    add("--dtype", metavar="NAME", help="auto, f32, bf16 or f16")
    add("--batch-size", metavar="N", help="most texts in one batch")
    add(
        "--no-normalize",
        dest="normalize_embeddings",
        action="store_const",
        const="false",
        help="keep lengths",
    )
    _add_offline(command)


def _add_fetch_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model_path", metavar="MODEL", nargs="?", help="folder or model id [all that are configured]"
    )
    command.add_argument("--revision", metavar="REV", help="branch, tag or commit, as in MODEL@REV [main]")
    command.add_argument("--update", action="store_true", help="ask what a branch is now")
    _add_choice(command)
    _add_offline(command)


def _add_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", metavar="NAME", help="auto, openvino or torch")
    command.add_argument("--model-file", metavar="PATH", help="the model's file to take")


def _add_offline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--offline", action="store_const", const="true", help="never download")


def _add_bench_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("url", metavar="URL", help="of the service, with or without /v1")
    add("--model", metavar="NAME", help="model to ask for [the service's default]")
    add("--clients", type=_number(1, 1024), default=16, metavar="N", help="clients at a time [16]")
    add("--seconds", type=_number(1, 3600), default=10, metavar="N", help="how long [10]")
    add("--texts", type=_number(1, 2048), default=1, metavar="N", help="texts in a request [1]")
    add("--words", type=_number(1, 8192), default=16, metavar="N", help="words in a text [16]")
    add("--encoding", choices=("base64", "float"), default="base64", help="encoding_format [base64]")
    add("--json", action="store_true", help="print the report as JSON")


def _number(low: int, high: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected an integer from {low} to {high}")
        return int(text)

    return integer


COMMANDS = {
    "serve": ("run the service until it is told to stop", _add_config_flags),
    "check-config": ("print every setting with its source, or fail as serve would", _add_check_flags),
    "models": ("print what the configuration would serve", _add_config_flags),
    "embed": ("print the vectors of texts", _add_embed_flags),
    "fetch": ("make a model's files local and print their folder", _add_fetch_flags),
    "bench": ("measure an OpenAI-compatible embedding service", _add_bench_flags),
}
"""What each command is for, and what adds its flags."""
