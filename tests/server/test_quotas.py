"""Limits of one API key: what is refused, what it is told, and that every place is given back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import gevent
import pytest

from llmrs.config import load
from llmrs.embeddings import Limits
from llmrs.errors import ConcurrencyLimit, RateLimitExceeded
from llmrs.server.app import create_app
from llmrs.server.auth import load_keys
from llmrs.server.quotas import MAX_CALLERS, Limited, Quotas
from tests.engines import FakeBackend
from tests.server.conftest import Client
from tests.server.test_keys import Clock

PATH = "/v1/embeddings"


def enter(quotas: Quotas, name: str = "a") -> None:
    with quotas.place(name):
        pass


class TestRate:
    def test_a_seconds_worth_at_once_then_one_at_a_time(self) -> None:
        clock = Clock()
        quotas = Quotas(0, 4.0, clock)
        for _ in range(4):
            enter(quotas)
        with pytest.raises(RateLimitExceeded) as refused:
            enter(quotas)
        assert refused.value.headers == {"Retry-After": "1", "retry-after-ms": "250"}
        clock.now += 0.2
        with pytest.raises(RateLimitExceeded) as refused:
            enter(quotas)
        assert 50 <= int(refused.value.headers["retry-after-ms"]) <= 51
        clock.now += 0.051
        enter(quotas)
        clock.now += 1000
        for _ in range(4):
            enter(quotas)
        with pytest.raises(RateLimitExceeded):
            enter(quotas)

    @pytest.mark.parametrize("rate", [0.01, 0.3, 1.0, 7.0, 33.3, 999.0])
    def test_who_comes_back_when_told_is_let_in(self, rate: float) -> None:
        clock = Clock()
        quotas = Quotas(0, rate, clock)
        burst = max(1, int(rate))
        for _ in range(burst):
            enter(quotas)
        for _ in range(1000):
            with pytest.raises(RateLimitExceeded) as refused:
                enter(quotas)
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 120
            clock.now += int(refused.value.headers["retry-after-ms"]) / 1000
            enter(quotas)
            clock.now = round(clock.now + 1e9)
            for _ in range(burst):
                enter(quotas)

    def test_over_time_the_rate_is_kept(self) -> None:
        clock, chance = Clock(), random.Random(7)
        quotas = Quotas(0, 5.0, clock)
        let_in = 0
        for _ in range(20_000):
            clock.now += chance.random() / 50
            with contextlib.suppress(RateLimitExceeded):
                enter(quotas)
                let_in += 1
        assert (clock.now - 100.0) * 5.0 - 1 <= let_in <= (clock.now - 100.0) * 5.0 + 5

    def test_callers_do_not_share(self) -> None:
        quotas = Quotas(0, 1.0, Clock())
        enter(quotas, "a")
        enter(quotas, "b")
        with pytest.raises(RateLimitExceeded):
            enter(quotas, "a")

    def test_nobody_is_limited_without_a_name(self) -> None:
        quotas = Quotas(1, 1.0, Clock())
        for _ in range(5):
            with quotas.place(None), quotas.place(None):
                pass


class TestConcurrency:
    def test_places_are_counted(self) -> None:
        quotas = Quotas(2, 0.0, Clock())
        with quotas.place("a"), quotas.place("a"):
            with pytest.raises(ConcurrencyLimit):
                enter(quotas)
            enter(quotas, "b")
        enter(quotas)

    @pytest.mark.parametrize("end", [ValueError, gevent.Timeout, gevent.GreenletExit, KeyboardInterrupt])
    def test_a_place_is_given_back_however_the_request_ends(self, end: type[BaseException]) -> None:
        quotas = Quotas(1, 0.0, Clock())
        for _ in range(3):
            with pytest.raises(end), quotas.place("a"):
                raise end
        assert quotas._callers["a"].running == 0

    def test_a_refusal_takes_no_place_and_no_turn(self) -> None:
        quotas = Quotas(1, 2.0, Clock())
        with quotas.place("a"):
            for _ in range(10):
                with pytest.raises(ConcurrencyLimit):
                    enter(quotas)
        enter(quotas)  # the second of the two that the rate gives
        with pytest.raises(RateLimitExceeded):
            enter(quotas)
        assert quotas._callers["a"].running == 0

    def test_it_says_when_a_place_falls_free_on_average(self) -> None:
        clock = Clock()
        quotas = Quotas(4, 0.0, clock)
        for _ in range(50):
            with quotas.place("a"):
                clock.now += 6.0
        places = [quotas.place("a") for _ in range(4)]
        for place in places:
            place.__enter__()
        with pytest.raises(ConcurrencyLimit) as refused:
            enter(quotas)
        assert refused.value.headers["Retry-After"] == "2"
        assert 1490 <= int(refused.value.headers["retry-after-ms"]) <= 1510

    def test_names_that_come_and_go_are_forgotten(self) -> None:
        clock = Clock()
        quotas = Quotas(1, 1.0, clock)
        with quotas.place("busy"):
            for i in range(10 * MAX_CALLERS):
                clock.now += 0.01
                enter(quotas, f"name-{i}")
            assert len(quotas._callers) <= MAX_CALLERS
            with pytest.raises(ConcurrencyLimit):
                enter(quotas, "busy")


# -- over HTTP ----------------------------------------------------------------------------------


def serve(**options: object) -> Client:
    config = load({name: str(value) for name, value in options.items()}, environ={}, path="/dev/null")
    backend = FakeBackend(limits=Limits(8, 1000, 1))
    return Client(create_app([backend], config, load_keys(config)), backend)


@pytest.fixture
def one_at_a_time() -> Iterator[Client]:
    client = serve(api_key="ka,kb", key_concurrency=1)
    yield client
    client.app.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_over_the_rate_is_429_before_the_body_is_looked_at() -> None:
    client = serve(api_key="ka,kb", key_rate=0.5)
    assert client.post(PATH, {"input": "x"}, headers=bearer("ka")).status_code == 200
    for path in (PATH, "/embeddings", "/embed"):
        result = client.post(path, b"not json", headers=bearer("ka"))
        error = result.json["error"]
        assert result.status_code == 429
        assert (error["type"], error["code"], error["param"]) == (
            "rate_limit_error",
            "rate_limit_exceeded",
            None,
        )
        assert int(result.headers["retry-after"]) in (1, 2)
        assert 0 < int(result.headers["retry-after-ms"]) <= 2000
        assert "invalid_request_error" not in result.text
        assert "ka" not in result.text
    assert client.post(PATH, {"input": "x"}, headers=bearer("kb")).status_code == 200
    for path in ("/v1/models", "/health", "/metrics"):
        assert client._client.simulate_get(path, headers=bearer("ka")).status_code == 200
    assert client.post(PATH, {"input": "x"}, headers=bearer("kx")).status_code == 401
    client.app.close()


def test_one_key_does_not_take_anothers_place(one_at_a_time: Client) -> None:
    client = one_at_a_time
    slow = gevent.spawn(client.post, PATH, {"input": "slow"}, headers=bearer("ka"))
    gevent.sleep(0.1)
    error = client.error(429, "/embed", {"texts": "x"}, headers=bearer("ka"))
    assert (error["type"], error["code"]) == ("rate_limit_error", "concurrency_limit")
    assert client.post(PATH, {"input": "x"}, headers=bearer("kb")).status_code == 200
    slow.join(10)
    assert slow.value.status_code == 200
    assert client.post(PATH, {"input": "x"}, headers=bearer("ka")).status_code == 200


ENDINGS = [
    b"not json", b'{"input": []}', b'{"input": "poison"}', b'{"input": "broken"}', b'{"input": "nan"}',
    b'{"input": "unreachable"}', b'{"input": "x", "model": "none"}',
    b'{"input": "%b", "truncate": "none"}' % (b"w " * 99),
    b'{"input": "x"}', b'{"texts": "x"}', b'{"inputs": "poison"}',
]  # fmt: skip


@pytest.mark.parametrize("body", ENDINGS)
def test_every_ending_gives_the_place_back(one_at_a_time: Client, body: bytes) -> None:
    for path in (PATH, "/embed"):
        for _ in range(3):
            assert one_at_a_time.post(path, body, headers=bearer("ka")).status_code != 429
    assert one_at_a_time.post(PATH, {"input": "x"}, headers=bearer("ka")).status_code == 200


def test_a_request_whose_greenlet_is_killed_gives_its_place_back(one_at_a_time: Client) -> None:
    """As a worker does that has waited for graceful_timeout."""
    for _ in range(3):
        slow = gevent.spawn(one_at_a_time.post, PATH, {"input": "slow"}, headers=bearer("ka"))
        gevent.sleep(0.05)
        assert one_at_a_time.post(PATH, {"input": "x"}, headers=bearer("ka")).status_code == 429
        slow.kill()
    assert one_at_a_time.post(PATH, {"input": "x"}, headers=bearer("ka")).status_code == 200


def test_a_storm_of_endings_leaves_nothing_behind() -> None:
    client = serve(api_key="ka,kb,kc", key_concurrency=2, request_timeout=0.2)
    chance = random.Random(3)

    def storm(key: str) -> None:
        for _ in range(15):
            client.post(PATH, chance.choice([*ENDINGS, b'{"input": "slow"}']), headers=bearer(key))

    greenlets = [gevent.spawn(storm, key) for key in ("ka", "kb", "kc") for _ in range(4)]
    gevent.sleep(0.3)
    for greenlet in greenlets[::4]:
        greenlet.kill()
    gevent.joinall(greenlets, timeout=60)
    quotas = _quotas(client)
    assert {name: caller.running for name, caller in quotas._callers.items()} == {
        "key-1": 0, "key-2": 0, "key-3": 0,
    }  # fmt: skip
    for key in ("ka", "kb", "kc"):
        assert client.post(PATH, {"input": "x"}, headers=bearer(key)).status_code in (200, 504)
    client.app.close()


def _quotas(client: Client) -> Quotas:
    resource = client.app._falcon._router.find(PATH)[0]
    assert isinstance(resource, Limited)
    return resource._quotas


def test_without_limits_nothing_is_wrapped() -> None:
    client = serve(api_key="ka")
    assert not isinstance(client.app._falcon._router.find(PATH)[0], Limited)
    client.app.close()


@pytest.mark.parametrize("option", ["key_rate", "key_concurrency"])
def test_without_keys_limits_have_no_effect_and_the_start_says_so(option: str) -> None:
    client = serve(**{option: 1})
    for _ in range(5):
        assert client.post(PATH, {"input": "x"}).status_code == 200
    client.app.close()
    (warning,) = load({option: "1"}, environ={}, path="/dev/null").warnings
    assert warning.startswith(f"{option} = 1")
    assert "neither api_key nor api_key_file" in warning
    assert not load({option: "1", "api_key": "x"}, environ={}, path="/dev/null").warnings
