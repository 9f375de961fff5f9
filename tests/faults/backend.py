"""A backend that goes wrong for some texts and serves all others: what a text asks for is in it.

`"reset 3"` meets the fault of that name. A gateway with `batch_size` 1 asks for each text by itself, so
that a fault has no neighbours in its batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.backends.services import misbehaving, shapes
from tests.backends.services.misbehaving import drips, once_per_connection, says
from tests.backends.services.vectors import as_base64, vector
from tests.backends.services.wire import CLOSE, Behaviour, Connection, Request, head

GOOD = shapes.openai()


def hangs(connection: Connection, request: Request) -> object:
    """Accepts and never answers, until the client gives up."""
    while connection.sock.recv(65536):
        pass
    return CLOSE


def stops(connection: Connection, request: Request) -> object:
    """Sends half an answer, then hangs."""
    connection.send(head(200, 100) + b" " * 50)
    return hangs(connection, request)


def answers(status: int, body: object = None, **headers: str) -> Behaviour:
    def behave(connection: Connection, request: Request) -> object:
        return connection.answer(
            body if body is not None else {"error": "secret of the backend"}, status, **headers
        )

    return behave


def gives(change: Callable[[list[dict[str, Any]]], object]) -> Behaviour:
    """A good answer whose `data` has been changed."""

    def behave(connection: Connection, request: Request) -> object:
        asked = request.json
        data = [{"index": i, "embedding": vector(text)} for i, text in enumerate(asked["input"])]
        change(data)
        if asked.get("encoding_format") == "base64":
            for row in data:
                row["embedding"] = as_base64(row["embedding"])
        return connection.answer({"object": "list", "model": asked["model"], "data": data})

    return behave


def _replace(value: float) -> Callable[[list[dict[str, Any]]], object]:
    return lambda data: data[-1]["embedding"].__setitem__(3, value)


def literal(word: bytes) -> Behaviour:
    """Vectors written as numbers, one of them no number of JSON."""

    def behave(connection: Connection, request: Request) -> object:
        data = [{"index": i, "embedding": vector(text)} for i, text in enumerate(request.json["input"])]
        data[-1]["embedding"][3] = 0.123456789
        return connection.answer(json.dumps({"data": data}).encode().replace(b"0.123456789", word))

    return behave


HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"

SLOW: dict[str, Behaviour] = {
    **misbehaving.DRIPPING,
    "hangs": hangs,
    "stops in its body": stops,
    "drips its body": drips(b" " * 1000, at_once=head(200, 1000)),
    "drips without length": drips(b" " * 1000, at_once=head(200, None)),
}
"""Never done, whatever the deadline."""

BROKEN: dict[str, Behaviour] = {
    **misbehaving.BROKEN,
    "status 500": answers(500),
    "status 503": answers(503),
    "status 404": answers(404),
    "status 401": answers(401),
    "status 302": answers(302, Location="http://127.0.0.1:9/"),
    "HTML 502": answers(502, HTML, Content_Type="text/html"),
    "HTML 200": answers(200, HTML, Content_Type="text/html"),
    "an empty body": says(head(200, 0)),
    "another shape": answers(200, {"vectors": "none"}),
    "null": answers(200, b"null"),
    "a short list": gives(lambda data: data.pop()),
    "a long list": gives(lambda data: data.append({"index": len(data), "embedding": vector("more")})),
    "an index twice": gives(lambda data: data[-1].__setitem__("index", 7)),
    "a narrow vector": gives(lambda data: data[-1]["embedding"].pop()),
    "a wide vector": gives(lambda data: data[-1]["embedding"].append(0.5)),
    "a vector of words": answers(200, {"data": [{"index": 0, "embedding": ["a"] * 8}]}),
}
"""No answer that could be handed on: 502."""

NON_FINITE: dict[str, Behaviour] = {
    "NaN in base64": gives(_replace(float("nan"))),
    "infinity in base64": gives(_replace(float("inf"))),
    "NaN in JSON": literal(b"NaN"),
    "infinity in JSON": literal(b"Infinity"),
    "a number beyond float32": literal(b"1e300"),
}
"""Vectors that are none: never handed on."""

HARMLESS: dict[str, Behaviour] = {
    "closes after it": lambda connection, request: (GOOD(connection, request), CLOSE)[1],
    "closes when asked again": once_per_connection(GOOD, misbehaving.closes),
    "resets when asked again": once_per_connection(GOOD, misbehaving.resets()),
}
"""Faults that a client must not see."""

LATE_SECONDS = 1.5
LATE: dict[str, Behaviour] = {
    "late": lambda connection, request: (time.sleep(LATE_SECONDS), GOOD(connection, request))[1]
}

FAULTS = SLOW | BROKEN | NON_FINITE | HARMLESS | LATE


def behave(connection: Connection, request: Request) -> object:
    """The fault that a text names, else a good answer."""
    if request.method == "POST":
        for text in request.json["input"]:
            fault = FAULTS.get(text.rsplit(" ", 1)[0])
            if fault is not None:
                return fault(connection, request)
    return GOOD(connection, request)
