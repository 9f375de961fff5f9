"""What grows and what does not: CPU per request with the connections, memory with the requests.

Connections: llmrs around a null engine on core 0, wrk on core 1; the CPU that the worker process used,
user and system, over the requests that it answered. Memory: the default service with the real model
under one-text requests of 1 to 60 words, its resident set after every round.

    python bench/scaling.py --output bench/results/scaling.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shlex
import sys
import tempfile
from pathlib import Path

import services
import texts
from load import write_bodies, wrk
from services import cpu_seconds, resident_mb

CONNECTIONS = (1, 8, 64, 256, 1000)
SERVICE, REST = 0, 1  # cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of load at each number of connections")
    parser.add_argument("--requests", type=int, default=200_000, help="of the memory run")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies.txt"
        write_bodies(bodies, [" ".join(texts.EN[:10])], model="null", encoding_format="base64")
        connections = scale_connections(folder, bodies, args.seconds)
        write_bodies(bodies, mixed_texts(), encoding_format="base64")
        memory = watch_memory(folder, bodies, args.requests)
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/scaling.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "connections": connections,
            "memory": memory,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def mixed_texts(count: int = 5000) -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(texts.EN, k=int(2 ** rng.uniform(0, 5.9)))) for _ in range(count)]


def scale_connections(folder: str, bodies: Path, seconds: int) -> list[dict[str, float]]:
    """Up and down again, so that a drift of the machine does not look like a slope."""
    rows: dict[int, list[dict[str, float]]] = {}
    with services.null_service(folder, core=SERVICE) as service:
        url, pid = service.url, service.worker_pid
        wrk(url, 64, 2, bodies, core=REST)
        for clients in (*CONNECTIONS, *reversed(CONNECTIONS)):
            before = cpu_seconds(pid)
            run = wrk(url, clients, seconds, bodies, core=REST)
            cpu = (cpu_seconds(pid) - before) / run["requests"] * 1e6
            row = {"rps": run["rps"], "cpu_us": cpu, "p99_ms": run["p99"] * 1e3, "rss_mb": resident_mb(pid)}
            rows.setdefault(clients, []).append(row)
    means = [
        {"connections": clients} | {key: sum(row[key] for row in pair) / len(pair) for key in pair[0]}
        for clients, pair in rows.items()
    ]
    for row in means:
        print(
            f"{row['connections']:5.0f} connections {row['rps']:8.0f} requests/s {row['cpu_us']:6.1f} us CPU "
            f"P99 {row['p99_ms']:6.1f} ms  {row['rss_mb']:5.0f} MB"
        )
    return means


def watch_memory(folder: str, bodies: Path, requests: int) -> list[dict[str, float]]:
    rows = []
    done = 0.0
    with services.llmrs(folder) as service:
        url, worker = service.url, service.worker_pid
        while done < requests:
            rows.append({"requests": done, "rss_mb": resident_mb(worker)})
            print(f"{done:9,.0f} requests {rows[-1]['rss_mb']:6.1f} MB", flush=True)
            done += wrk(url, 64, 20, bodies)["requests"]
        rows.append({"requests": done, "rss_mb": resident_mb(worker)})
        print(f"{done:9,.0f} requests {rows[-1]['rss_mb']:6.1f} MB")
    return rows


if __name__ == "__main__":
    main()
