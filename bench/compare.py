"""llmrs against a FastAPI + sentence-transformers service: same model, same texts, same machine.

Both services are started, asked for the same texts and compared (a fast wrong answer is none).
Then wrk loads one while the other is idle, turn by turn, so that a machine whose speed drifts
drifts for both. Figures are medians over the turns; minimum and maximum latency are the extremes.
Prints the table, and writes it with machine, versions, date and command to --output.

    python bench/compare.py --fastapi-python .venv-bench/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import texts

from llmrs.models.resolve import resolve

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
ROWS = (  # name, key, unit, factor, digits
    ("Average latency", "mean", "ms", 1e3, 1),
    ("P95 latency", "p95", "ms", 1e3, 1),
    ("P99 latency", "p99", "ms", 1e3, 1),
    ("Min latency", "min", "ms", 1e3, 1),
    ("Max latency", "max", "ms", 1e3, 1),
    ("Requests per second", "rps", "", 1, 1),
    ("Total requests", "requests", "", 1, 0),
    ("Memory", "memory_mb", "MB", 1, 0),
)


def main() -> None:
    args = parse_args()
    model = str(resolve(MODEL, offline=True))
    bodies = [
        json.dumps({"model": "all-MiniLM-L6-v2", "input": text}, ensure_ascii=False)
        for text in texts.make(args.texts)
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        body_file = Path(folder) / "bodies.txt"
        body_file.write_text("\n".join(bodies), encoding="utf-8")
        services = {
            "fastapi": stack.enter_context(fastapi_service(args.fastapi_python, model, folder)),
            "llmrs": stack.enter_context(llmrs_service(folder)),
        }
        check_same_vectors(services, texts.make(args.texts)[:20])
        runs = measure(services, args, body_file)
    report(summarise(runs), args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fastapi-python", required=True, help="interpreter with bench/requirements.txt")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=15, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--texts", choices=texts.KINDS, default="zh30")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "fastapi.json")
    return parser.parse_args()


@contextlib.contextmanager
def service(command: list[str], port: int, folder: str, **env: str) -> Iterator[tuple[str, int]]:
    """A service as a process of its own, ready; gives its address and pid, and ends it."""
    log = Path(folder) / f"{port}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, **env})
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            if process.poll() is not None:
                sys.exit(f"{shlex.join(command)} ended:\n{log.read_text()}")
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def fastapi_service(python: str, model: str, folder: str) -> Any:
    port = free_port()
    command = [
        python,
        "-m",
        "uvicorn",
        "--app-dir",
        str(HERE),
        "fastapi_service:app",
        "--log-level",
        "warning",
    ]
    return service([*command, "--port", str(port)], port, folder, MODEL_PATH=model)


def llmrs_service(folder: str) -> Any:
    port = free_port()
    return service([sys.executable, "-m", "llmrs", "serve", "--port", str(port)], port, folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_same_vectors(services: dict[str, tuple[str, int]], sample: list[str]) -> None:
    answers = []
    for url, _ in services.values():
        answer = requests.post(f"{url}/v1/embeddings", json={"input": sample}, timeout=60).json()
        answers.append(np.array([row["embedding"] for row in answer["data"]]))
    cosine = (answers[0] * answers[1]).sum(1).min()
    if not cosine > 0.999:
        sys.exit(f"the services give different vectors (cosine {cosine:.5f}): nothing to compare")


def measure(
    services: dict[str, tuple[str, int]], args: argparse.Namespace, bodies: Path
) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in services}
    for url, _ in services.values():
        wrk(url, args.clients, 3, bodies)  # warm-up
    for turn in range(args.turns):
        for name, (url, pid) in services.items():
            run = wrk(url, args.clients, args.seconds, bodies)
            run["memory_mb"] = memory_mb(pid)
            runs[name].append(run)
            print(f"turn {turn + 1}: {name:8} {run['rps']:8.1f} requests/s", file=sys.stderr)
    return runs


def wrk(url: str, clients: int, seconds: int, bodies: Path) -> dict[str, float]:
    """One load run; no think time, one text per request, every answer must be 200."""
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(HERE / "embeddings.lua"),
    ]
    output = subprocess.run(
        [*command, f"{url}/v1/embeddings", "--", str(bodies)],
        check=True, capture_output=True, text=True, timeout=seconds + 60,
    ).stdout  # fmt: skip
    run: dict[str, float] = json.loads(output.split("JSON ", 1)[1])
    if run["non_2xx"] or run["socket_errors"]:
        sys.exit(f"not every answer was good: {run}")
    run["rps"] = run["requests"] / run["seconds"]
    return run


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its children: shared pages are counted once."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return own / 1024 + sum(memory_mb(int(child)) for child in children)


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    extremes = {"min": min, "max": max, "requests": sum, "memory_mb": max}
    return {
        name: {
            key: float(extremes.get(key, statistics.median)([turn[key] for turn in turns]))
            for _, key, *_ in ROWS
        }
        for name, turns in runs.items()
    }


def report(results: dict[str, dict[str, float]], args: argparse.Namespace) -> None:
    document = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "bench/compare.py", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {cpu_name()}, {platform.system()}",
        "versions": {"python": platform.python_version(), **versions(args.fastapi_python)},
        "model": MODEL,
        "clients": args.clients,
        "texts": texts.KINDS[args.texts],
        "seconds": args.seconds * args.turns,
        "results": results,
        "table": table(results),
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(table(results)))


def table(results: dict[str, dict[str, float]]) -> list[str]:
    """The rows of the comparison, in Markdown."""
    lines = ["| | FastAPI + sentence-transformers | llmrs | |", "|---|---:|---:|---:|"]
    for name, key, unit, factor, digits in ROWS:
        theirs, ours = results["fastapi"][key] * factor, results["llmrs"][key] * factor
        ratio = ours / theirs
        change = f"x{ratio:.1f}" if ratio > 2 else f"{(ratio - 1) * 100:+.0f} %"
        cells = [f"{value:,.{digits}f} {unit}".strip() for value in (theirs, ours)]
        lines.append(f"| {name} | {cells[0]} | **{cells[1]}** | {change} |")
    return lines


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def versions(fastapi_python: str) -> dict[str, str]:
    script = (
        "import sys, json, importlib.metadata as m; "
        "print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    )
    found: dict[str, str] = {}
    for python, packages in (
        (fastapi_python, ["fastapi", "uvicorn", "sentence-transformers", "torch"]),
        (sys.executable, ["llmrs", "openvino", "gunicorn", "gevent", "falcon"]),
    ):
        found |= json.loads(subprocess.check_output([python, "-c", script, *packages], text=True))
    return found


if __name__ == "__main__":
    main()
