"""How much of its engine's speed the service delivers: texts/s over HTTP against the engine alone.

The same texts go through the engine in this process, in batches, and through a running service, in
turns, so that a machine whose speed drifts drifts for both. wrk loads the service twice: 64 clients
with one text per request, and 4 clients with 32. What is missing to 1 is the HTTP layer, tokenizing
and wrk itself, all on the same cores. Also compares the median of one client's one-text requests with
the engine's own time for such a text.

    python bench/served.py --output bench/results/served.json
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import services
import texts
from load import write_bodies, wrk

from llmrs.backends.local import LocalBackend

BATCH = 32
SHAPES = {"one": (64, 1), "many": (4, 32)}
"""Clients, and texts per request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=8, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--texts", choices=texts.KINDS, default="en20")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        engine_alone(args)
        return
    with tempfile.TemporaryDirectory() as folder, services.llmrs(folder) as (url, _):
        made = texts.make(args.texts)
        bodies = {
            name: write_bodies(
                Path(folder) / name,
                [made[start : start + n] for start in range(0, len(made) - n + 1, n)],
                encoding_format="base64",
            )
            for name, (_, n) in SHAPES.items()
        }
        alone: list[dict[str, float]] = []
        served: dict[str, list[float]] = {name: [] for name in SHAPES}
        single: list[float] = []
        for turn in range(args.turns + 1):  # the first only warms up
            alone.append(run_engine(args))
            for name, (clients, n_texts) in SHAPES.items():
                served[name].append(n_texts * wrk(url, clients, args.seconds, bodies[name])["rps"])
            single.append(wrk(url, 1, args.seconds // 2, bodies["one"])["p50"])
            figures = " ".join(f"{name} {rates[-1]:.0f}" for name, rates in served.items())
            print(f"turn {turn}: engine {alone[-1]['texts']:.0f} texts/s, served {figures}", file=sys.stderr)
    rate = statistics.median(run["texts"] for run in alone[1:])
    results: dict[str, object] = {"engine_texts_per_s": rate}
    for name, (clients, n_texts) in SHAPES.items():
        ours = statistics.median(served[name][1:])
        results[name] = {
            "clients": clients,
            "texts_per_request": n_texts,
            "texts_per_s": ours,
            "ratio": ours / rate,
        }
        print(f"{clients} clients x {n_texts} texts: {ours:.0f} of {rate:.0f} texts/s = {ours / rate:.3f}")
    mine, theirs = (statistics.median(values[1:]) for values in (single, [run["single"] for run in alone]))
    results["single"] = {"served_ms": mine * 1e3, "engine_ms": theirs * 1e3, "ratio": mine / theirs}
    print(f"one client: P50 {mine * 1e3:.2f} ms, engine {theirs * 1e3:.2f} ms = x{mine / theirs:.2f}")
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/served.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "texts": texts.KINDS[args.texts],
            "results": results,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def run_engine(args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own, which is gone while the service is measured."""
    command = [sys.executable, __file__, "--engine", "--seconds", str(args.seconds), "--texts", args.texts]
    figures: dict[str, float] = json.loads(subprocess.check_output(command))
    return figures


def engine_alone(args: argparse.Namespace) -> None:
    backend = LocalBackend()
    prepared = backend.prepare(texts.make(args.texts))
    batches = [prepared[start : start + BATCH] for start in range(0, len(prepared) - BATCH, BATCH)]
    slots = backend.limits.slots
    for batch in batches[:3]:
        backend.embed(batch, timeout=60)
    began = time.perf_counter()

    def compute(slot: int) -> int:
        done = 0
        for batch in itertools.cycle(batches[slot::slots]):
            done += len(backend.embed(batch, timeout=60).matrix)
            if time.perf_counter() - began > args.seconds:
                break
        return done

    with ThreadPoolExecutor(slots) as threads:
        rate = sum(threads.map(compute, range(slots))) / (time.perf_counter() - began)
    times = []
    for text in prepared[:200]:
        began = time.perf_counter()
        backend.embed([text], timeout=60)
        times.append(time.perf_counter() - began)
    print(json.dumps({"texts": rate, "single": statistics.median(times)}))


if __name__ == "__main__":
    main()
