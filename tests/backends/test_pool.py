"""Several backends as one: who gets a batch, what is tried again, who is taken out and in.

The backends are fakes, the clock is the test's, and nothing waits: waiting moves the clock. Batches overlap
by recursion: while one backend computes, its hook may send the next batch through the pool.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrs.backends.breaker import FAILURES
from llmrs.backends.connections import Broken
from llmrs.backends.fingerprint import TEXTS
from llmrs.backends.http import Unanswered
from llmrs.backends.pool import LEAST_BUDGET, BackendPool, open_http
from llmrs.backends.refusals import Failed, FailedOnInput
from llmrs.backends.replica import RAMP_SECONDS, RECHECK_SECONDS
from llmrs.backends.roster import WAIT
from llmrs.backends.trials import FRESH_SECONDS, PROVE_SECONDS
from llmrs.config import Config
from llmrs.embeddings import Limits, ModelInfo, Prepared, Vectors
from llmrs.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    UpstreamError,
    UpstreamRejected,
)

SLOTS = 4


def unreachable(batch):
    raise UpstreamError("the backend cannot be reached: connecting failed")


def broken(batch):
    raise Broken


def failing(status):
    def behave(batch):
        raise Failed(status)

    return behave


def busy(seconds):
    def behave(batch):
        raise QueueFull("the backend is busy", retry_after=seconds)

    return behave


class Peer:
    """A backend of a model whose vectors are a function of the model's name and the text.

    Attributes:
        behave: called with a batch of texts before it is answered; raises instead, where it shall fail.
        trouble: what its health check raises.
        batches: the texts of the batches it got, trials not included; `trials` counts those.
        timeouts: the seconds it had for each.
    """

    def __init__(self, url, clock, model="m"):
        self.address, self.model = url, model
        self.kind, self.speaks = "openai", ("openai",)
        self.shortens, self.always_normalizes = True, False
        self.limits = Limits(32, 16384, SLOTS)
        self.width = 16
        self.behave = lambda batch: None
        self.trouble = None
        self.batches, self.timeouts = [], []
        self.trials = self.checks = self.forgotten = 0
        self._clock = clock

    @property
    def info(self):
        return ModelInfo(self.model, self.width)

    def prepare(self, inputs, **options):
        return [Prepared(text, 3) for text in inputs]

    prepare_for = prepare

    def embed(self, batch, *, timeout):
        texts = tuple(item.payload for item in batch)
        if texts == TEXTS:
            self.trials += 1
        else:
            self.batches.append(texts)
            self.timeouts.append(timeout)
        self.behave(texts)
        return Vectors(np.array([self.vector(text) for text in texts], np.float32))

    def vector(self, text):
        seed = hashlib.sha256(f"{self.model} {text}".encode()).digest()
        return np.random.default_rng(list(seed)).standard_normal(self.width)

    def check(self, *, timeout):
        self.checks += 1
        if self.trouble:
            raise self.trouble

    def forget(self):
        self.forgotten += 1

    def close(self):
        self.closed = True


class World:
    """A pool of peers a, b, c ... and its clock."""

    def __init__(self, models, workers=None):
        self.now = 1000.0
        clock = lambda: self.now  # noqa: E731
        self.peers = [Peer(f"http://{'abcdefgh'[i]}", clock, model) for i, model in enumerate(models)]
        self.pool = BackendPool(Config(workers=workers), self.peers, clock, lambda: 1.0, self.sleep)

    def sleep(self, seconds):
        self.now += seconds

    def tend(self, seconds=0.0):
        """Let time pass, with every backend looked after once a second, and once at its end."""
        until = self.now + seconds
        while True:
            for position in range(len(self.peers)):
                self.pool.tend(position)
            if self.now >= until:
                return
            self.now = min(self.now + 1, until)

    def embed(self, *texts, timeout=30.0):
        return self.pool.embed(self.pool.prepare(list(texts) or ["x"]), timeout=timeout)

    @property
    def states(self):
        return "".join(replica.state[0] for replica in self.pool.replicas)

    @property
    def loads(self):
        return [len(peer.batches) for peer in self.peers]


@pytest.fixture
def two():
    world = World("mm")
    world.tend()
    return world


@pytest.fixture
def three():
    world = World("mmm")
    world.tend()
    return world


# What it is, as a backend.


def test_one_address_is_no_pool_and_several_are():
    assert not open_http(Config(backend_url=("http://a",))).replicas
    pool = open_http(Config(backend_url=("http://a", "http://b"), workers=3, model_name="n"))
    assert [replica.url for replica in pool.replicas] == ["http://a", "http://b"]
    assert {replica.state for replica in pool.replicas} == {"unknown"}
    assert (pool.kind, pool.info.name, pool.waits_on) == ("auto", "n", "network")
    pool.close()
    with pytest.raises(ConfigError, match="backend_url"):
        open_http(Config(backend_url=("http://a", "ftp://b")))


def test_limits_are_the_narrowest_and_slots_the_sum(two):
    two.peers[0].limits = Limits(16, 20000, SLOTS)
    two.peers[1].limits = Limits(64, 8000, SLOTS)
    two.now += WAIT
    assert two.pool.limits == Limits(16, 8000, 2 * SLOTS)


def test_slots_are_those_of_the_backends_in_service(two):
    two.peers[0].trouble = UpstreamError("gone")
    two.tend(FRESH_SECONDS)
    assert (two.states, two.pool.limits.slots) == ("du", SLOTS)
    two.peers[1].trouble = UpstreamError("gone")
    two.tend(FRESH_SECONDS)
    assert (two.states, two.pool.limits.slots) == ("dd", 1), "a batch has to find out that there is none"


def test_workers_are_meant_for_each_address():
    world = World("mmm", workers=2)
    world.tend()
    assert world.pool.limits.slots == 6


def test_each_protocol_has_a_say_in_what_is_asked(two):
    def narrow(inputs, **options):
        raise InvalidRequest("texts only")

    two.peers[1].prepare_for = narrow
    two.peers[1].speaks = ("tei",)
    for ask in (lambda: two.pool.prepare([[1, 2]]), lambda: two.pool.prepare([[1, 2]], truncate="none")):
        with pytest.raises(InvalidRequest, match="texts only"):
            ask()
    two.peers[0].prepare_for, two.peers[1].prepare_for = narrow, two.peers[1].prepare
    two.peers[1].speaks = two.peers[0].speaks
    assert two.pool.prepare([[1, 2]]) == [Prepared([1, 2], 3)], "one for all that can be told the same"


def test_what_one_of_them_cannot_be_told_is_not_asked_of_any(two):
    assert (two.pool.shortens, two.pool.always_normalizes) == (True, False)
    two.peers[1].shortens, two.peers[1].always_normalizes = False, True
    assert (two.pool.shortens, two.pool.always_normalizes) == (False, True)
    asked = {}
    two.peers[0].prepare_for = two.peers[1].prepare_for = lambda inputs, **options: asked.update(options)
    two.pool.prepare_for(["a"], truncate=None, prompt="", dimensions=4)
    assert asked["dimensions"] is None


def test_the_model_is_what_the_reference_serves(two):
    assert two.pool.info == ModelInfo("m", 16)
    assert two.pool.kind == "openai"


def test_close_closes_all(two):
    two.pool.close()
    assert all(peer.closed for peer in two.peers)


# Choosing.


def test_idle_backends_take_turns(three):
    for _ in range(9):
        three.embed()
    assert three.loads == [3, 3, 3]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 25))
def test_batches_at_once_are_spread_evenly_and_never_beyond_a_share(peers, workers, depth):
    world = World("m" * peers, workers=workers)
    world.tend()
    running = Counter()
    most = Counter()

    def nest(peer):
        def behave(batch):
            if batch == TEXTS:
                return
            running[peer.address] += 1
            most[peer.address] = max(most[peer.address], running[peer.address])
            level = int(batch[0]) + 1
            if level < min(depth, peers * workers):
                world.embed(str(level))
            running[peer.address] -= 1

        return behave

    for peer in world.peers:
        peer.behave = nest(peer)
    world.embed("0")
    at_once = min(depth, peers * workers)
    assert sum(most.values()) == at_once
    assert max(most.values()) <= workers
    assert max(most.values()) - min(most[peer.address] for peer in world.peers) <= 1
    assert all(replica.running == 0 for replica in world.pool.replicas)


def test_a_batch_too_many_waits_for_room_until_its_deadline():
    world = World("mm", workers=1)
    world.tend()
    seen = []

    def nest(batch):
        if batch == ("third",):
            raise AssertionError
        if batch == ("first",):
            world.embed("second")
        if batch == ("second",):
            began = world.now
            with pytest.raises(DeadlineExceeded, match="no backend was free"):
                world.embed("third", timeout=2)
            seen.append(world.now - began)

    for peer in world.peers:
        peer.behave = nest
    world.embed("first")
    assert seen == [pytest.approx(2, abs=0.01)]


def test_one_that_fails_at_once_does_not_get_the_most(two):
    """It is always the least loaded; its batches are few and go on to the other one."""
    two.peers[0].behave = failing(503)
    for _ in range(100):
        two.embed()
    assert len(two.peers[0].batches) == FAILURES
    assert len(two.peers[1].batches) == 100
    assert two.states == "du"


def test_the_fuller_one_is_passed_over_even_if_it_is_its_turn(two):
    two.peers[1].behave = busy(1)
    chosen = []

    def nest(batch):
        if batch == ("first",):
            two.embed("second")
        elif batch == ("second",):
            two.now += 1
            two.peers[1].behave = nest
            two.embed("third")
        elif batch == ("third",):
            two.embed("fourth")
        elif batch == ("fourth",):
            chosen.extend(replica.running for replica in two.pool.replicas)

    two.embed()
    two.embed()
    two.peers[0].behave = nest
    two.embed("first")
    assert chosen == [2, 2]


def test_after_a_failure_a_share_is_one_until_a_success(two):
    two.peers[0].behave = unreachable
    assert two.pool.limits.slots == 2 * SLOTS
    two.embed()
    assert two.pool.limits.slots == 1 + SLOTS
    assert [replica.share for replica in two.pool.replicas] == [1, SLOTS]
    two.peers[0].behave = lambda batch: None
    two.embed()
    two.embed()
    assert [replica.share for replica in two.pool.replicas] == [SLOTS, SLOTS]


# Trying again.


@pytest.mark.parametrize("behave", [unreachable, broken, *map(failing, (500, 502, 503, 424)), busy(5)])
def test_a_failed_batch_goes_to_another_backend(two, behave):
    two.peers[0].behave = behave
    vectors = two.embed("text")
    np.testing.assert_array_equal(vectors.matrix[0], np.float32(two.peers[1].vector("text")))
    assert two.loads == [1, 1]
    assert two.pool.retries == (1, 0)


def test_what_the_input_is_to_blame_for_is_final(two):
    def refuse(batch):
        raise UpstreamRejected("refused")

    two.peers[0].behave = refuse
    for _ in range(50):
        with pytest.raises(UpstreamRejected):
            two.embed(timeout=5)
        two.embed()
    assert (two.states, two.pool.retries) == ("uu", (0, 0))


def test_the_last_error_is_the_answer(two):
    for peer in two.peers:
        peer.behave = unreachable
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        two.embed()
    assert not caught.value.poison
    assert two.loads == [1, 1], "nobody is asked twice"


def test_a_try_has_its_part_of_the_time(three):
    def slow(batch):
        if batch != TEXTS:
            three.now += 10
            raise DeadlineExceeded("late")

    for peer in three.peers[:2]:
        peer.behave = slow
    three.embed(timeout=30)
    assert [peer.timeouts for peer in three.peers] == [[10], [10], [10]]


def test_a_single_one_in_service_has_all_the_time(two):
    two.peers[0].trouble = UpstreamError("gone")
    two.tend(FRESH_SECONDS)
    two.embed(timeout=30)
    assert two.peers[1].timeouts == [30]


def test_a_deadline_that_has_passed_is_the_end(two):
    def slow(batch):
        two.now += 40
        raise DeadlineExceeded("late")

    two.peers[0].behave = slow
    with pytest.raises(DeadlineExceeded):
        two.embed(timeout=30)
    assert two.loads == [1, 0]


def test_too_little_time_says_nothing_about_a_backend(two):
    def slow(batch):
        two.now += 0.5
        raise DeadlineExceeded("late")

    for peer in two.peers:
        peer.behave = slow
    for _ in range(4 * FAILURES):
        with pytest.raises(DeadlineExceeded):
            two.embed(timeout=0.5)
    assert two.states == "uu"


def test_a_504_says_no_more(two):
    """Another llmrs gives up when the time it was told is over."""
    for peer in two.peers:
        peer.behave = failing(504)
    for _ in range(4 * FAILURES):
        with pytest.raises(Failed):
            two.embed(timeout=0.5)
    assert two.states == "uu"


def test_hanging_opens_the_breaker(two):
    def hang(batch):
        two.now += 15
        raise DeadlineExceeded("late")

    two.peers[0].behave = hang
    for _ in range(2 * FAILURES):
        two.embed()
    assert two.states == "du"
    assert len(two.peers[0].batches) == FAILURES


def test_retries_have_a_budget(three):
    """A general outage is asked little more than without retries."""
    for peer in three.peers:
        peer.behave = busy(0.0)
    for _ in range(400):
        with pytest.raises(QueueFull):
            three.embed()
    assert sum(three.loads) <= 400 + max(LEAST_BUDGET, 2 * 3 * SLOTS) + 0.2 * 400 + 2 * (three.now - 1000)
    assert three.pool.retries.denied > 100


def test_batches_fill_the_budget(two):
    """Without time passing: a fifth of a retry each."""

    def fail_next():
        def behave(batch):
            for peer in two.peers:
                peer.behave = lambda batch: None
            raise Failed(503)

        for peer in two.peers:
            peer.behave = behave
        two.embed()

    while not two.pool.retries.denied:
        with contextlib.suppress(Failed):
            fail_next()
        for _ in range(3):
            two.embed()
    sent = two.pool.retries.sent
    for _ in range(10):
        two.embed()
    for _ in range(6):
        with contextlib.suppress(Failed):
            fail_next()
    # Less than one was left; since then 3 + 10 + 6 batches have paid 3.8.
    assert two.pool.retries.sent - sent == 4
    assert two.now == 1000


def test_an_error_of_ours_frees_the_place(two):
    def bug(batch):
        raise ZeroDivisionError

    two.peers[0].behave = bug
    with pytest.raises(ZeroDivisionError):
        two.embed()
    assert [replica.running for replica in two.pool.replicas] == [0, 0]
    assert two.states == "uu"


# Busy backends.


def test_a_busy_backend_is_not_asked_before_it_wants_to(two):
    two.peers[0].behave = busy(5)
    two.embed()
    two.peers[0].behave = lambda batch: None
    assert two.pool.limits.slots == SLOTS
    for _ in range(10):
        two.embed()
    assert two.loads == [1, 11]
    two.now += 5
    for _ in range(4):
        two.embed()
    assert two.loads == [3, 13]
    assert two.states == "uu", "busy is healthy"


def test_all_are_busy_for_less_than_may_be_waited(two):
    times = []

    def once_busy(batch):
        times.append(two.now)
        if len(times) <= 2:
            raise QueueFull("busy", retry_after=3)

    for peer in two.peers:
        peer.behave = once_busy
    two.embed(timeout=30)
    assert times == [1000, 1000, pytest.approx(1003, abs=WAIT)]


def test_all_are_busy_for_longer(two):
    for peer in two.peers:
        peer.behave = busy(50)
    with pytest.raises(QueueFull) as caught:
        two.embed(timeout=30)
    assert caught.value.retry_after == 50
    assert two.now == 1000, "not waited for in vain"
    with pytest.raises(QueueFull) as caught:
        two.embed(timeout=30)
    assert caught.value.headers["Retry-After"] == "50"
    assert two.loads == [1, 1]


# Texts that backends fail on.


def allergic(batch):
    """Fails on one text, and embeds others."""
    if "poison" in batch:
        raise FailedOnInput(Failed(500))


def test_a_batch_that_a_living_backend_fails_on_is_split_and_visits_no_other(three):
    three.peers[0].behave = allergic
    with pytest.raises(FailedOnInput) as caught:
        three.embed("a", "poison")
    assert caught.value.poison
    assert (three.loads, three.pool.retries) == ([1, 0, 0], (0, 0))


def test_a_text_visits_one_other_backend(three):
    for peer in three.peers:
        peer.behave = allergic
    with pytest.raises(FailedOnInput):
        three.embed("poison")
    assert (three.loads, three.pool.retries) == ([1, 1, 0], (1, 0))


def test_a_text_that_the_other_backend_takes(two):
    two.peers[0].behave = allergic
    assert len(two.embed("poison").matrix) == 1
    assert two.loads == [1, 1]


@pytest.mark.parametrize("then", [unreachable, broken, failing(500), failing(503), busy(1)])
def test_an_other_backend_that_is_ill_does_not_change_what_is_said_of_a_text(three, then):
    three.peers[0].behave = allergic
    three.peers[1].behave = then
    with pytest.raises(FailedOnInput):
        three.embed("poison")
    assert three.loads == [1, 1, 0]
    assert three.pool.replicas[0].failures == 0


def test_with_an_empty_budget_a_text_gets_no_second_opinion(two):
    while two.pool._budget.take():
        pass
    two.peers[0].behave = two.peers[1].behave = allergic
    with pytest.raises(FailedOnInput):
        two.embed("poison")
    assert (two.loads, two.pool.retries.denied) == ([1, 0], 1)


def test_texts_that_backends_fail_on_take_nobody_out(two):
    for peer in two.peers:
        peer.behave = allergic
    for _ in range(3 * FAILURES):
        with pytest.raises(FailedOnInput):
            two.embed("poison")
        with pytest.raises(FailedOnInput):
            two.embed("a", "poison")
    assert two.states == "uu"
    assert [replica.failures for replica in two.pool.replicas] == [0, 0]


def test_a_process_that_a_text_kills_takes_one_peer_with_it_at_most(three):
    for peer in three.peers:
        peer.behave = broken
    with pytest.raises(Broken) as caught:
        three.embed()
    assert not caught.value.poison, "to split the batch would kill the next ones"
    assert sorted(three.loads) == [0, 1, 1]


@pytest.mark.parametrize("status", [503, 504])
def test_a_backend_that_says_not_now_blames_no_text(three, status):
    for peer in three.peers:
        peer.behave = failing(status)
    with pytest.raises(Failed) as caught:
        three.embed()
    assert (caught.value.poison, three.loads) == (False, [1, 1, 1])


def test_a_batch_that_two_fail_on_counts_half(two):
    for peer in two.peers:
        peer.behave = failing(500)
    sent = 0
    while two.states == "uu":
        with pytest.raises(UpstreamError):
            two.embed("x")
        sent += 1
    assert sent > FAILURES


def test_an_outage_is_not_split(two):
    for peer in two.peers:
        peer.behave = failing(500)
    for _ in range(200):
        with pytest.raises(UpstreamError) as caught:
            two.embed("x", "y")
        assert not caught.value.poison
    assert two.states == "dd"


# Trials.


def test_nothing_goes_to_a_backend_before_its_trial(two):
    world = World("mm")
    world.peers[0].behave = unreachable
    world.tend()
    assert world.states == "du"
    world.peers[0].behave = lambda batch: None
    for _ in range(5):
        world.embed()
    assert world.loads == [0, 5]
    world.tend(2)
    assert world.states == "uu"


def test_without_anybody_who_tends_the_first_batch_holds_a_trial():
    world = World("mm")
    world.peers[0].behave = unreachable
    world.embed()
    assert world.loads == [0, 1]
    assert [peer.trials for peer in world.peers] == [1, 1]


def test_none_left_is_an_error_with_the_reason_and_over_when_one_is_back(two):
    for peer in two.peers:
        peer.behave = unreachable
    two.tend()
    for _ in range(4 * FAILURES):
        with pytest.raises(UpstreamError):
            two.embed()
    two.tend(1)
    before = two.loads
    with pytest.raises(
        UpstreamError, match="none of the 2 backends can be used: the backend cannot be reached"
    ):
        two.embed()
    with pytest.raises(UpstreamError, match="none of the 2"):
        two.pool.check(timeout=5)
    assert two.loads == before
    two.peers[1].behave = lambda batch: None
    two.now += 10
    two.embed()
    assert two.states == "du"


def test_check_looks_at_all(two):
    world = World("mm")
    world.peers[0].behave = unreachable
    world.pool.check(timeout=5)
    assert world.states == "du"


def test_a_recovery_is_a_trial_and_a_slow_start(two):
    two.peers[0].behave = unreachable
    for _ in range(2 * FAILURES):
        two.embed()
    assert two.states == "du"
    two.peers[0].behave = lambda batch: None
    asked, trials = len(two.peers[0].batches), two.peers[0].trials
    for _ in range(10):
        two.embed()
    assert len(two.peers[0].batches) == asked, "not before its trial"
    two.tend(2)
    assert (two.states, two.peers[0].trials) == ("uu", trials + 1)
    assert two.pool.replicas[0].reason is None
    assert two.peers[0].forgotten == 2, "it may have been replaced by something that speaks otherwise"
    began = two.now
    shares = []
    while two.now <= began + RAMP_SECONDS:
        shares.append(two.pool.replicas[0].share)
        two.now += 0.5
    assert shares[0] == 1
    assert shares[-1] == SLOTS
    assert shares == sorted(shares)
    assert set(shares) == {1, 2, 3, 4}


def test_the_first_trial_is_no_recovery(two):
    assert [replica.share for replica in two.pool.replicas] == [SLOTS, SLOTS]


def test_one_that_embeds_and_says_that_it_is_not_well_stays_out(two):
    two.peers[0].trouble = UpstreamError("the backend says that it is not healthy (HTTP 503)")
    two.tend(30)
    assert two.states == "du"
    assert "not healthy" in two.pool.replicas[0].reason


def test_a_health_check_without_an_answer_counts_and_narrows(two):
    two.peers[0].trouble = Unanswered("silent")
    two.tend(FRESH_SECONDS)
    assert (two.states, two.pool.replicas[0].share) == ("uu", 1), "it may only be busy"
    two.tend(FAILURES)
    assert two.states == "du"


def test_answered_batches_make_checks_superfluous(two):
    for _ in range(20):
        two.embed()
        two.embed()
        two.tend(1)
    assert [peer.checks for peer in two.peers] == [1, 1]


def test_a_flapping_backend_costs_its_clients_nothing(two):
    for turn in range(60):
        two.peers[0].behave = unreachable if turn % 2 else lambda batch: None
        for _ in range(5):
            two.embed()
        two.tend(1)
    assert two.pool.retries.denied == 0


# The same model.


def test_another_model_is_refused(two):
    world = World("mn")
    world.tend()
    assert world.states == "ur"
    reason = world.pool.replicas[1].reason
    assert reason.startswith("its vectors are another model's than those of http://a (cosine ")
    for _ in range(10):
        world.embed()
    assert world.loads == [10, 0]


def test_another_width_is_refused(two):
    world = World("mm")
    world.peers[1].width = 8
    world.tend()
    assert "8 dimensions instead of 16" in world.pool.replicas[1].reason


def test_the_majority_of_three_is_right():
    world = World("nmm")
    world.tend()
    assert world.states == "ruu"
    assert "those of http://b, http://c" in world.pool.replicas[0].reason
    assert world.pool.info.name == "m"


def test_a_late_majority_brings_back_whom_a_minority_had_refused():
    world = World("nmm")
    world.peers[2].behave = unreachable
    world.tend()
    assert world.states == "urd"
    world.peers[2].behave = lambda batch: None
    world.tend(1)
    assert world.states == "ruu"


def test_of_two_the_first_address_is_right_whoever_came_first():
    world = World("mn")
    world.pool.tend(1)
    world.pool.tend(0)
    assert world.states == "ur"


def test_once_a_client_has_vectors_the_reference_stands():
    world = World("nmm")
    for peer in world.peers[1:]:
        peer.behave = unreachable
    world.tend()
    world.embed()
    for peer in world.peers[1:]:
        peer.behave = lambda batch: None
    world.tend(10)
    assert world.states == "urr"
    world.peers[0].behave = unreachable
    for _ in range(2 * FAILURES):
        with pytest.raises(UpstreamError):
            world.embed()
    world.tend(RECHECK_SECONDS)
    assert world.states == "drr"
    assert "those given out since the start" in world.pool.replicas[1].reason
    with pytest.raises(UpstreamError, match="none of the 3 backends"):
        world.embed()
    assert world.loads[1:] == [0, 0]


def test_an_error_for_clients_names_no_address():
    world = World("mn")
    world.tend()
    world.embed()
    world.peers[0].trouble = UpstreamError("gone")
    world.tend(FRESH_SECONDS + 1)
    assert world.states == "dr"
    with pytest.raises(UpstreamError) as caught:
        world.embed()
    assert "http" not in caught.value.message


def test_a_model_that_was_put_right_is_taken_in():
    world = World("mn")
    world.tend()
    world.embed()
    trials = world.peers[1].trials
    world.peers[1].model = "m"
    world.tend(RECHECK_SECONDS - 1)
    assert (world.states, world.peers[1].trials) == ("ur", trials)
    world.tend(1)
    assert world.states == "uu"
    assert world.peers[1].trials == trials + 1
    assert world.pool.replicas[1].reason is None


def test_a_model_that_changes_without_being_missed_is_noticed(two):
    two.peers[1].model = "n"
    two.tend(PROVE_SECONDS + 1)
    assert two.states == "ur"


def test_a_backend_that_failed_is_looked_at_soon(two):
    """It may have been restarted, with another model."""
    two.peers[0].behave = broken
    two.embed()
    two.peers[0].behave, two.peers[0].model = lambda batch: None, "n"
    two.embed()
    two.tend(1)
    assert two.states == "ru"
    two.embed("text")
    assert two.peers[0].batches[-1] != ("text",)


def test_vectors_without_a_direction_are_no_model():
    world = World("mm")
    world.peers[1].vector = lambda text: np.zeros(16)
    world.tend()
    assert world.states == "ud"


def test_a_trial_that_is_broken_off_is_a_failed_one(two):
    world = World("mm")

    def interrupted(batch):
        raise KeyboardInterrupt

    world.peers[0].behave = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.pool.tend(0)
    assert world.states == "du"
    world.peers[0].behave = lambda batch: None
    world.tend(1)
    assert world.states == "uu"


def test_a_busy_backend_in_service_fails_no_look(two):
    two.peers[0].behave = busy(1)
    two.tend(PROVE_SECONDS + 10)
    assert two.states == "uu"
    late = World("mm")
    late.peers[0].behave = busy(1)
    late.tend()
    assert late.states == "du", "but nothing is known of a new one"


def test_a_look_that_takes_too_long_counts(two):
    def late(batch):
        raise DeadlineExceeded("late")

    two.peers[0].behave = late
    two.tend(PROVE_SECONDS + 2)
    assert two.pool.replicas[0].share == 1
    two.tend(FAILURES)
    assert two.states == "du"
