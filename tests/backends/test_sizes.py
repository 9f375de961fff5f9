"""What an address takes in a call: learnt once, kept, raised carefully, and not blamed on bad texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.backends.pool import open_http
from llmrs.backends.sizes import FOLLOWED_SECONDS, RAISE_SECONDS, STRIKES, Size, Sizes
from llmrs.config import Config

from .services import shapes
from .services.vectors import vector
from .services.wire import serve
from .test_bad_texts import BATCH, SHAPES, check_answers, desk_before

CEILING = Size(1000, 1 << 20)


class Address:
    """Knows how much it takes, and tells a `Sizes` of calls that are split as a collector does."""

    def __init__(self, items=10**6, n_bytes=10**9, bad=(), certain=True):
        self.now = 0.0
        self.sizes = Sizes(lambda: self.now)
        self.items, self.n_bytes, self.bad, self.certain = items, n_bytes, set(bad), certain
        self.number = 0
        self.refused = []

    def call(self, texts):
        n_bytes = sum(map(len, texts)) + len(texts)
        if len(texts) > self.items or n_bytes > self.n_bytes or self.bad.intersection(texts):
            self.refused.append(len(texts))
            self.sizes.refused(texts, certain=self.certain)
            if len(texts) > 1:
                self.call(texts[: len(texts) // 2])
                self.call(texts[len(texts) // 2 :])
        else:
            self.sizes.passed(texts)

    def send(self, count, length=20):
        """A batch of `count` new texts, in calls within what is known; returns the sizes of the refused."""
        texts = [b"%d" % (self.number + i) for i in range(count)]
        texts = [text.ljust(length, b".") for text in texts]
        self.number += count
        self.refused.clear()
        while texts:
            most = self.most
            count = max(1, min(most.items, most.n_bytes // (length + 1)))
            self.call(texts[:count])
            texts = texts[count:]
        return list(self.refused)

    @property
    def most(self):
        return self.sizes.most(CEILING)


def test_nothing_is_narrowed_before_something_is_refused():
    address = Address()
    assert address.send(300) == []
    assert address.most == CEILING


def test_a_number_of_texts_is_learnt_by_the_first_batch():
    address = Address(items=10)
    assert address.send(25) == [25, 12, 13]
    assert address.most.items == 7
    for _ in range(20):
        assert address.send(25) == []


def test_a_number_of_bytes_is_learnt_where_as_many_texts_have_passed():
    address = Address(n_bytes=4000)
    assert address.send(32, 20) == []
    assert address.send(32, 200) == [32]
    assert address.most == (CEILING.items, 16 * 201)
    for length in (20, 200, 700, 3000):
        assert address.send(64, length) == []


def test_where_both_may_be_it_texts_are_taken_first_and_bytes_found_by_the_next():
    address = Address(n_bytes=4000)
    address.send(32, 200)
    assert address.most == (16, CEILING.n_bytes)
    assert address.send(16, 600) == [16, 8, 8]
    assert address.most.n_bytes == 4 * 601
    assert address.send(64, 600) == []


def test_a_limit_is_raised_halfway_and_meets_the_real_one():
    address = Address(items=10)
    address.send(25)
    found, refused = [], 0
    for _ in range(12):
        address.now += RAISE_SECONDS
        refused += len(address.send(40))
        found.append(address.most.items)
    assert found[:2] == [9, 10]
    assert min(found[1:]) == max(found[1:]) == 10
    assert refused <= 3 * 12, "each time one call, and what is known of its parts"


def test_a_limit_that_was_lifted_is_noticed():
    address = Address(items=10)
    address.send(25)
    address.items = 10**6
    for _ in range(12):
        address.now += RAISE_SECONDS
        assert address.send(1000) == []
    assert address.most.items > 300


def test_a_limit_that_was_lowered_is_noticed():
    address = Address(items=100)
    address.send(100)
    address.items = 5
    address.send(100)
    assert address.most.items <= 5
    assert address.send(100) == []


def test_bad_texts_narrow_nothing():
    address = Address(bad=[b"7".ljust(20, b"."), b"300".ljust(20, b".")])
    assert address.send(32) == [32, 16, 8, 4, 2, 1]
    assert address.most == CEILING


def test_a_limit_is_learnt_among_bad_texts():
    address = Address(items=10, bad=[b"7".ljust(20, b".")])
    address.send(32)
    assert 7 <= address.most.items <= 10


def test_failures_are_put_down_to_size_when_they_repeat():
    address = Address(items=10, certain=False)
    for _ in range(STRIKES):
        assert address.most == CEILING
        address.send(16)
    assert address.most.items == 8


def test_failures_by_chance_narrow_nothing():
    address = Address(certain=False)
    for _ in range(10):
        address.items = 10
        address.send(16)
        address.items = 100
        address.send(16)
    assert address.most == CEILING


def test_texts_that_come_again_much_later_prove_nothing():
    address = Address()
    texts = [b"%d" % i for i in range(8)]
    address.sizes.refused(texts, certain=True)
    address.now += FOLLOWED_SECONDS
    address.sizes.passed(texts[:4])
    address.sizes.passed(texts[4:])
    assert address.most == CEILING


@given(st.integers(1, 40), st.lists(st.integers(1, 64), max_size=20))
def test_a_second_batch_of_a_size_is_never_refused(items, batches):
    address = Address(items=items)
    for count in batches:
        address.send(count)
        assert address.send(count) == []
        assert address.most == CEILING or address.most.items <= items


# With services.


def narrow(protocol, status, *, items=10**6, n_bytes=10**9):
    """A service of a protocol that refuses calls that are too large."""
    good, key = SHAPES[protocol]

    def behave(connection, request):
        if request.method == "POST":
            texts = request.json.get(key, ())
            if len(texts) > items or sum(map(len, texts)) > n_bytes:
                connection.service.refused.append(len(texts))
                return connection.answer({"error": "batch size is not allowed"}, status)
        return good(connection, request)

    return behave


@pytest.mark.parametrize("addresses", [1, 3])
@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("protocol", SHAPES)
def test_after_the_first_batch_no_call_is_refused(protocol, status, addresses):
    with desk_before_narrow(narrow(protocol, status, items=10), addresses) as (desk, services):
        for each in range(addresses):  # a batch for each of them
            groups = {f"good {each} {i}": desk.ask(f"good {each} {i}") for i in range(25)}
            desk.work()
            check_answers(groups)
        for service in services:
            service.refused.clear()
        for turn in range(4):
            groups = {f"good {turn} {i} more": desk.ask(f"good {turn} {i} more") for i in range(BATCH)}
            desk.work()
            check_answers(groups)
        assert [service.refused for service in services] == [[]] * addresses
        assert desk.backend.limits.batch_size <= 10


def desk_before_narrow(behave, addresses):
    """A desk before services that note what they refuse."""

    def noting(connection, request):
        if not hasattr(connection.service, "refused"):
            connection.service.refused = []
        return behave(connection, request)

    return desk_before(noting, addresses)


def test_an_address_that_takes_fewer_texts_than_a_trial_has_is_used():
    behave = narrow("openai", 400, items=2)

    def noting(connection, request):
        connection.service.refused = getattr(connection.service, "refused", [])
        return behave(connection, request)

    with serve(noting) as one, serve(shapes.openai()) as two:
        backend = open_http(Config(backend_url=(one.url, two.url)))
        backend.check(timeout=10)
        assert [replica.state for replica in backend.replicas] == ["up", "up"]
        assert backend.limits.batch_size <= 2
        texts = [f"{i}" for i in range(5)]
        matrix = backend.embed(backend.prepare(texts), timeout=10).matrix
        assert matrix.tolist() == [vector(text) for text in texts]
        backend.close()


def test_calls_of_more_bytes_than_an_address_takes():
    with desk_before_narrow(narrow("openai", 413, n_bytes=3000), 1) as (desk, (service,)):
        small = {f"good {i}": desk.ask(f"good {i}") for i in range(BATCH)}
        desk.work()
        check_answers(small)
        large = {f"good {i} ".ljust(300, "."): None for i in range(3 * BATCH)}
        for text in large:
            large[text] = desk.ask(text)
        desk.work()
        check_answers(large)
        refused = len(service.refused)
        assert 0 < refused <= 3 * math.ceil(math.log2(BATCH))
        more = {f"good {i} more ".ljust(300, "."): None for i in range(BATCH)}
        for text in more:
            more[text] = desk.ask(text)
        desk.work()
        check_answers(more)
        assert len(service.refused) == refused
        assert desk.backend.limits.batch_size == BATCH, "short texts are not held up"
