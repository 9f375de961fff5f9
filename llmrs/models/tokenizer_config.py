"""What the files beside tokenizer.json say about a model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from llmrs.errors import ModelError
from llmrs.models.settings import read_settings

Side: TypeAlias = Literal["start", "end"]

SIDES: dict[str, Side] = {"left": "start", "right": "end"}
"""The end of a text that is cut off, in transformers' words and in ours."""


def read_truncation_side(folder: Path) -> Side:
    """Which end an over-long text loses where nobody says otherwise.

    `truncation_side` of tokenizer_config.json counts, else the direction in tokenizer.json.

    Raises:
        ModelError: it is neither end.
    """
    config = read_settings(folder / "tokenizer_config.json", optional=True)
    tokenizer = read_settings(folder / "tokenizer.json", optional=True)
    direction = tokenizer.object("truncation").text("direction", default="Right").lower()
    side = config.text("truncation_side", default=direction)
    if side not in SIDES:
        raise ModelError(f"{config.path}: truncation_side is {side[:60]!r}, expected left or right")
    return SIDES[side]
