"""When a backend is asked whether it embeds, and when that is known."""

from __future__ import annotations

import threading

import pytest

from llmrs.backends.pulse import CREDIT, PROVED_SECONDS, SILENT_SECONDS, Pulse


class Clock:
    """A pulse whose clock is moved by hand, of a backend that embeds or does not."""

    def __init__(self):
        self.now = 100.0
        self.embeds = True
        self.asked = 0
        self.pulse = Pulse(lambda: self.now)

    def ask(self):
        self.asked += 1
        return self.embeds

    def lives(self, seconds=0.5, **options):
        """Whether it lives, after a call that took so long and failed."""
        began = self.now
        self.now += seconds
        return self.pulse.lives(began, self.ask, **options)

    def embed(self):
        self.now += 0.1
        self.pulse.beat()


@pytest.fixture
def clock():
    return Clock()


def test_the_first_failure_asks(clock):
    clock.embed()
    assert clock.lives()
    assert clock.asked == 1


def test_a_proof_excuses_a_few_failures_in_a_row(clock):
    assert all(clock.lives() for _ in range(CREDIT + 1))
    assert clock.asked == 1
    clock.embeds = False
    assert not clock.lives()
    assert clock.asked == 2


def test_what_it_embeds_renews_the_credit_but_not_the_proof(clock):
    for _ in range(6):
        assert clock.lives()
        clock.embed()
    assert clock.asked == 1
    clock.now += PROVED_SECONDS
    assert clock.lives()
    assert clock.asked == 2


def test_an_answer_during_the_failed_call_is_a_proof(clock):
    began = clock.now
    clock.embed()
    assert clock.pulse.lives(began, clock.ask)
    assert clock.asked == 0


def test_in_an_outage_it_is_asked_once_a_second(clock):
    clock.embeds = False
    assert not any(clock.lives(0.01) for _ in range(50))
    assert clock.asked == 1
    clock.now += SILENT_SECONDS
    assert not clock.lives()
    assert clock.asked == 2


def test_a_single_answer_ends_an_outage(clock):
    clock.embeds = False
    assert not clock.lives()
    clock.embeds = True
    clock.embed()
    assert clock.lives()
    assert clock.asked == 2


def test_anew_nothing_but_an_answer_counts(clock):
    began = clock.now
    clock.embed()
    assert clock.pulse.lives(began, clock.ask, anew=True)
    assert clock.lives(anew=True)
    assert clock.asked == 2


def test_one_asks_for_all_who_failed_together(clock):
    clock.embeds = False
    began = clock.now
    first, go = threading.Event(), threading.Event()

    def ask():
        first.set()
        go.wait(10)
        return clock.ask()

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(clock.pulse.lives(began, ask)), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert first.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (found, clock.asked) == ([False] * 8, 1)
