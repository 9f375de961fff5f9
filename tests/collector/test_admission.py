"""Who may wait, and until when the others are sent away."""

from __future__ import annotations

import pytest

from llmrs.admission import JITTER, LONGEST_TURN, Admission
from llmrs.embeddings import Limits
from llmrs.errors import QueueFull, WaitTooLong
from llmrs.fairqueue import Group

FOR_EVER = 1e9
LIMITS = Limits(batch_size=1, batch_tokens=1000, slots=1)


class Door:
    """An admission whose engine does 100 tokens a second, and whose dice always show `chance`.

    Nobody may wait at its door unless `is_open`.
    """

    def __init__(
        self, capacity: int = 100, seconds: float = FOR_EVER, chance: float = 0.0, *, is_open: bool = False
    ) -> None:
        self.admission = Admission(capacity, seconds, chance=lambda: chance)
        self.admission.speed.measure(100, 1, 1.0)
        self.admission.crowded = lambda: not is_open
        self.now = 1000.0
        self.let_in: list[Group] = []

    def enter(self, n_tokens: int, *, bulk: bool = False, deadline: float = FOR_EVER) -> Group:
        group = Group(lambda: self.let_in.append(group), deadline, None, bulk)
        self.admission.enter(group, n_tokens, self.now, LIMITS)
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
    admission = Admission(2, 0.001, chance=lambda: 0.0)
    admission.crowded = lambda: True
    for _ in range(2):
        admission.enter(Group(lambda: None, FOR_EVER, None), 10**9, 0.0, LIMITS)
    with pytest.raises(QueueFull) as refusal:
        admission.enter(Group(lambda: None, FOR_EVER, None), 1, 0.0, LIMITS)
    assert refusal.value.headers == {"Retry-After": "1", "retry-after-ms": "1000"}


def test_single_texts_before_a_flood_do_not_make_the_engine_look_slow() -> None:
    door = Door()
    for _ in range(50):
        door.admission.speed.measure(10, 1, 0.5)  # a text alone: 20 tokens a second
    door.admission.speed.measure(3000, 32, 30.0)  # the first full batch
    assert door.admission.speed.seconds_per_token == pytest.approx(0.01, rel=0.15)


def test_texts_without_tokens_do_not_stop_the_clock() -> None:
    """A static model's may have none. Their batches take time, and say nothing of how long a token takes."""
    door = Door()
    for _ in range(1000):
        door.admission.speed.measure(0, 1, 1e-5)
    assert door.admission.speed.seconds_per_token == pytest.approx(1e-5, rel=0.01)
    door.enter(400, deadline=door.now + 1)
    door.enter(400, deadline=door.now + 1)


def test_beyond_the_places_requests_wait_at_the_door_first_come_first() -> None:
    door = Door(capacity=2, is_open=True)
    inside = [door.enter(10) for _ in range(2)]
    outside = [door.enter(10) for _ in range(5)]
    assert (door.admission.requests, door.admission.at_door, door.admission.tokens) == (2, 5, 70)
    assert all(group.at_door and not group.waiting for group in outside)
    for number, group in enumerate([*inside, *outside]):
        door.admission.leave(group)
        assert door.let_in == outside[: number + 1]
    assert (door.admission.requests, door.admission.at_door, door.admission.tokens) == (0, 0, 0)


def test_interactive_requests_are_let_in_before_bulk_ones() -> None:
    door = Door(capacity=4, is_open=True)
    bulk_inside = [door.enter(10, bulk=True) for _ in range(3)]
    inside = door.enter(10)
    bulk = door.enter(10, bulk=True)
    query = door.enter(10)
    door.admission.leave(bulk_inside[0])
    assert door.let_in == [query]
    door.admission.leave(inside)
    assert door.let_in == [query, bulk]


def test_bulk_requests_at_the_door_keep_out_of_the_places_of_others() -> None:
    door = Door(capacity=4, is_open=True)
    for _ in range(3):
        door.enter(10, bulk=True)
    assert door.enter(10, bulk=True).at_door
    query = door.enter(10)
    assert query.waiting
    door.admission.leave(query)
    assert not door.let_in


def test_queries_without_end_do_not_starve_bulk_work_at_the_door() -> None:
    door = Door(capacity=2, is_open=True)
    inside = [door.enter(10) for _ in range(2)]
    bulk = door.enter(10, bulk=True)
    queries = [door.enter(10) for _ in range(3)]
    door.admission.leave(inside[0])
    assert door.let_in == [bulk], "the queue had none of its kind"
    door.admission.leave(inside[1])
    assert door.let_in == [bulk, queries[0]]


def test_what_waits_at_the_door_counts_for_those_behind_it() -> None:
    door = Door(capacity=1, seconds=5, is_open=True)
    for _ in range(3):
        door.enter(200)
    with pytest.raises(WaitTooLong):
        door.enter(10)
    assert door.admission.at_door == 2


def test_nobody_more_waits_at_a_crowded_door() -> None:
    door = Door(capacity=1, is_open=True)
    door.enter(10)
    door.enter(10)
    door.admission.crowded = lambda: True
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        door.enter(10)


def test_who_leaves_the_door_is_passed_over() -> None:
    gone: set[Group] = set()
    door = Door(capacity=1, is_open=True)

    def alive(group: Group) -> bool:
        if group in gone:
            door.admission.leave(group)
        return group not in gone

    door.admission._alive = alive
    inside = door.enter(10)
    outside = [door.enter(10) for _ in range(2000)]
    door.admission.leave(outside[0])
    gone |= set(outside[1:-1])
    assert door.admission.at_door == 1999
    door.admission.leave(inside)
    assert door.let_in == [outside[-1]]
    assert (door.admission.requests, door.admission.at_door, door.admission.tokens) == (1, 0, 10)


def test_a_request_that_waited_too_long_at_the_door_gets_a_turn_behind_what_is_in_front() -> None:
    door = Door(capacity=1, is_open=True)
    door.enter(100)
    late = door.enter(50)
    refusal = door.admission.turn_away(late, door.now, LIMITS)
    assert refusal.retry_after == pytest.approx(1.5)


def test_texts_that_came_alone_do_not_make_a_flood_look_slow() -> None:
    """A call over a network takes 0.2 s whether with one text or 32: 1,000 texts do not take 200 s."""
    limits = Limits(batch_size=32, batch_tokens=16384, slots=4)
    admission = Admission(100, 30, chance=lambda: 0.0)
    for _ in range(50):
        admission.speed.measure(10, 1, 0.2)
    for _ in range(1000):
        admission.enter(Group(lambda: None, FOR_EVER, None), 10, 0.0, limits)
    assert admission.wait(False, limits) == pytest.approx(1000 / 32 / 4 * 0.2)
    for _ in range(20):
        admission.speed.measure(320, 32, 0.4)
    assert admission.wait(False, limits) == pytest.approx(1000 / 32 / 4 * 0.4, rel=0.2), "which is known soon"


def test_long_texts_take_as_long_together_as_alone() -> None:
    limits = Limits(batch_size=32, batch_tokens=16384, slots=1, efficient_tokens=1000)
    admission = Admission(100, 30, chance=lambda: 0.0)
    admission.speed.measure(2000, 4, 2.0)
    admission.enter(Group(lambda: None, FOR_EVER, None), 10_000, 0.0, limits)
    assert admission.wait(False, limits) == pytest.approx(10)
