"""Models that are loaded on request, in a real server, and the memory that they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import requests

from llmrs.models.resolve import DEFAULT_MODEL, resolve
from tests.integration.house import TEXT, Callers, House, embedding, post, reload, running, served, unit
from tests.processes import Server, run, wait_until

ON_REQUEST = 'load_on = "request"\ndtype = "f32"'


def weights(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def states(server: Server) -> dict[str, str]:
    listing = requests.get(f"{server.url}/v1/models", timeout=10).json()
    return {entry["id"]: entry["state"] for entry in listing["data"]}


def health(server: Server) -> Any:
    return requests.get(f"{server.url}/health", timeout=10)


def memory(server: Server) -> int:
    """Bytes of the worker, the master's only child."""
    (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    pages = Path(f"/proc/{worker}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_two_models_take_turns_in_the_memory_of_one(house: House) -> None:
    """Beside the default model, which is always there: all are answered, all rightly, none is refused."""
    large = weights(resolve(DEFAULT_MODEL))
    one, other = (weights(model.folder) for model in (house.tiny, house.other))
    house.write(
        house.local("default"),
        house.local("tiny", house.tiny, ON_REQUEST),
        house.local("other", house.other, ON_REQUEST),
        flat=f"model_memory = {large + max(one, other)}",
    )
    known = {
        name: unit(model.oracle(house.other_ids(TEXT)))
        for name, model in (("tiny", house.tiny), ("other", house.other))
    }
    with running(house) as server:
        assert states(server) == {"default": "loaded", "tiny": "unloaded", "other": "unloaded"}
        known["default"] = embedding(server, "default")
        assert not {"tiny", "other"} & {name for name, state in states(server).items() if state == "loaded"}
        with Callers(server, {name: [vector] for name, vector in known.items()}) as callers:
            callers.wait()
            before = memory(server)
            for _ in range(2):
                callers.wait()
                assert list(states(server).values()).count("loaded") <= 2
        assert callers.faults == []
        assert callers.refused == 0
        assert memory(server) - before < large / 2
        page = requests.get(f"{server.url}/metrics", timeout=10).text
        counts = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        assert float(counts['llmrs_unloads_total{model="tiny"}']) >= 1
        assert float(counts['llmrs_loads_total{model="other"}']) >= 2
        assert float(counts['llmrs_model_loaded{model="default"}']) == 1


def test_a_model_that_cannot_be_loaded_harms_nobody_but_its_callers(house: House) -> None:
    house.write(house.local("tiny", house.tiny), house.local("other", house.other, ON_REQUEST))
    (house.other.folder / "model.safetensors").write_bytes(b"no weights")
    with running(house) as server:
        for _ in "ab":
            refused = post(server, "other")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert "cannot be loaded" in refused.json()["error"]["message"]
            assert str(house.other.folder) not in refused.text
            assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert server.log.count("model other cannot be loaded") == 1, "once, for both requests"
        assert "model.safetensors" in server.log
        shown = health(server)
        assert shown.status_code == 200
        assert shown.json()["models"][1]["state"] == "unloaded"
        assert "cannot be loaded" in shown.json()["models"][1]["reason"]
        assert embedding(server, "tiny").shape == (32,)


def test_a_service_is_ready_before_its_model_is_loaded_and_after_it_is_unloaded(house: House) -> None:
    house.write(house.local("tiny", house.tiny, f'{ON_REQUEST}\nunload_after = 1\ntruncate = "none"'))
    with running(house) as server:
        for _ in "ab":
            assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
            assert health(server).json()["model_state"] == "unloaded"
            assert post(server, "tiny", "word " * 100).status_code == 400, (
                "too long: known without its weights"
            )
            assert states(server) == {"tiny": "unloaded"}
            assert embedding(server, "tiny") @ unit(house.tiny.oracle(house.other_ids(TEXT))) > 0.999
            wait_until(lambda: states(server) == {"tiny": "unloaded"}, 30, server)


def test_how_a_model_is_loaded_is_switched_like_all_else(house: House) -> None:
    default = house.local("default", house.tiny)
    house.write(default, house.local("tiny", house.tiny, ON_REQUEST))
    with running(house) as server:
        house.write(default, house.local("tiny", house.tiny))
        assert reload(server).json()["failed"] == {}
        assert states(server) == {"default": "loaded", "tiny": "loaded"}
        house.write(default, house.local("tiny", house.other, ON_REQUEST), flat="model_memory = 5")
        assert reload(server).json()["failed"] == {}, "the memory is for the next start"
        assert states(server)["tiny"] == "unloaded"
        assert embedding(server, "tiny") @ unit(house.other.oracle(house.other_ids(TEXT))) > 0.999
        assert served(server) == ["default", "tiny"]


def test_a_memory_that_is_too_little_ends_the_start(house: House) -> None:
    house.write(house.local("tiny", house.tiny), flat="model_memory = 1000")
    ended = run("serve", "--port", "0", LLMRS_CONFIG=str(house.file))
    assert ended.returncode == 3
    assert "model_memory = 1000 is too little" in ended.stderr
