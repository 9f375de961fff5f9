"""What several processes bring and cost: the default service with one, two and four of them.

One text of about 20 tokens a request, over wrk's connections, turn by turn, so that a machine whose speed
drifts drifts for all. Where the model takes nearly all of the cores, as on two of them, more processes
bring nothing but their memory; the gateway's rows, before a backend that answers at once, show what HTTP
alone gains.

    python bench/processes.py --output bench/results/processes.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import services
import texts
from load import write_bodies, wrk

COUNTS = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64, help="connections of wrk")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        local = measure(folder, args, "all-MiniLM-L6-v2")
        with services.null_backend(folder, core=1) as backend:
            gateway = measure(folder, args, "null", BACKEND_URL=backend.url, **services.GATEWAY)
    results = {"local model": local, "gateway": gateway}
    print("| | processes | requests/s | P99 ms | memory MB |\n|---|---:|---:|---:|---:|")
    for name, rows in results.items():
        for row in rows:
            cells = f"{row['processes']} | {row['rps']:.0f} | {row['p99_ms']:.1f} | {row['memory_mb']:.0f}"
            print(f"| {name} | {cells} |")
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/processes.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "results": results,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def measure(folder: str, args: argparse.Namespace, model: str, **env: str) -> list[dict[str, Any]]:
    """A row for each number of processes."""
    bodies = Path(folder) / "bodies.txt"
    write_bodies(bodies, texts.make("en20"), model=model, encoding_format="base64")
    turns: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    with contextlib.ExitStack() as stack:
        running = {
            count: stack.enter_context(services.llmrs(folder, PROCESSES=str(count), **env))
            for count in COUNTS
        }
        for _ in range(args.turns):
            for count, service in running.items():
                turns[count].append(wrk(service.url, args.clients, args.seconds, bodies))
                services.settle(running.values())
        return [
            {
                "processes": count,
                "rps": round(statistics.median(turn["rps"] for turn in turns[count]), 1),
                "p99_ms": round(1e3 * statistics.median(turn["p99"] for turn in turns[count]), 1),
                "memory_mb": round(services.memory_mb(service.pid), 1),
            }
            for count, service in running.items()
        ]


if __name__ == "__main__":
    main()
