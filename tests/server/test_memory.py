"""The memory of all bodies together: what is counted, what is refused, and that all is given back."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from falcon import testing
from gevent.event import Event

from llmrs.errors import PayloadMemoryFull
from llmrs.server.body import STEP
from llmrs.server.memory import FREE_BYTES, PayloadMemory
from tests.server.conftest import Client

PATH = "/v1/embeddings"
MIB = 1 << 20
Make = Callable[..., Client]


def body(size: int, text: str = "x") -> bytes:
    """A request of this many bytes."""
    start = json.dumps({"input": text}).encode()
    return start + b" " * (size - len(start))


def test_a_share_takes_and_gives_back() -> None:
    memory = PayloadMemory(100)
    one, other = memory.share(), memory.share()
    one.take(60)
    other.take(40)
    with pytest.raises(PayloadMemoryFull):
        other.take(1)
    one.release()
    one.release()
    assert memory.taken == 40
    other.take(60)
    other.release()
    assert memory.taken == 0


class Upload(io.RawIOBase):
    """A body that stops coming after so many bytes, until it is let go on (or cut)."""

    def __init__(self, data: bytes, stop: int) -> None:
        self._data = io.BytesIO(data)
        self._stop = stop
        self.go_on = Event()
        self.reached = Event()
        self.cut = False

    def read(self, size: int = -1, /) -> bytes:
        if self._data.tell() + size > self._stop:
            self.reached.set()
            self.go_on.wait()
            if self.cut:
                raise ConnectionError
        return self._data.read(size)


def post(client: Client, stream: Any, length: int | None) -> tuple[int, dict[str, str], bytes]:
    """An answer to a body of our own kind, chunked where it has no length."""
    environ = testing.create_environ(PATH, method="POST", headers={"Content-Type": "application/json"})
    environ["wsgi.input"] = stream
    environ["wsgi.input_terminated"] = True
    environ.pop("CONTENT_LENGTH", None)
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    told = testing.StartResponseMock()
    answer = b"".join(client.app(environ, told))
    return int(told.status[:3]), dict(told.headers_dict), answer


@pytest.fixture
def client(make_client: Make) -> Iterator[Client]:
    client = make_client(payload_limit=MIB, payload_memory=2 * MIB)
    yield client
    assert client.app.payload_memory.taken == 0, "whatever has happened, all is given back"


def uploads(client: Client, count: int, *, chunked: bool = False) -> tuple[list[Upload], list[Any]]:
    """So many bodies of a MiB on their way, all but a little of each here."""
    streams = [Upload(body(MIB), MIB - 2 * STEP) for _ in range(count)]
    greenlets = [gevent.spawn(post, client, stream, None if chunked else MIB) for stream in streams]
    for stream in streams:
        assert stream.reached.wait(10)
    return streams, greenlets


def statuses(greenlets: list[Any]) -> list[int]:
    gevent.joinall(greenlets, timeout=20)
    return [greenlet.value[0] for greenlet in greenlets]


@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_are_counted_as_they_come(client: Client, chunked: bool) -> None:
    memory = client.app.payload_memory
    streams, greenlets = uploads(client, 2, chunked=chunked)
    assert memory.taken == 2 * (MIB - FREE_BYTES - STEP)
    page = client._client.simulate_get("/metrics").text
    assert float(page.partition("\nllmrs_payload_bytes ")[2].split()[0]) == memory.taken
    for stream in streams:
        stream.go_on.set()
    assert statuses(greenlets) == [200, 200]
    assert memory.taken == 0


def test_who_has_only_announced_a_body_takes_no_room(client: Client) -> None:
    streams = [Upload(body(MIB), 0) for _ in range(50)]
    waiting = [gevent.spawn(post, client, stream, MIB) for stream in streams]
    for stream in streams:
        assert stream.reached.wait(10)
    assert client.app.payload_memory.taken == 0
    assert post(client, io.BytesIO(body(MIB)), MIB)[0] == 200
    for stream in streams:
        stream.cut = True
        stream.go_on.set()
    assert set(statuses(waiting)) == {400}


@pytest.mark.parametrize("length", [MIB, None])
def test_beyond_it_large_bodies_are_503_and_small_ones_served(client: Client, length: int | None) -> None:
    streams, greenlets = uploads(client, 2)
    status, headers, answer = post(client, io.BytesIO(body(MIB)), length)
    error = json.loads(answer)["error"]
    assert status == 503
    assert (error["type"], error["code"], error["param"]) == ("server_error", "payload_memory_full", None)
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "1000")
    assert "invalid_request_error" not in answer.decode()
    assert post(client, io.BytesIO(body(FREE_BYTES)), FREE_BYTES)[0] == 200
    for stream in streams:
        stream.go_on.set()
    assert statuses(greenlets) == [200, 200]
    assert post(client, io.BytesIO(body(MIB)), length)[0] == 200


def test_a_request_holds_its_part_until_it_is_answered(client: Client) -> None:
    slow = gevent.spawn(post, client, io.BytesIO(body(MIB, "slow")), MIB)
    gevent.sleep(0.1)
    assert client.app.payload_memory.taken >= MIB - FREE_BYTES - STEP
    assert statuses([slow]) == [200]


def test_who_is_refused_half_way_makes_room_at_once(client: Client) -> None:
    memory = client.app.payload_memory
    streams, greenlets = uploads(client, 2)
    third = Upload(body(MIB), 5 * STEP)
    refused = gevent.spawn(post, client, third, MIB)
    assert third.reached.wait(10), "it is refused, and what it still sends is dropped"
    assert memory.taken == 2 * (MIB - FREE_BYTES - STEP)
    for stream in (*streams, third):
        stream.go_on.set()
    assert statuses([*greenlets, refused]) == [200, 200, 503]


def test_a_body_over_the_limit_holds_nothing_while_its_rest_is_dropped(client: Client) -> None:
    stream = Upload(body(MIB) + b" " * 9 * STEP, MIB + 4 * STEP)
    refused = gevent.spawn(post, client, stream, None)
    assert stream.reached.wait(10)
    assert client.app.payload_memory.taken == 0
    stream.go_on.set()
    assert statuses([refused]) == [413]


def test_a_refused_client_that_leaves_is_no_error_of_ours(client: Client) -> None:
    streams, greenlets = uploads(client, 2)
    third = Upload(body(MIB), 5 * STEP)
    refused = gevent.spawn(post, client, third, MIB)
    assert third.reached.wait(10)
    third.cut = True
    for stream in (third, *streams):
        stream.go_on.set()
    assert statuses([*greenlets, refused]) == [200, 200, 503]


@pytest.mark.parametrize("end", ["cut", "killed"])
def test_a_body_that_never_ends_gives_back_what_came(client: Client, end: str) -> None:
    streams, greenlets = uploads(client, 2)
    if end == "killed":
        gevent.killall(greenlets)
    for stream in streams:
        stream.cut = True
        stream.go_on.set()
    gevent.joinall(greenlets, timeout=10)
    assert client.app.payload_memory.taken == 0


def test_whatever_becomes_of_a_large_request_its_part_is_given_back(client: Client) -> None:
    for text in ("poison", "broken", "nan", "unreachable", "w " * 99, "x"):
        post(client, io.BytesIO(body(MIB, text)), MIB)
        assert client.app.payload_memory.taken == 0
    assert post(client, io.BytesIO(b"{" * MIB), MIB)[0] == 400
    assert client.app.payload_memory.taken == 0


def test_a_storm_never_takes_more_than_there_is(client: Client) -> None:
    chance = random.Random(5)
    memory = client.app.payload_memory
    highest = 0

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal highest
            gevent.sleep(0)
            highest = max(highest, memory.taken)
            if chance.random() < 0.002:
                raise ConnectionError
            return super().read(size)

    def storm() -> list[int]:
        found = []
        for _ in range(12):
            size = chance.choice([100, FREE_BYTES, FREE_BYTES + 1, MIB // 2, MIB, MIB + 1])
            found.append(post(client, Slow(body(size)), chance.choice([size, None]))[0])
        return found

    greenlets = [gevent.spawn(storm) for _ in range(16)]
    gevent.joinall(greenlets, timeout=60)
    found = {status for greenlet in greenlets for status in greenlet.value}
    assert {200, 413, 503} <= found <= {200, 400, 413, 429, 503}
    assert MIB < highest <= 2 * MIB
