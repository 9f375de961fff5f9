"""The circuit breaker and the retry budget: every rule on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrs.backends.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, STABLE_SECONDS, WINDOW, Breaker
from llmrs.backends.budget import PER_SECOND, SHARE, RetryBudget


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    """A closed breaker; its jitter is the longest."""
    breaker = Breaker(clock, lambda: 1.0)
    assert breaker.begin_trial()
    breaker.close()
    return breaker


def fail(breaker, times):
    return [breaker.failure() for _ in range(times)]


def test_a_new_one_is_open_and_its_trial_due(clock):
    breaker = Breaker(clock, lambda: 0.5)
    assert breaker.state == "open"
    assert breaker.begin_trial()
    assert breaker.state == "half-open"
    assert not breaker.begin_trial(), "one trial at a time"


def test_failures_in_a_row_open_it(breaker):
    assert fail(breaker, FAILURES) == [False] * (FAILURES - 1) + [True]
    assert breaker.state == "open"


def test_a_success_ends_the_row(breaker):
    for _ in range(2):
        fail(breaker, FAILURES - 1)
        breaker.success()
    assert breaker.state == "closed"


def test_half_of_the_last_outcomes_open_it(breaker):
    for _ in range(WINDOW):  # of these, nothing is remembered
        breaker.success()
    for i in range(WINDOW // 2):
        assert breaker.state == "closed", i
        breaker.success()
        breaker.failure()
    assert breaker.state == "open"


def test_fewer_than_half_do_not(breaker):
    for _ in range(5 * WINDOW):
        breaker.failure()
        breaker.success()
        breaker.success()
    assert breaker.state == "closed"


def test_a_failure_that_the_batch_may_be_to_blame_for_counts_half(breaker):
    for _ in range(FAILURES - 1):
        breaker.failure()
        breaker.halve_failure()
    assert breaker.failures == (FAILURES - 1) / 2
    assert breaker.state == "closed"
    breaker.success()
    breaker.halve_failure()
    assert breaker.failures == 0


def test_what_began_before_it_opened_changes_nothing(breaker):
    fail(breaker, FAILURES)
    breaker.success()
    assert (breaker.state, breaker.failure()) == ("open", False)


def test_the_pause_grows_to_a_cap(breaker, clock):
    fail(breaker, FAILURES)
    pauses = []
    for _ in range(6):
        began = clock.now
        while not breaker.begin_trial():
            clock.now += 0.25
        pauses.append(clock.now - began)
        breaker.open()
    assert pauses == [FIRST_PAUSE, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE]


@given(st.floats(0, 1, exclude_max=True))
def test_half_of_the_pause_is_random(random):
    clock = Clock()
    breaker = Breaker(clock, lambda: random)
    breaker.begin_trial()
    breaker.open(8.0)
    clock.now += 3.999
    assert not breaker.begin_trial()
    clock.now += 4.002
    assert breaker.begin_trial()


@pytest.mark.parametrize(("closed_for", "pause"), [(STABLE_SECONDS - 1, 2.0), (STABLE_SECONDS, 1.0)])
def test_one_that_flaps_waits_longer(breaker, clock, closed_for, pause):
    fail(breaker, FAILURES)
    clock.now += FIRST_PAUSE
    assert breaker.begin_trial()
    breaker.close()
    clock.now += closed_for
    fail(breaker, FAILURES)
    clock.now += pause - 0.1
    assert not breaker.begin_trial()
    clock.now += 0.1
    assert breaker.begin_trial()


@settings(deadline=None)
@given(st.lists(st.sampled_from("sfhotcw"), max_size=200))
def test_it_is_open_exactly_when_it_should_be(events):
    """Whatever happens: a closed one has no row of failures, and only a trial closes one."""
    clock = Clock()
    breaker = Breaker(clock, lambda: 0.3)
    for event in events:
        before = breaker.state
        if event == "s":
            breaker.success()
        elif event == "f":
            breaker.failure()
        elif event == "h":
            breaker.halve_failure()
        elif event == "o":
            breaker.open()
        elif event == "t":
            assert breaker.begin_trial() == (breaker.state == "half-open" != before)
        elif event == "c" and before == "half-open":
            breaker.close()
        elif event == "w":
            clock.now += 3
        if breaker.state == "closed":
            assert before == "closed" or (event, before) == ("c", "half-open")
            assert 0 <= breaker.failures < FAILURES


# The budget.


def test_a_full_budget_lets_a_flight_be_retried_and_then_no_more(clock):
    budget = RetryBudget(20, clock)
    assert [budget.take() for _ in range(21)] == [True] * 20 + [False]


def test_it_fills_with_time_up_to_its_capacity(clock):
    budget = RetryBudget(4, clock)
    while budget.take():
        pass
    clock.now += 1 / PER_SECOND
    assert (budget.take(), budget.take()) == (True, False)
    clock.now += 1e6
    assert [budget.take() for _ in range(5)] == [True] * 4 + [False]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["batch", "retry", "second"]), max_size=400))
def test_retries_are_never_more_than_their_share(events):
    clock = Clock()
    budget = RetryBudget(10, clock)
    batches = seconds = retries = 0
    for event in events:
        if event == "batch":
            batches += 1
            budget.pay_in()
        elif event == "second":
            seconds += 1
            clock.now += 1
        else:
            retries += budget.take()
        assert retries <= 10 + SHARE * batches + PER_SECOND * seconds + 1e-6
