"""Several models in one process, and changing them while all are under load."""

from __future__ import annotations

import time

import pytest
import requests

from tests.backends.services.vectors import vector
from tests.integration.house import (
    ADMIN,
    TEXT,
    Callers,
    House,
    embedding,
    post,
    reload,
    running,
    served,
    unit,
)
from tests.processes import wait_until


def test_two_local_models_and_two_backends_while_one_is_switched(house: House) -> None:
    """Every answer is complete, right, and from the model that was asked for, old or new."""
    default = house.local("default")
    house.write(default, house.local("tiny", house.tiny), house.http("first"), house.http("second"))
    with running(house) as server:
        assert served(server) == ["default", "tiny", "first", "second"]
        expected = {name: [embedding(server, name)] for name in served(server)}
        assert expected["first"][0] @ unit(vector(TEXT)) == pytest.approx(1, abs=1e-5)
        new = unit(house.other.oracle(house.other_ids(TEXT)))
        expected["tiny"].append(new)
        with Callers(server, expected) as callers:
            callers.wait()
            house.write(default, house.local("tiny", house.other), house.http("first"), house.http("second"))
            callers.wait(1, "tiny")
        assert not callers.faults
        assert not callers.refused
        assert embedding(server, "tiny") @ new > 0.999


def test_models_are_added_and_removed(house: House) -> None:
    house.write(house.local("default"))
    with running(house, WATCH_CONFIG="false") as server:
        house.write(house.local("default"), house.local("tiny", house.tiny, 'model_aliases = ["t"]'))
        time.sleep(2)
        assert served(server) == ["default"], "nobody has asked for it, and the file is not watched"
        answer = reload(server)
        assert (answer.status_code, answer.json()) == (200, {"models": ["default", "tiny"], "failed": {}})
        assert embedding(server, "t").shape == (32,)
        house.write(house.local("tiny", house.tiny))
        assert reload(server).json()["models"] == ["tiny"]
        assert embedding(server, None).shape == (32,), "the first one is the default"
        gone = post(server, "default")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        assert post(server, "t").status_code == 404
        wait_until(lambda: "model default is served no more" in server.log, 20, server)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(house: House) -> None:
    house.write(house.local("tiny", house.tiny), house.local("default"))
    with running(house) as server:
        before = embedding(server, "tiny")
        (house.other.folder / "model.safetensors").write_bytes(b"no weights")
        house.write(house.local("tiny", house.other), house.local("default"))
        trouble = lambda: requests.get(f"{server.url}/health", timeout=5).json().get("trouble")  # noqa: E731
        wait_until(lambda: trouble() is not None, 20, server)
        assert "safetensors" in trouble()["tiny"]
        assert requests.get(f"{server.url}/health", timeout=5).status_code == 200
        assert (embedding(server, "tiny") == before).all()
        answer = reload(server)
        assert answer.json()["models"] == ["tiny", "default"]
        assert "safetensors" in answer.json()["failed"]["tiny"]
        house.write(house.local("tiny", house.tiny), house.local("default"))
        wait_until(lambda: trouble() is None, 20, server)


def test_a_wrong_configuration_changes_nothing(house: House) -> None:
    house.write(house.local("default"))
    with running(house) as server:
        house.write(house.local("default", more="batch_size = 0"))
        wait_until(lambda: "cannot be used" in server.log, 20, server)
        answer = reload(server)
        assert answer.status_code == 400
        assert "batch_size = 0" in answer.json()["error"]["message"]
        assert served(server) == ["default"]
        assert embedding(server, "default").shape == (384,)


def test_a_file_that_is_gone_or_empty_says_nothing(house: House) -> None:
    house.write(house.local("tiny", house.tiny))
    with running(house) as server:
        assert served(server) == ["tiny"]
        house.file.unlink()
        time.sleep(3)
        assert served(server) == ["tiny"]
        assert reload(server).status_code == 400
        house.file.write_text("")
        time.sleep(3)
        assert served(server) == ["tiny"]
        answer = reload(server)
        assert answer.status_code == 400
        assert "names no model any more" in answer.json()["error"]["message"]
        assert served(server) == ["tiny"]
        house.write(house.local("tiny", house.other))
        wait_until(lambda: "served: tiny" in server.log, 20, server)


def test_what_is_not_about_models_waits_for_a_restart(house: House) -> None:
    house.write(house.local("default"))
    with running(house) as server:
        house.write(house.local("default", more="batch_size = 8"), flat="keepalive = 80")
        wait_until(lambda: "changed with the next start: keepalive" in server.log, 20, server)
        wait_until(lambda: "model default is served no more" in server.log, 20, server)
        assert embedding(server, "default").shape == (384,)


def test_only_the_admin_may_ask(house: House) -> None:
    house.write(house.local("default"), flat='api_key = "a-clients-key"')
    with running(house) as server:
        for headers in ({}, {"Authorization": "Bearer a-clients-key"}, {"Authorization": "Bearer x"}):
            answer = requests.post(f"{server.url}/admin/reload", headers=headers, timeout=10)
            assert answer.status_code == 401, headers
        assert reload(server).status_code == 200
        body = {"input": "x"}
        embeddings = f"{server.url}/v1/embeddings"
        assert requests.post(embeddings, json=body, headers=ADMIN, timeout=10).status_code == 401
    house.write(house.local("default"))
    house.file.write_text(house.local("default"))
    with running(house) as server:
        assert reload(server).status_code == 404, "without an admin key there is no such path"


def test_one_model_that_is_down_does_not_take_the_others_along(house: House) -> None:
    absent = '[[models]]\nmodel_name = "absent"\nbackend_url = "http://127.0.0.1:9"\n'
    house.write(house.local("default"), absent)
    with running(house) as server:
        health = requests.get(f"{server.url}/health", timeout=10)
        assert health.status_code == 200
        reasons = {model["name"]: model["reason"] for model in health.json()["models"]}
        assert reasons["default"] is None
        assert reasons["absent"]
        assert post(server, "default").status_code == 200
        assert post(server, "absent").status_code == 502
