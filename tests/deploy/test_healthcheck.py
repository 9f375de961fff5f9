"""The image's health check, outside of the image: it asks where the configuration says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, clean_environment, free_port, llmrs


def check(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deploy/healthcheck.py")], capture_output=True, text=True, timeout=60,
        cwd=folder, env=clean_environment(**env),
    )  # fmt: skip


def test_it_asks_on_a_unix_socket(tmp_path: Path) -> None:
    host = f"unix:{tmp_path}/http.sock"
    assert check(tmp_path, HOST=host).returncode == 1
    with llmrs(command=[sys.executable, "-m", "llmrs", "serve"], HOST=host):
        done = check(tmp_path, HOST=host)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_goes_by_the_configuration_file_and_says_why_not(tmp_path: Path) -> None:
    backend = f"http://127.0.0.1:{free_port()}"
    with llmrs(BACKEND_URL=backend, BACKEND_PROTOCOL="openai", MODEL_NAME="m") as server:
        (tmp_path / "config.toml").write_text(f'host = "0.0.0.0"\nport = {server.port}\n')
        done = check(tmp_path)
        assert (done.returncode, done.stderr[:5]) == (1, "503: ")
    done = check(tmp_path)
    assert (done.returncode, done.stderr[:11]) == (1, "no answer: ")


def test_it_does_not_say_yes_for_what_is_configured_wrongly(tmp_path: Path) -> None:
    assert check(tmp_path, PORT="none").returncode != 0
