"""llmrs against a FastAPI + sentence-transformers service and Infinity: same model, texts, machine.

All services are started, asked for the same texts and compared (a fast wrong answer is none). Then wrk
loads one while the others are idle, turn by turn, so that a machine whose speed drifts drifts for all.
Figures are medians over the turns; minimum and maximum latency are the extremes, requests the sum;
rps_turns shows how far the turns differ.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import services
import texts
from load import write_bodies, wrk
from report import HEADLINE
from services import Service, memory_mb

CLIENTS = (20, 50, 70)
LONGER = {"en200": 1.5}
"""Turns for texts that take long: else a service would answer each client once or twice."""

PACKAGES = {
    "llmrs": ["llmrs", "openvino", "gunicorn", "gevent", "falcon"],
    "fastapi": ["fastapi", "uvicorn", "sentence-transformers", "torch"],
    "infinity": ["infinity-emb", "torch"],
}

SETTINGS = {"fastapi": services.FASTAPI, "infinity": services.INFINITY, "llmrs": "as it comes"}

Runs = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=int, default=6, help="of load in one turn; more for the headline and for long texts"
    )
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        running = {
            "fastapi": stack.enter_context(services.fastapi(folder)),
            "infinity": stack.enter_context(services.infinity(folder)),
            "llmrs": stack.enter_context(services.llmrs(folder)),
        }
        cells = [
            cell for kind in texts.KINDS for cell in measure_kind(running, kind, args.seconds, args.turns)
        ]
    document = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "bench/compare.py", *sys.argv[1:]]),
        "machine": services.machine(),
        "versions": {name: versions(name, packages) for name, packages in PACKAGES.items()},
        "settings": SETTINGS,
        "model": services.MODEL,
        "texts": texts.KINDS,
        "cells": cells,
    }
    args.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measure_kind(
    running: dict[str, Service], kind: str, seconds: int, turns: int
) -> Iterator[dict[str, Any]]:
    """The cells of one kind of text. That of the README's table gets longer turns, and one more."""
    made = texts.make(kind)
    check_same_vectors(running, made[:20])
    with tempfile.NamedTemporaryFile() as file:
        bodies = write_bodies(Path(file.name), made)
        measure(running, CLIENTS[0], seconds, 1, bodies)  # warm-up
        for clients in CLIENTS:
            headline = (kind, clients) == HEADLINE
            length = round(seconds * (2.5 if headline else LONGER.get(kind, 1.0)))
            runs = measure(running, clients, length, turns + headline, bodies)
            results = summarise(runs)
            rates = ", ".join(f"{name} {row['rps']:.0f}" for name, row in results.items())
            print(f"{kind}, {clients} clients: {rates} requests/s", file=sys.stderr)
            yield {
                "texts": kind,
                "clients": clients,
                "seconds": length * (turns + headline),
                "results": results,
            }


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
            services.settle(running.values())
            run = wrk(url, clients, seconds, bodies)
            runs[name].append(run | {"memory_mb": memory_mb(pid)})
    return runs


def summarise(runs: Runs) -> dict[str, dict[str, Any]]:
    how = {"min": min, "max": max, "requests": sum, "memory_mb": max}
    keys = ("mean", "p50", "p95", "p99", "min", "max", "rps", "requests", "memory_mb")
    return {
        name: {key: float(how.get(key, statistics.median)([turn[key] for turn in turns])) for key in keys}
        | {"rps_turns": [round(turn["rps"], 1) for turn in turns]}
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
