"""The same bodies by NumPy and the standard library: slow, plain, and written without the kernels."""

from __future__ import annotations

import base64
import json

import numpy as np


def normalized(matrix, dimensions):
    """Unit vectors of the cut rows, as float64; zero vectors stay zero."""
    rows = matrix[:, :dimensions].astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def packed(vectors, dtype):
    """Float32 vectors in one of the other dtypes of answers."""
    if dtype == "float16":
        return vectors.astype("<f2")
    if dtype in ("int8", "uint8"):
        with np.errstate(over="ignore"):
            numbers = np.clip(np.rint(vectors * np.float32(127)), -127, 127)
        return numbers.astype(np.int8) if dtype == "int8" else (numbers + 128).astype(np.uint8)
    bits = np.packbits(vectors > 0, axis=1)
    return bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)


def from_base64(text):
    """The float32 numbers in a base64 text; fails on anything but the padded standard alphabet."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")


def vectors_of(body):
    """The matrix in an OpenAI body, whatever the encoding."""
    rows = [item["embedding"] for item in json.loads(body)["data"]]
    return np.stack([from_base64(row) if type(row) is str else np.array(row, np.float32) for row in rows])


def numbers_in(text):
    """The texts of the numbers in `[[a,b,...]]`."""
    return text.decode().removeprefix("[[").removesuffix("]]").split(",")


def decimal(text):
    """A number's digits without zeros at their end, and the exponent of the last one."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    short = digits.rstrip("0")
    return short, int(exponent or 0) - len(fraction) + len(digits) - len(short) if short else 0


def matrix_of(seed, count, width, scale=1.0):
    """Random numbers of both signs."""
    return (np.random.default_rng(seed).standard_normal((count, width)) * scale).astype(np.float32)
