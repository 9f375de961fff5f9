"""Which keys a JSON file of a model may have, and what they may say: tables, and the check of a file by one.

A table lists every key that is known. A key that is obeyed is READ, and its reader checks the value. One
that cannot change a vector is IGNORED. One of which only a few values can be obeyed lists them. Any other key
ends the start, because it could change every vector. Null stands for an absent key, unless GIVEN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llmrs.errors import ModelError
from llmrs.models.settings import Settings


@dataclass(frozen=True)
class Rule:
    """What a key may say.

    Attributes:
        values: the values that are supported; None for those that the reader of the key supports.
        table: of the keys of the object that the key holds.
        ignored: whether the value is of no account.
        null: whether null stands for an absent key.
    """

    values: tuple[Any, ...] | None = None
    table: Mapping[str, Rule] | None = None
    ignored: bool = False
    null: bool = True


Table: TypeAlias = Mapping[str, Rule]

READ = Rule()
"""A key that is obeyed."""

GIVEN = Rule(null=False)
"""A key that is obeyed, and that the libraries do not load with null."""

IGNORED = Rule(ignored=True)
"""A key that cannot change a vector."""

UNSET = Rule(values=())
"""A key that only null is supported for."""


def only(*values: Any) -> Rule:
    """The rule of a key of which these values alone are supported."""
    return Rule(values=values)


def within(table: Table) -> Rule:
    """The rule of a key that holds an object with keys of its own."""
    return Rule(table=table)


def each(rule: Rule, names: str) -> dict[str, Rule]:
    """A table of several keys with one rule; `names` are separated by blanks."""
    return dict.fromkeys(names.split(), rule)


def check_keys(settings: Settings, table: Table, *, others: bool = False, otherwise: str = "") -> None:
    """Check every key of a file, and of the objects in it, by a table.

    Args:
        others: whether the file may have keys that the table does not: somebody else obeys or ignores them.
        otherwise: what else than removing a key may be done.

    Raises:
        ModelError: a key is not known, or has a value that is not supported; names the file, the key and
            the value.
    """
    for key, value in settings.values.items():
        rule = table.get(key)
        if rule is not None:
            _check(settings.path, key, value, rule)
        elif not others and value is not None:
            ways = f", or {otherwise}" if otherwise else ""
            raise ModelError(
                f"{settings.path}: {_shown(key, value)} is not known and could change the vectors; "
                f"remove it if it does not{ways}"
            )


def _check(path: Path, key: str, value: Any, rule: Rule) -> None:
    """Check one key that is known."""
    if value is None and not rule.null:
        raise ModelError(f"{path}: {_shown(key, value)} is not supported, it must have a value or be absent")
    if rule.ignored or value is None:
        return
    if rule.values is not None and not any(_is_same(value, allowed) for allowed in rule.values):
        listed = ", ".join(json.dumps(allowed) for allowed in rule.values)
        instead = f"only {listed} is" if listed else "it must be null or absent"
        raise ModelError(f"{path}: {_shown(key, value)} is not supported, {instead}")
    if rule.table is None:
        return
    if not isinstance(value, dict):
        raise ModelError(f"{path}: {key} is of the wrong type ({type(value).__name__}), expected an object")
    inner = Settings(path, {f"{key}.{name}": each for name, each in value.items()})
    check_keys(inner, {f"{key}.{name}": each for name, each in rule.table.items()})


def _is_same(value: Any, allowed: Any) -> bool:
    """As JSON has it: true is not 1, and 1.0 is 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


def _shown(key: str, value: Any) -> str:
    return f"{key[:60]} = {json.dumps(value, ensure_ascii=False)[:60]}"
