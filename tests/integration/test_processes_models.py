"""Several models behind several processes: one process computes the local ones, each answers for all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from tests.integration.house import TEXT, Callers, House, embedding, post, running, served, unit
from tests.integration.test_processes import children, is_whole, metrics
from tests.models.makers import write_safetensors
from tests.processes import Server, wait_until

NAMES = ["default", "tiny", "first"]


def several(house: House, **env: str) -> Any:
    return running(house, PROCESSES="2", WORKER_CLASS="llmrs", **env)


def tables(house: House, tiny: Any) -> tuple[str, ...]:
    return house.local("default"), house.local("tiny", tiny), house.http("first")


@pytest.fixture
def known(house: House) -> Iterator[dict[str, list[np.ndarray]]]:
    """The vectors that one process gives; of `tiny` also those it will have after a switch."""
    house.write(*tables(house, house.tiny))
    with running(house) as single:
        yield {
            "default": [embedding(single, "default")],
            "tiny": [embedding(single, "tiny"), unit(house.other.oracle(house.other_ids(TEXT)))],
            "first": [embedding(single, "first")],
        }


def ask_all(server: Server) -> None:
    """Enough requests that each process has answered some, by new connections."""
    for _ in range(10):
        for name in NAMES:
            assert post(server, name).status_code == 200


def test_each_model_is_the_one_asked_for_and_is_switched_without_a_lost_request(
    house: House, known: dict[str, list[np.ndarray]]
) -> None:
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        assert served(server) == NAMES
        assert sorted(children(server).values()) == [False, False, True], "one computes both local models"
        with Callers(server, known) as callers:
            callers.wait()
            house.write(*tables(house, house.other))
            callers.wait(1, "tiny")
            wait_until(lambda: server.log.count("model tiny is served no more") >= 2, 60, server)
            before = callers.counts["tiny", 0]
            callers.wait(1, "tiny")
            assert callers.counts["tiny", 0] == before, "both gateways have left the old one"
        assert not callers.faults
        assert not callers.refused


def test_metrics_tell_of_every_model_once(house: House) -> None:
    house.write(*tables(house, house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        ask_all(server)
        found = metrics(server)

        def counted(series: str) -> bool:
            found.update(metrics(server))
            return all(found.get(f'{series}{{model="{name}"}}', 0) >= 1 for name in NAMES)

        wait_until(lambda: counted("llmrs_batch_texts_sum"), 20, server)
        wait_until(lambda: counted("llmrs_backend_up"), 20, server)
        for name in NAMES:
            label = f'{{model="{name}"}}'
            assert found[f"llmrs_inputs_total{label}"] == 10
            assert found[f"llmrs_batch_texts_sum{label}"] == 10, "not once more by who sent it"
            assert found[f"llmrs_backend_up{label}"] == 1


def test_a_dead_engine_comes_back_with_all_its_models(
    house: House, known: dict[str, list[np.ndarray]]
) -> None:
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        with Callers(server, known) as callers:
            callers.wait()
            victim = next(pid for pid, computes in children(server).items() if computes)
            os.kill(victim, signal.SIGKILL)
            callers.wait(0, "first")
            wait_until(lambda: victim not in children(server) and is_whole(server), 60, server)
            callers.wait()
        assert not callers.faults, "only 503 with Retry-After, for models that nobody computes"
        for name in NAMES:
            assert embedding(server, name) @ known[name][0] > 0.999


def test_a_model_that_the_engine_cannot_load_leaves_the_old_one(house: House) -> None:
    house.write(*tables(house, house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        before = embedding(server, "tiny")
        write_safetensors(house.other.folder / "model.safetensors", {"x": np.zeros(3)})
        house.write(*tables(house, house.other))
        trouble = lambda: requests.get(f"{server.url}/health", timeout=5).json().get("trouble")  # noqa: E731
        wait_until(lambda: all(trouble() is not None for _ in range(20)), 60, server)
        assert "model.safetensors" in trouble()["tiny"]
        for _ in range(10):
            assert (embedding(server, "tiny") == before).all()
        house.write(*tables(house, house.tiny))
        wait_until(lambda: all(trouble() is None for _ in range(20)), 60, server)
