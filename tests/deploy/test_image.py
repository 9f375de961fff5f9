"""The image that the Dockerfile makes, built and run: what is in it, what it answers, how it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from llmrs.config import OPTIONS
from tests.deploy.container import Contained, Container, curl
from tests.processes import ROOT, free_port, wait_until

REFERENCES = ROOT / "tests/models/references/all-MiniLM-L6-v2"
HEALTHCHECK = ["python", "/opt/llmrs/healthcheck.py"]
UID = 10001


@pytest.fixture(scope="module")
def service(container: Container) -> Iterator[Contained]:
    """The image as it is, on a port that is free."""
    with container.serve(PORT=str(free_port())) as running:
        yield running


# -- what is in it --------------------------------------------------------------------------------


def test_it_runs_as_a_user_without_rights(container: Container, service: Contained) -> None:
    assert container.image["User"] == f"{UID}:{UID}"
    assert container.run("id", "-u").stdout.strip() == str(UID)
    status = dict(line.split(":\t") for line in Path(f"/proc/{service.pid}/status").read_text().splitlines()
                  if ":\t" in line)  # fmt: skip
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["NSpid"].split()[1] == "1"
    assert int(status["CapEff"], 16) == 0


def test_no_compiler_no_pip_no_sources_no_secrets(container: Container) -> None:
    script = "command -v gcc g++ cc c++ cc1plus cython clang make; ls -A /app /run/secrets /build 2>/dev/null"
    assert container.run("sh", "-c", f"{script}; true").stdout.strip() in ("", "/app:")
    modules = "import importlib.util as u; print([m for m in ('pip', 'Cython', 'torch') if u.find_spec(m)])"
    assert container.run("python", "-c", modules).stdout.strip() == "[]"
    assert container.run("find", "/opt/llmrs", "-path", "*/site-packages/llmrs/*.pyx").stdout == ""


def test_nothing_in_it_is_the_users_to_change(container: Container) -> None:
    """Besides the folder for downloaded models, /tmp and their like."""
    command = ["find", "/opt", "/app", "/usr", "/etc", "-writable", "-not", "-type", "l"]
    assert container.run(*command).stdout == ""
    assert container.run("find", "/var/lib/llmrs", "-maxdepth", "0", "-writable").stdout != ""


def test_its_settings_leave_the_configuration_file_its_say(container: Container) -> None:
    settings = {name.split("=")[0] for name in container.image["Env"]}
    assert settings & {option.env for option in OPTIONS} == {"HOST", "OFFLINE"}
    assert list(container.image["ExposedPorts"]) == ["3000/tcp"]
    assert container.image["StopSignal"] == "SIGTERM"
    assert container.image["Healthcheck"]["Test"] == ["CMD", *HEALTHCHECK]


def test_arguments_are_those_of_the_program(container: Container) -> None:
    shown = container.docker_run("check-config", PORT="8123")
    assert shown.returncode == 0, shown.stderr
    values = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines() if line.strip()}
    assert (values["host"], values["port"], values["offline"]) == ('"0.0.0.0"', "8123", "true")
    refused = container.docker_run("--batch-size", "0")
    assert refused.returncode != 0
    assert "batch_size" in refused.stderr


# -- what it answers ------------------------------------------------------------------------------


def test_it_answers_offline_with_the_right_vectors(service: Contained) -> None:
    texts = json.loads(REFERENCES.with_suffix(".json").read_text(encoding="utf-8"))["texts"][:20]
    body = json.dumps({"input": texts, "encoding_format": "base64"})
    answer = json.loads(
        curl(f"{service.url}/v1/embeddings", "--header", "Content-Type: application/json", "--data", body)
    )
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    expected = np.load(REFERENCES.with_suffix(".npy"))[: len(texts)]
    cosines = (np.stack(rows).astype(np.float64) * expected).sum(axis=1)
    assert cosines.min() > 0.9998
    assert answer["model"] == "all-MiniLM-L6-v2"


def test_it_reads_the_token_ids_that_openais_clients_send(service: Contained) -> None:
    rows = []
    for asked in ("hello world", [15339, 1917]):
        body = json.dumps({"input": asked, "encoding_format": "float"})
        head = ("--header", "Content-Type: application/json")
        answer = json.loads(curl(f"{service.url}/v1/embeddings", *head, "--data", body))
        rows.append(answer["data"][0]["embedding"])
    assert np.dot(*rows) > 0.9998


def test_it_is_healthy(service: Contained) -> None:
    for path in ("/health", "/readyz", "/livez"):
        json.loads(curl(service.url + path))
    assert json.loads(curl(f"{service.url}/health"))["status"] == "ok"


def test_the_health_check_tells_up_from_down(container: Container, service: Contained) -> None:
    up = container.run(*HEALTHCHECK, PORT=str(service.port))
    assert (up.returncode, up.stderr) == (0, "")
    down = container.run(*HEALTHCHECK, PORT=str(free_port()))
    assert down.returncode != 0
    assert "no answer" in down.stderr


def test_the_health_check_says_no_while_the_backend_is_down(container: Container) -> None:
    backend = f"http://127.0.0.1:{free_port()}"
    with container.serve(PORT="0", BACKEND_URL=backend, BACKEND_PROTOCOL="openai", MODEL_NAME="m") as gateway:
        asked = container.run(*HEALTHCHECK, PORT=str(gateway.port))
        assert asked.returncode != 0
        assert asked.stderr.startswith("503")


def test_buildah_runs_it_too(container: Container) -> None:
    """With the image's own command, on a writable root, ended by TERM."""
    port = free_port()
    ended: list[subprocess.CompletedProcess[str]] = []
    running = threading.Thread(target=lambda: ended.append(container.docker_run(PORT=str(port))))
    running.start()
    wait_until(lambda: requests_ok(f"http://127.0.0.1:{port}/readyz") or bool(ended), 60)
    assert not ended, ended[0].stderr
    container.run("python", "-c", STOP, str(port))
    running.join(60)
    assert ended[0].returncode == 0, ended[0].stderr


