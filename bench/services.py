"""The services that are measured, as processes: started, ready, measured, ended.

Every rival runs at the best settings that its documentation has for a machine like this one. They are
constants, with the reasons beside them, and stand in the results, too.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import requests

from llmrs.models.resolve import resolve

HERE = Path(__file__).parent
ROOT = HERE.parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
START_SECONDS = 120

Started = contextlib.AbstractContextManager["Service"]


class Service(NamedTuple):
    """A running service: its address, without a path, and the pid of its first process."""

    url: str
    pid: int

    @property
    def worker_pid(self) -> int:
        """The first child, which is the worker of a gunicorn."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])


def model_folder() -> str:
    """Where the model's files are; the rivals get the same."""
    return str(resolve(MODEL, offline=True))


@contextlib.contextmanager
def start(
    command: list[str],
    port: int,
    folder: str,
    *,
    health: str = "/health",
    core: int | None = None,
    **env: str,
) -> Iterator[Service]:
    """Run a service until the block ends, on one core if given; the block begins when it is ready.

    It runs in `folder`, where it may leave what it likes.
    """
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    log = Path(folder) / f"{port}.log"
    environ = {**os.environ, "NO_PROXY": "127.0.0.1", **env}  # a gateway reaches its backend directly
    with log.open("wb") as sink:
        process = subprocess.Popen([*pinned, *command], cwd=folder, stdout=sink, stderr=sink, env=environ)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + START_SECONDS
        while not _answers(url + health):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{shlex.join(command)} did not get ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield Service(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).status_code == 200
    return False


def llmrs(folder: str, *, core: int | None = None, **env: str) -> Started:
    """llmrs as it comes."""
    port = free_port()
    command = [sys.executable, "-m", "llmrs", "serve", "--port", str(port)]
    return start(command, port, folder, core=core, **env)


FASTAPI = "uvicorn, one process; plain def endpoint; float32"
"""More processes would share the same cores and each hold a model; an `async def` would block the loop."""


def fastapi(folder: str) -> Started:
    """The usual service around sentence-transformers: bench/fastapi_service.py."""
    port = free_port()
    command = [venv("fastapi"), "-m", "uvicorn", "--app-dir", str(HERE), "fastapi_service:app"]
    arguments = ["--log-level", "warning", "--port", str(port)]
    return start([*command, *arguments], port, folder, MODEL_PATH=model_folder(), HF_HUB_OFFLINE="1")


INFINITY = (
    # Its torch engine is the one that computes in bf16 on a CPU, about twice as fast as fp32. Its ONNX
    # engine needs a model.onnx, which this model's folder has not. BetterTransformer is gone from
    # optimum 2; with optimum 1.27 it was no faster in bf16. --compile takes minutes, for each shape.
    # 32 texts a batch is the default, and what llmrs and sentence-transformers take, too.
    "--engine torch --device cpu --dtype bfloat16 --no-bettertransformer --no-compile --batch-size 32 "
    "--url-prefix /v1 --log-level warning"
)


def infinity(folder: str) -> Started:
    """Infinity, at what its documentation recommends for a CPU."""
    port = free_port()
    command = [script("infinity", "infinity_emb"), "v2", *INFINITY.split()]
    model = ["--model-id", model_folder(), "--served-model-name", "all-MiniLM-L6-v2"]
    silent = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return start([*command, *model, "--port", str(port)], port, folder, **silent)


LITELLM = "--host 127.0.0.1 --num_workers 1 --telemetry False"
LITELLM_ENV = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
LITELLM_CONFIG = """
model_list:
  - model_name: "null"
    litellm_params: {model: openai/null, api_base: "BACKEND/v1", api_key: none}
litellm_settings: {set_verbose: false, drop_params: true, request_timeout: 60}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""
"""From its page on production: no verbose logs, no .env file, one worker for one core. No database, no
cache, no callbacks and no keys to check, all of which would only cost it time; llmrs checks none either."""


def litellm(folder: str, backend: str, *, core: int) -> Started:
    """LiteLLM's proxy in front of an OpenAI-shaped backend."""
    port = free_port()
    config = Path(folder) / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.replace("BACKEND", backend))
    command = [script("litellm", "litellm"), "--config", str(config), *LITELLM.split(), "--port", str(port)]
    return start(command, port, folder, health="/health/liveliness", core=core, **LITELLM_ENV)


GATEWAY = {"BACKEND_TYPE": "proxy", "BACKEND_PROTOCOL": "openai", "MODEL_NAME": "null"}
"""llmrs as a gateway; all else as it comes."""


def gateway(folder: str, backend: str, *, core: int | None = None, **env: str) -> Started:
    """llmrs in front of an OpenAI-shaped backend."""
    return llmrs(folder, core=core, BACKEND_URL=backend, **GATEWAY, **env)


def null_backend(folder: str, *, core: int | None = None, texts_per_second: float | None = None) -> Started:
    """An OpenAI-shaped backend that answers at once, or at a pace: bench/null_backend.py."""
    port = free_port()
    pace = [] if texts_per_second is None else [str(texts_per_second)]
    return start([sys.executable, str(HERE / "null_backend.py"), str(port), *pace], port, folder, core=core)


def null_service(folder: str, *, core: int) -> Started:
    """llmrs around a model that computes nothing: bench/null_service.py."""
    port = free_port()
    command = [sys.executable, str(HERE / "null_service.py"), "--port", str(port)]
    return start(command, port, folder, core=core)


def venv(name: str) -> str:
    """The interpreter of a rival's environment, which `make bench` makes."""
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python.relative_to(ROOT)} is missing; `make bench` makes it")
    return str(python)


def script(name: str, command: str) -> str:
    """A command of a rival's environment."""
    return str(Path(venv(name)).with_name(command))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from processes(int(child))


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its children: shared pages are counted once."""
    total = 0.0
    for each in processes(pid):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def resident_mb(pid: int) -> float:
    """Resident set size of one process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(running: Iterable[Service], *, window: float = 0.5, limit: float = 60) -> None:
    """Wait until no service computes.

    wrk ends in the middle of requests. A service that does not notice computes them all the same, for
    seconds, and would take that time from the one that is loaded next.
    """
    pids = [pid for service in running for pid in processes(service.pid)]
    until = time.monotonic() + limit
    while time.monotonic() < until:
        before = sum(map(cpu_seconds, pids))
        time.sleep(window)
        if sum(map(cpu_seconds, pids)) - before < 0.1 * window:
            return
    sys.exit(f"a service still computes {limit:.0f} seconds after its load ended")


def machine() -> str:
    """Cores, CPU and what of it matters here."""
    info = Path("/proc/cpuinfo").read_text()
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = set(fields.get("flags", "").split())
    named = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}
    best = next((name for flag, name in named.items() if flag in flags), platform.machine())
    amx = "" if "amx_bf16" in flags else ", no AMX"
    name = fields.get("model name", platform.machine())
    return f"{os.cpu_count()} cores, {name} ({best}{amx}), {platform.system()}"
