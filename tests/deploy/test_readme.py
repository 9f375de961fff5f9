"""The deployment commands of both READMEs: those of docker are run, in the containers of these tests."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import requests

from llmrs.models.resolve import DEFAULT_MODEL, resolve
from tests.deploy.container import Container
from tests.deploy.files import documents
from tests.models.hub_server import HubServer
from tests.processes import ROOT, free_port

READMES = ["README.md", "README-ZH.md"]


def commands(readme: str, program: str) -> list[list[str]]:
    """The words of every command of a README that begins with `program`."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


class DockerRun:
    """What a line `docker run ...` asks for. Fails on a flag that it does not know."""

    def __init__(self, line: list[str]) -> None:
        self.ports: list[str] = []
        self.env: dict[str, str] = {}
        self.volumes: dict[str, str] = {}
        words = iter(line[2:])
        for word in words:
            if word == "-p":
                self.ports.append(next(words))
            elif word == "-e":
                name, _, value = next(words).partition("=")
                self.env[name] = value
            elif word == "-v":
                outside, inside = next(words).split(":")[:2]
                self.volumes[outside] = inside
            elif not word.startswith("-"):
                break
            else:
                assert word in ("--rm", "--read-only"), word
        assert word == "llmrs", "the image"
        self.arguments = list(words)


def run_lines() -> list[list[str]]:
    english, chinese = (commands(readme, "docker run") for readme in READMES)
    assert english == chinese
    assert len(english) >= 4
    return english


@pytest.mark.parametrize("line", run_lines(), ids=" ".join)
def test_every_docker_run_line_works(line: list[str], container: Container, tmp_path: Path) -> None:
    asked = DockerRun(line)
    if asked.arguments:
        assert container.docker_run(*asked.arguments, **asked.env).returncode == 0
        return
    port = free_port()
    assert asked.ports == ["3000:3000"]
    mounts = {outside(name, tmp_path): inside for name, inside in asked.volumes.items()}
    model = asked.env.get("MODEL_PATH", "")
    with HubServer(resolve(DEFAULT_MODEL, offline=True), model) as server:
        # Nothing but a hub of our own can be reached, and the port is a free one.
        settings = asked.env | {"PORT": str(port), "HF_ENDPOINT": server.address}
        with container.serve(mounts=mounts, **settings) as running:
            key = asked.env.get("API_KEY", "any")
            answer = requests.post(
                f"{running.url}/v1/embeddings", json={"input": "x"}, timeout=60,
                headers={"Authorization": f"Bearer {key}"},
            )  # fmt: skip
            assert answer.status_code == 200
            assert answer.json()["model"] == (model.rsplit("/", 1)[-1] or "all-MiniLM-L6-v2")
        assert bool(server.requests) == bool(model)


def outside(name: str, tmp_path: Path) -> Path:
    """What is mounted: a file of the repository, or a volume, which is its user's as docker makes it."""
    if name.startswith("."):
        copy = tmp_path / Path(name).name
        shutil.copyfile(ROOT / name, copy)
        copy.chmod(0o644)
        return copy
    volume = tmp_path / name
    volume.mkdir()
    os.chown(volume, 10001, 10001)
    return volume


@pytest.mark.parametrize("readme", READMES)
def test_the_other_commands_name_what_there_is(readme: str) -> None:
    assert commands(readme, "docker build") == [["docker", "build", "-t", "llmrs", "."]]
    (compose,) = commands(readme, "docker compose")
    assert compose[2] == "-f"
    assert documents(str(Path(compose[3]).relative_to("deploy")))[0]["services"]
    (openssl,) = commands(readme, "openssl")
    (kubectl,) = commands(readme, "kubectl")
    folder = Path(kubectl[-1])
    secrets = documents(f"{folder.relative_to('deploy')}/kustomization.yaml")[0]["secretGenerator"]
    assert openssl[-2:] == [">", str(folder / secrets[0]["files"][0])]


def test_the_files_own_instructions_name_what_there_is() -> None:
    """In their opening comments; of the unit's, what is installed from the repository."""
    for name in ("docker-compose.yml", "kubernetes/kustomization.yaml", "llmrs.service"):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        said = [shlex.split(line) for line in re.findall(r"^#     (\S.*)$", text, re.MULTILINE)]
        assert said, name
        for command in said:
            for word in command:
                if word.startswith(("deploy/", "requirements", "config.")) and not word.endswith("/keys"):
                    assert (ROOT / word).exists(), word