STOP = """
import os, signal, sys
from pathlib import Path
for process in Path("/proc").glob("[0-9]*"):
    settings = (process / "environ").read_bytes().split(bytes(1)) if os.access(process / "environ", 4) else []
    command = (process / "cmdline").read_bytes().split(bytes(1))
    if f"PORT={sys.argv[1]}".encode() in settings and b"serve" in command:
        os.kill(int(process.name), signal.SIGTERM)
        break
"""
"""Told to the older of the two, the master: processes are listed by number."""


def requests_ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


# -- how it is configured -------------------------------------------------------------------------


def test_a_mounted_configuration_file_is_honoured(container: Container, tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "config.toml"
    file.write_text(f'port = {port}\nmodel_name = "from-the-file"\nmodel_aliases = ["alias"]\n')
    file.chmod(0o644)
    mounts = {file: "/app/config.toml"}
    with container.serve(mounts=mounts) as running:
        assert running.port == port
        assert models(running) == ["from-the-file"]
        assert container.run(*HEALTHCHECK, mounts=mounts).returncode == 0
    with container.serve(mounts=mounts, MODEL_NAME="from-the-environment") as running:
        assert models(running) == ["from-the-environment"]


def test_the_sample_file_can_be_mounted_as_it_is(container: Container) -> None:
    shown = container.docker_run("check-config", mounts={ROOT / "config.toml": "/app/config.toml"})
    assert shown.returncode == 0, shown.stderr
    assert 'host                   "0.0.0.0"' in shown.stdout


def test_environment_variables_are_honoured(container: Container, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-of-the-file\n")
    keys.chmod(0o644)
    port = free_port()
    env = {
        "HOST": "127.0.0.1", "PORT": str(port), "MODEL_NAME": "mine", "API_KEY": "key-of-the-environment",
        "API_KEY_FILE": "/run/keys", "LOG_FORMAT": "json", "MAX_CLIENT_BATCH_SIZE": "2", "METRICS": "off",
        "NORMALIZE_EMBEDDINGS": "true", "WORKER_CLASS": "gevent",
    }  # fmt: skip
    with container.serve(mounts={keys: "/run/keys"}, **env) as running:
        assert running.port == port
        assert all(json.loads(line) for line in running.log.splitlines() if line.startswith("{"))
        assert '"Using worker: gevent"' in running.log
        assert ask(running, "x").status_code == 401
        for key in ("key-of-the-environment", "key-of-the-file"):
            answer = ask(running, "x", Authorization=f"Bearer {key}")
            assert (answer.status_code, answer.json()["model"]) == (200, "mine")
        assert ask(running, ["a"] * 3, Authorization=f"Bearer {key}").status_code == 400
        assert container.run(*HEALTHCHECK, PORT=str(port)).returncode == 0, "it needs no key"


def test_it_runs_as_the_pod_of_the_manifests(container: Container, tmp_path: Path) -> None:
    """With the pod's settings, keys that only its group may read, and its probes' routes."""
    keys = tmp_path / "keys"
    keys.write_text("key-of-the-secret\n")
    keys.chmod(0o440)
    os.chown(keys, 0, UID)
    port = free_port()
    mounts = {ROOT / "deploy/kubernetes/config.toml": "/app/config.toml", keys: "/run/secrets/llmrs/keys"}
    with container.serve(mounts=mounts, PORT=str(port)) as running:
        assert all(json.loads(line) for line in running.log.splitlines() if line.startswith("{"))
        for path in ("/readyz", "/livez"):
            assert requests.get(running.url + path, timeout=10).status_code == 200
        assert ask(running, "x").status_code == 401
        assert ask(running, "x", Authorization="Bearer key-of-the-secret").status_code == 200


def test_several_processes_need_no_writable_root_either(container: Container) -> None:
    with container.serve(PORT="0", PROCESSES="2") as running:
        assert ask(running, "x").status_code == 200
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_a_wrong_setting_ends_it_with_one_line(container: Container) -> None:
    ended = container.docker_run(PORT="none")
    assert ended.returncode != 0
    assert next(line for line in ended.stderr.splitlines() if "PORT" in line).startswith("llmrs: error: ")


def test_a_model_that_is_not_in_it_is_not_looked_for(container: Container) -> None:
    ended = container.docker_run(MODEL_PATH="BAAI/bge-small-zh-v1.5")
    assert ended.returncode != 0
    assert "bge-small-zh-v1.5" in ended.stderr
    assert "Traceback" not in ended.stderr


# -- how it ends ----------------------------------------------------------------------------------


def test_terminate_ends_it_with_0_after_what_is_in_progress(container: Container) -> None:
    settings = {"BATCH_SIZE": "8", "GRACEFUL_TIMEOUT": "600", "REQUEST_TIMEOUT": "600"}
    with container.serve(PORT="0", **settings) as running:
        answers: list[requests.Response] = []
        texts = [f"word {i} " * 60 for i in range(300)]
        asking = threading.Thread(target=lambda: answers.append(ask(running, texts)))
        asking.start()
        health = f"{running.url}/health"
        wait_until(lambda: requests.get(health, timeout=5).json()["running_batches"] > 0)
        running.signal(signal.SIGTERM)
        asking.join(600)
        assert running.wait(60) == 0
        assert answers[0].status_code == 200
        assert len(answers[0].json()["data"]) == 300


def ask(running: Contained, texts: Any, **headers: str) -> requests.Response:
    return requests.post(f"{running.url}/v1/embeddings", json={"input": texts}, headers=headers, timeout=600)


def models(running: Contained) -> list[str]:
    return [model["id"] for model in requests.get(f"{running.url}/v1/models", timeout=10).json()["data"]]
