"""Several models behind several processes: one process computes the local ones, each answers for all."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from llmrs.server.snapshots import SECONDS
from tests.integration.house import TEXT, Callers, House, embedding, post, reload, running, served, unit
from tests.integration.test_processes import children, is_whole, metrics
from tests.models.makers import write_safetensors
from tests.processes import Server, run, wait_until

NAMES = ["default", "tiny", "first"]


def several(house: House, **env: str) -> Any:
    return running(house, PROCESSES="2", WORKER_CLASS="llmrs", **env)


def tables(house: House, tiny: Any) -> tuple[str, ...]:
    return house.local("default"), house.local("tiny", tiny), house.http("first")


@pytest.fixture
def known(house: House) -> dict[str, list[np.ndarray]]:
    """The vectors that one process gives; of `tiny` also those it will have after a switch."""
    house.write(*tables(house, house.tiny))
    with running(house) as single:
        vectors = {name: [embedding(single, name)] for name in NAMES}
    vectors["tiny"].append(unit(house.other.oracle(house.other_ids(TEXT))))
    return vectors


def ask_all(server: Server) -> None:
    """Enough requests that each process has answered some, by new connections."""
    for _ in range(10):
        for name in NAMES:
            assert post(server, name).status_code == 200


def trouble(server: Server) -> dict[str, str]:
    return requests.get(f"{server.url}/health", timeout=5).json().get("trouble", {})


def kill_engine(server: Server) -> None:
    """End the process that computes, and wait until the master has noticed."""
    victim = next(pid for pid, computes in children(server).items() if computes)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in children(server), 30, server)


def test_every_client_gets_its_models_vectors_through_a_switch_and_the_engines_death(
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
            assert not callers.refused
            kill_engine(server)
            callers.wait(0, "first")  # which the gateways ask themselves
            wait_until(lambda: is_whole(server), 60, server)
            callers.wait(0, "default")
            callers.wait(1, "tiny")
        assert not callers.faults, "only 503 with Retry-After, for models that nobody computes"


def test_metrics_tell_of_every_model_once(house: House) -> None:
    house.write(*tables(house, house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        ask_all(server)
        wanted = {f'llmrs_backend_up{{model="{name}"}}': 1.0 for name in NAMES}
        for series in ("llmrs_inputs_total", "llmrs_batch_texts_sum"):
            wanted |= {f'{series}{{model="{name}"}}': 10.0 for name in NAMES}

        def told() -> bool:
            """What the asked process knows of the others is a second old, and so may be less."""
            found = metrics(server)
            return {series: found.get(series) for series in wanted} == wanted

        wait_until(told, 20, server)
        time.sleep(3 * SECONDS)  # each has written again
        assert told(), "not once more by who sent it"


def test_a_model_that_the_engine_cannot_load_leaves_the_old_one(house: House) -> None:
    house.write(*tables(house, house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        before = embedding(server, "tiny")
        write_safetensors(house.other.folder / "model.safetensors", {"x": np.zeros(3)})
        house.write(*tables(house, house.other))
        wait_until(lambda: all(trouble(server) for _ in range(20)), 60, server)
        assert "model.safetensors" in trouble(server)["tiny"]
        for _ in range(10):
            assert (embedding(server, "tiny") == before).all()
        house.write(*tables(house, house.tiny))
        wait_until(lambda: all(not trouble(server) for _ in range(20)), 60, server)


def test_a_reload_is_applied_by_all_processes_before_it_is_answered(house: House) -> None:
    house.write(house.http("first"), house.local("tiny", house.tiny))
    with several(house, WATCH_CONFIG="false") as server:
        wait_until(lambda: is_whole(server), 30, server)
        house.write(house.local("new", house.other), house.local("tiny", house.tiny), house.http("first"))
        answer = reload(server)
        names = ["new", "tiny", "first"]
        assert (answer.status_code, answer.json()) == (200, {"models": names, "failed": {}})
        for _ in range(10):
            assert served(server) == names
            assert post(server, "new").status_code == 200
        write_safetensors(house.other.folder / "model.safetensors", {"x": np.zeros(3)})
        house.write(house.local("tiny", house.other), house.http("second"))
        answer = reload(server)
        assert answer.json()["models"] == ["tiny", "second"]
        assert "model.safetensors" in answer.json()["failed"]["tiny"]
        for _ in range(10):
            assert served(server) == ["tiny", "second"]
        house.write(house.local("tiny", more="batch_size = 0"))
        assert reload(server).status_code == 400
        for _ in range(10):
            assert served(server) == ["tiny", "second"]


def test_models_are_loaded_on_request_by_the_process_that_computes(house: House) -> None:
    more = 'load_on = "request"\nunload_after = 1\ndtype = "f32"'
    house.write(house.local("tiny", house.tiny, more), house.local("other", house.other, more))
    with several(house) as server:
        wait_until(lambda: requests.get(f"{server.url}/readyz", timeout=5).status_code == 200, 30, server)
        other = 'llmrs_model_loaded{model="other"}'
        wait_until(lambda: metrics(server).get(other) == 0, 30, server)
        known = {
            name: [unit(model.oracle(house.other_ids(TEXT)))]
            for name, model in (("tiny", house.tiny), ("other", house.other))
        }
        with Callers(server, known) as callers:
            callers.wait()
            wait_until(lambda: metrics(server)[other] == 1, 30, server)
        assert not callers.faults
        assert not callers.refused
        states = lambda: requests.get(f"{server.url}/health", timeout=5).json()["models"]  # noqa: E731
        wait_until(lambda: metrics(server)[other] == 0, 30, server)
        wait_until(lambda: {each["state"] for each in states()} == {"unloaded"}, 30, server)
        assert metrics(server)['llmrs_loads_total{model="other"}'] >= 1


def test_a_hup_brings_the_models_of_the_file_and_loses_nothing(house: House) -> None:
    house.write(house.http("first"), house.local("tiny", house.tiny))
    with several(house, WATCH_CONFIG="false") as server:
        wait_until(lambda: is_whole(server), 30, server)
        known = {name: [embedding(server, name)] for name in ("first", "tiny")}
        with Callers(server, known) as callers:
            callers.wait()
            before = set(children(server))
            house.write(house.http("first"), house.local("tiny", house.tiny), house.local("new", house.other))
            server.signal(signal.SIGHUP)
            wait_until(lambda: not before & set(children(server)) and is_whole(server), 60, server)
            callers.wait()
        assert not callers.faults
        assert served(server) == ["first", "tiny", "new"]
        assert post(server, "new").status_code == 200


def test_restarted_processes_serve_what_the_configuration_says_by_then(house: House) -> None:
    """Also where the model of the first start is gone, and where one is broken."""
    house.write(house.local("tiny", house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        broken = house.local("broken", house.tiny, 'default_prompt = "nothing"')
        house.write(house.local("tiny", house.other), broken, house.http("first"))
        wait_until(lambda: all(served(server) == ["tiny", "first"] for _ in range(20)), 60, server)
        shutil.rmtree(house.tiny.folder)
        before = set(children(server))
        for victim in sorted(before, key=children(server).__getitem__):  # the engine last
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in children(server), 30, server)
        wait_until(lambda: not before & set(children(server)) and is_whole(server), 60, server)
        assert served(server) == ["tiny", "first"]
        assert embedding(server, "tiny") @ unit(house.other.oracle(house.other_ids(TEXT))) > 0.999
        assert trouble(server).keys() == {"broken"}


def test_files_that_were_replaced_are_read_by_all_when_the_engine_starts_again(house: House) -> None:
    house.write(house.local("tiny", house.tiny))
    with several(house) as server:
        wait_until(lambda: is_whole(server), 30, server)
        old, new = embedding(server, "tiny"), unit(house.other.oracle(house.other_ids(TEXT)))
        os.replace(house.other.folder / "model.safetensors", house.tiny.folder / "model.safetensors")
        assert (embedding(server, "tiny") == old).all()
        kill_engine(server)
        seen = []

        def is_new() -> bool:
            answer = post(server, "tiny")
            if answer.status_code == 200:
                seen.append(np.array(answer.json()["data"][0]["embedding"]) @ new)
            return len(seen) > 20

        wait_until(is_new, 60, server)
        wait_until(lambda: is_whole(server), 30, server)
        assert min(seen) > 0.999, "no vector of the old weights after those of the new"


def test_a_start_that_fails_in_every_process_has_the_exit_code_of_a_model(tmp_path: Path) -> None:
    done = run("serve", "--port", "0", PROCESSES="3", WORKER_CLASS="llmrs", DEFAULT_PROMPT="nothing")
    assert done.returncode == 3, done.stderr
    assert "default_prompt" in done.stderr
