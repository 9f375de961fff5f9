"""Vectors that are a function of the text, so that a test can tell whose vector it got."""

from __future__ import annotations

import base64
import hashlib
import json
import struct

WIDTH = 8


def vector(value: object) -> list[float]:
    """WIDTH numbers in -1..1, exact in float32, different for different inputs."""
    digest = hashlib.sha256(json.dumps(value).encode()).digest()
    return [(int.from_bytes(digest[2 * i : 2 * i + 2], "big") - 32768) / 32768 for i in range(WIDTH)]


def as_base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def count_tokens(value: object) -> int:
    """Words plus two special tokens, or as many ids as there are."""
    return len(value) if isinstance(value, list) else len(str(value).split()) + 2


def cut(value: object, longest: int, *, side: str = "end") -> object:
    """What a model with `longest` tokens reads of an input: that end of it is lost."""
    special = 0 if isinstance(value, list) else 2
    tokens = value if isinstance(value, list) else str(value).split()
    room = longest - special
    if len(tokens) <= room:
        return value
    kept = tokens[:room] if side == "end" else tokens[len(tokens) - room :]
    return kept if isinstance(value, list) else " ".join(kept)


def scaled(numbers: list[float]) -> list[float]:
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]
