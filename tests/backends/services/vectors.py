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
