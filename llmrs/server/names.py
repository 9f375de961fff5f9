"""Names that models have without being given them: the id on a hub, its last part, and Ollama's `:latest`.

Given names win over derived ones, and a derived name that two models would have is no name at all: whoever
asks for it would get one model's vectors or the other's by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

LATEST = ":latest"
"""Ollama's tag of a name that has none."""


class Names(NamedTuple):
    """One model's names.

    Attributes:
        given: its name and its aliases.
        origins: what it is called where it comes from: a hub id, or the name that its backend gives.
    """

    given: tuple[str, ...]
    origins: tuple[str, ...]


def derive(models: Sequence[Names]) -> Mapping[str, int]:
    """The names that are derived, and the position of the model that each stands for."""
    given = {name: position for position, model in reversed([*enumerate(models)]) for name in model.given}
    derived = _unambiguous(
        (name, position)
        for position, model in enumerate(models)
        for origin in model.origins
        for name in (origin, origin.rpartition("/")[2])
        if name not in given
    )
    plain = given | derived
    tagged = _unambiguous(
        (twin, position) for name, position in plain.items() if (twin := _twin(name)) and twin not in plain
    )
    return derived | tagged


def _twin(name: str) -> str:
    """The same name with the tag `latest`, or without it; empty for one that has another tag."""
    if name.endswith(LATEST):
        return name.removesuffix(LATEST)
    return "" if ":" in name else name + LATEST


def _unambiguous(names: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Those names that always stand for the same position."""
    found: dict[str, set[int]] = {}
    for name, position in names:
        found.setdefault(name, set()).add(position)
    return {name: min(positions) for name, positions in found.items() if len(positions) == 1}
