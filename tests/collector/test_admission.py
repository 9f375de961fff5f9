"""Who may wait, and until when the others are sent away."""

from __future__ import annotations

import pytest

from llmrs.admission import JITTER, LONGEST_TURN, Admission
from llmrs.errors import QueueFull, WaitTooLong
from llmrs.fairqueue import Group

FOR_EVER = 1e9


class Door:
    """An admission whose engine does 100 tokens a second, and whose dice always show `chance`."""

    def __init__(self, capacity: int = 100, seconds: float = FOR_EVER, chance: float = 0.0) -> None:
        self.admission = Admission(capacity, seconds, lambda: chance)
        self.admission.speed.measure(100, 1.0)
        self.now = 1000.0

    def enter(self, n_tokens: int, *, bulk: bool = False, deadline: float = FOR_EVER) -> Group:
        group = Group(lambda: None, deadline, None, bulk)
        self.admission.enter(group, n_tokens, self.now, 1)
        return group

    def refused(self, n_tokens: int, *, bulk: bool = False, deadline: float = FOR_EVER) -> float:
        """Seconds after which a request that must be turned away is told to come back."""
        with pytest.raises(QueueFull) as refusal:
            self.enter(n_tokens, bulk=bulk, deadline=deadline)
        return int(refusal.value.headers["retry-after-ms"]) / 1000


def test_no_more_seconds_of_work_wait_than_may() -> None:
    door = Door(seconds=5)
    door.enter(400)
    door.enter(200)
    with pytest.raises(WaitTooLong):
        door.enter(10)
    assert door.refused(10) == pytest.approx(6.2, abs=0.002), "the second one's turn"
    assert door.admission.requests == 2


def test_what_nobody_could_wait_for_is_not_begun() -> None:
    door = Door()
    door.enter(400)
    door.enter(10, deadline=door.now + 4.1)
    door.refused(10, deadline=door.now + 3.9)


def test_the_largest_request_is_served_when_nobody_waits() -> None:
    door = Door(capacity=1, seconds=5)
    group = door.enter(1_000_000, bulk=True)
    door.admission.leave(group)
    door.enter(1_000_000, bulk=True)


def test_bulk_requests_leave_places_for_others() -> None:
    door = Door(capacity=8)
    for _ in range(6):
        door.enter(10, bulk=True)
    door.refused(10, bulk=True)
    door.enter(10)
    door.enter(10)
    door.refused(10)


def test_a_query_does_not_wait_for_bulk_work_in_front() -> None:
    door = Door(seconds=5)
    door.enter(10_000, bulk=True)
    door.refused(10, bulk=True)
    door.enter(10)


def test_each_who_is_turned_away_gets_a_turn_of_its_own() -> None:
    door = Door(capacity=1)
    door.enter(100)
    assert [door.refused(50) for _ in range(3)] == pytest.approx([1.5, 2.0, 2.5], abs=0.002)
    door.now += 2.0
    assert door.refused(50) == pytest.approx(1.5, abs=0.002), "what waits still takes a second"


def test_when_nobody_waits_the_turns_of_a_flood_are_forgotten() -> None:
    door = Door(capacity=1)
    group = door.enter(100)
    assert [door.refused(500) for _ in range(3)] == pytest.approx([6, 11, 16], abs=0.002)
    door.admission.leave(group)
    door.enter(100)
    assert door.refused(500) == pytest.approx(6, abs=0.002)


def test_turns_are_bounded_and_scattered() -> None:
    door = Door(capacity=1, chance=1.0)
    door.enter(100)
    turns = [door.refused(50) for _ in range(1000)]
    assert turns[0] == pytest.approx(1.5 * (1 + JITTER), abs=0.002)
    assert turns[-1] == pytest.approx(LONGEST_TURN * (1 + JITTER), abs=0.002)
    assert {round(Door(capacity=0, chance=x / 10).refused(1000), 2) for x in range(11)} == {
        round(10 * (1 + JITTER * x / 10), 2) for x in range(11)
    }


def test_before_anything_is_measured_only_places_count() -> None:
    admission = Admission(2, 0.001, lambda: 0.0)
    for _ in range(2):
        admission.enter(Group(lambda: None, FOR_EVER, None), 10**9, 0.0, 1)
    with pytest.raises(QueueFull) as refusal:
        admission.enter(Group(lambda: None, FOR_EVER, None), 1, 0.0, 1)
    assert refusal.value.headers == {"Retry-After": "1", "retry-after-ms": "1000"}


def test_single_texts_before_a_flood_do_not_make_the_engine_look_slow() -> None:
    door = Door()
    for _ in range(50):
        door.admission.speed.measure(10, 0.5)  # a text alone: 20 tokens a second
    door.admission.speed.measure(3000, 30.0)  # the first full batch
    assert door.admission.speed.seconds_per_token == pytest.approx(0.01, rel=0.15)


def test_texts_without_tokens_do_not_stop_the_clock() -> None:
    """A static model's may have none. Their batches take time, and say nothing of how long a token takes."""
    door = Door()
    for _ in range(1000):
        door.admission.speed.measure(0, 1e-5)
    assert door.admission.speed.seconds_per_token == pytest.approx(1e-5, rel=0.01)
    door.enter(400, deadline=door.now + 1)
    door.enter(400, deadline=door.now + 1)
