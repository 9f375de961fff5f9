"""The door before a queue: who waits there, for how long, and how those are refused that may not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from llmrs.batch import Batch
from llmrs.collector import PROBE_AFTER, ClientGone, Collector
from llmrs.embeddings import Limits, Prepared
from llmrs.errors import DeadlineExceeded, NotReady, QueueFull, ServiceError
from llmrs.fairqueue import Group
from llmrs.server import door as doors
from llmrs.server.connections import backlog, count_connections
from llmrs.server.door import Door
from llmrs.server.porch import Porch
from tests.processes import wait_until

FAR = time.monotonic() + 1e6
Entered = Any  # a greenlet whose value is a group


class House:
    """A door before a queue of some places; batches never end."""

    def __init__(self, capacity: int, seconds: float = 60.0, **options: Any) -> None:
        self.started: list[Batch] = []
        self.collector = Collector(
            self.started.append, lambda: None, lambda: Limits(32, 1000, 1), capacity, seconds
        )
        self.door = Door(self.collector, seconds, **options)

    def enter(
        self, deadline: float = FAR, abandoned: Callable[[], bool] | None = None, n_tokens: int = 1
    ) -> Entered:
        return gevent.spawn(self.submit, deadline, abandoned, n_tokens)

    def submit(
        self, deadline: float = FAR, abandoned: Callable[[], bool] | None = None, n_tokens: int = 1
    ) -> Group:
        group = self.door.enter(Event(), deadline, abandoned, n_tokens=n_tokens)
        self.collector.submit(group, [Prepared("text", n_tokens)])
        return group

    def full(self, waiting: int = 0) -> list[Entered]:
        """So many requests at its door, and a full queue."""
        entered = [self.enter() for _ in range(waiting + 1)]
        gevent.sleep(0)
        gevent.sleep(0)
        assert self.collector.at_door == waiting
        return entered


def error_of(asked: Entered) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        asked.get(timeout=30)
    return error.value


def test_who_waits_at_the_door_is_let_in_in_turn() -> None:
    house = House(1)
    first, *others = house.full(3)
    inside = first.get()
    for asked in others:
        house.collector.cancel(inside)
        inside = asked.get(timeout=30)
        assert inside.waiting
        assert not inside.done
    assert house.collector.at_door == 0


def test_nobody_waits_at_the_door_beyond_queue_seconds_or_a_deadline() -> None:
    house = House(1, seconds=0.05)
    house.full()
    assert isinstance(error_of(house.enter()), QueueFull)
    patient = House(1)
    patient.full()
    assert isinstance(error_of(patient.enter(time.monotonic() + 0.05)), DeadlineExceeded)
    assert house.collector.at_door == patient.collector.at_door == 0


def test_who_gives_up_leaves_the_door() -> None:
    house = House(1)
    _, asked = house.full(1)
    asked.kill()
    assert house.collector.at_door == 0


def test_places_of_clients_that_left_are_given_back_without_anybody_asking() -> None:
    house = House(100)
    left: set[int] = set()
    old = [house.enter(abandoned=lambda i=i: i in left) for i in range(170)]
    gevent.joinall(old[:100], timeout=30)
    assert house.collector.at_door == 70
    left |= set(range(70))
    gevent.joinall(old, timeout=30)
    assert house.collector.at_door == 0
    assert [isinstance(asked.get().error, ClientGone) for asked in old] == [True] * 70 + [False] * 100


def test_nobody_is_refused_for_clients_that_have_left() -> None:
    """What they would have taken is found out before, and not a quarter of a second later."""
    house = House(100, seconds=5.0)
    house.collector._admission.speed.measure(1, 32, 1.0)
    left = False
    for _ in range(5):
        house.submit(FAR, lambda: left)
    house.collector._admission.speed.measure(1, 32, 1000.0)
    left = True
    gevent.sleep(PROBE_AFTER)
    assert house.door.enter(Event(), FAR).waiting


def test_refusals_beyond_some_a_second_are_late() -> None:
    door = House(1, clock=lambda: 1000.0).door
    delays = [door._lateness(1000.0, 1e9) for _ in range(1000)]
    at_once = doors.REFUSALS_PER_SECOND
    assert delays[:at_once] == pytest.approx([0.0] * at_once, abs=1e-6)
    assert delays[at_once : at_once + 3] == pytest.approx([0.01, 0.02, 0.03], abs=1e-6)
    assert max(delays) == delays[-1] == doors.LATEST_REFUSAL
    assert door._lateness(1000.0 + doors.LATEST_REFUSAL + 1.0, 1e9) == 0.0, "and it is over with the flood"


def test_who_would_be_refused_late_gets_in_if_there_is_room_by_then() -> None:
    porch = Porch()
    crowded = True
    house = House(1, crowding=lambda: float(crowded), porch=porch)
    house.full()
    house.door._next_refusal = time.monotonic() + 1e6
    asked = house.enter()
    gevent.sleep(0.01)
    crowded = False
    porch.needed = lambda: 1
    wait_until(lambda: gevent.sleep(0.01) or house.collector.at_door == 1)
    asked.kill()


def test_a_refusal_comes_within_the_patience_of_its_client() -> None:
    house = House(1, crowding=lambda: 1.0)
    house.full()
    house.door._next_refusal = time.monotonic() + 1e6
    asked = house.enter(deadline=time.monotonic() + 0.1)
    assert isinstance(error_of(asked), QueueFull)


def test_a_refusal_does_not_wait_where_its_connection_is_needed() -> None:
    porch = Porch()
    house = House(1, crowding=lambda: 1.0, porch=porch)
    house.full()
    house.door._next_refusal = time.monotonic() + 1e6
    first, second = house.enter(), house.enter()
    gevent.sleep(0.01)
    wanted = [1]
    porch.needed = lambda: wanted.pop() if wanted else 0
    refusal = error_of(first)
    assert isinstance(refusal, QueueFull)
    assert refusal.closes, "or others could not have its connection"
    assert not second.ready()
    second.kill()


def test_a_stop_answers_those_at_the_door_after_a_while() -> None:
    house = House(1, draining=lambda: True, drain_seconds=0.01)
    _, asked = house.full(1)
    assert isinstance(error_of(asked), NotReady)


def test_connections_that_wait_to_be_accepted_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listener:
        assert backlog([listener]) == 0
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        wait_until(lambda: backlog([listener]) == 3)
        for client in clients:
            client.close()
    with socket.socket(socket.AF_UNIX) as unix:
        assert backlog([unix]) == 1


def test_connections_of_the_stock_worker_are_counted() -> None:
    class Worker:
        def handle(self, *args: object) -> None:
            seen.append(count())
            raise KeyError(args[0])

    seen: list[int] = []
    worker = Worker()
    count = count_connections(worker)
    with pytest.raises(KeyError):
        worker.handle(1, 2, 3)
    assert (seen, count()) == ([1], 0)


def test_a_turn_keeps_its_place_until_it_is_taken_or_held_for_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(1)
    turn = house.door.turn(FAR, None, 100)
    asked = house.enter()
    gevent.sleep(0.01)
    assert (house.collector.waiting_tokens, house.collector.at_door) == (101, 1)
    taken = turn.take()
    assert taken is not None
    assert taken[0].waiting
    turn.release()
    turn.release()
    assert asked.get(timeout=30).waiting
    monkeypatch.setattr(doors, "HOLD_SECONDS", 0.01)
    other = House(1)
    slow = other.door.turn(FAR, None, 100)
    asked = other.enter()
    assert asked.get(timeout=30).waiting, "others do not wait for a slow upload"
    assert slow.take() is None
    slow.release()
