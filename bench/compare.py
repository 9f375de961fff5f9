"""llmrs against a FastAPI + sentence-transformers service and Infinity: same model, texts, machine.

All services are started, asked for the same texts and compared (a fast wrong answer is none). Then wrk
loads one while the others are idle, turn by turn, so that a machine whose speed drifts drifts for all.
Figures are medians over the turns; minimum and maximum latency are the extremes, requests the sum.

    python bench/compare.py --output bench/results/comparison.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import requests
import services
import texts
from load import write_bodies, wrk
from services import Service, memory_mb

CLIENTS = (20, 50, 70)
HEADLINE = ("zh30", 50)
"""The cell of the table in the README: it gets longer turns, and one more."""

PACKAGES = {
    "llmrs": ["llmrs", "openvino", "gunicorn", "gevent", "falcon"],
    "fastapi": ["fastapi", "uvicorn", "sentence-transformers", "torch"],
    "infinity": ["infinity-emb", "torch"],
}

Runs = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=int, default=6, help="of load in one turn; the headline has 2.5 times as many"
    )
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    cells = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        running = {
            "fastapi": stack.enter_context(services.fastapi(folder)),
            "infinity": stack.enter_context(services.infinity(folder)),
            "llmrs": stack.enter_context(services.llmrs(folder)),
        }
        for kind in texts.KINDS:
            made = texts.make(kind)
            check_same_vectors(running, made[:20])
            bodies = write_bodies(Path(folder) / kind, made)
            for service in running.values():
                wrk(service.url, 20, 3, bodies)  # warm-up
            for clients in CLIENTS:
                headline = (kind, clients) == HEADLINE
                seconds, turns = (
                    (args.seconds * 5 // 2, args.turns + 1) if headline else (args.seconds, args.turns)
                )
                runs = measure(running, clients, seconds, turns, bodies)
                cells.append(
                    {
                        "texts": kind,
                        "clients": clients,
                        "seconds": seconds * turns,
                        "results": summarise(runs),
                    }
                )
                rates = ", ".join(f"{name} {cells[-1]['results'][name]['rps']:.0f}" for name in running)
                print(f"{kind}, {clients} clients: {rates} requests/s", file=sys.stderr)
    document = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "bench/compare.py", *sys.argv[1:]]),
        "machine": services.machine(),
        "versions": {name: versions(name, packages) for name, packages in PACKAGES.items()},
        "settings": {"infinity": services.INFINITY},
        "model": services.MODEL,
        "texts": texts.KINDS,
        "cells": cells,
    }
    args.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same_vectors(running: dict[str, Service], sample: list[str]) -> None:
    matrices = {}
    for name, service in running.items():
        body = {"model": "all-MiniLM-L6-v2", "input": sample}
        answer = requests.post(f"{service.url}/v1/embeddings", json=body, timeout=60).json()
        matrices[name] = np.array([row["embedding"] for row in answer["data"]])
    for name, matrix in matrices.items():
        cosine = (matrix * matrices["fastapi"]).sum(1).min()
        if not cosine > 0.999:
            sys.exit(f"{name} gives other vectors (cosine {cosine:.5f}): nothing to compare")


def measure(running: dict[str, Service], clients: int, seconds: int, turns: int, bodies: Path) -> Runs:
    runs: Runs = {name: [] for name in running}
    for _ in range(turns):
        for name, (url, pid) in running.items():
            run = wrk(url, clients, seconds, bodies)
            runs[name].append(run | {"memory_mb": memory_mb(pid)})
    return runs


def summarise(runs: Runs) -> dict[str, dict[str, float]]:
    how = {"min": min, "max": max, "requests": sum, "memory_mb": max}
    keys = ("mean", "p50", "p95", "p99", "min", "max", "rps", "requests", "memory_mb")
    return {
        name: {key: float(how.get(key, statistics.median)([turn[key] for turn in turns])) for key in keys}
        for name, turns in runs.items()
    }


def versions(name: str, packages: list[str]) -> dict[str, str]:
    """Of a service's interpreter and the packages in it that matter."""
    script = (
        "import sys, json, platform, importlib.metadata as m; "
        "print(json.dumps({'python': platform.python_version()} | {p: m.version(p) for p in sys.argv[1:]}))"
    )
    python = sys.executable if name == "llmrs" else services.venv(name)
    found: dict[str, str] = json.loads(subprocess.check_output([python, "-c", script, *packages], text=True))
    return found


if __name__ == "__main__":
    main()
