"""What is left of a service that clients ask again the moment they are answered.

A backend that answers so many texts a second, 604 unless told otherwise, and llmrs in front of it as it
comes; with `--local`, llmrs with the default model, too. Each is asked by 100 clients, which is its
capacity, and by 600 and 2,000 that ask without any pause: what it does then over its capacity is the share
that is left. All with default settings, and with `queue_seconds` so low that most are turned away.

    python bench/flood.py --output bench/results/flood.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
import services
import texts
from load import write_bodies, wrk_any

CALM_CLIENTS = 100
FLOODS = (600, 2000)
SHORT_QUEUE = "0.3"
"""Seconds: about 180 of the clients may wait, and all others are turned away."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=15, help="of each load")
    parser.add_argument("--texts-per-second", type=float, default=604, help="of the backend")
    parser.add_argument("--local", action="store_true", help="also the default model")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    rows = {}
    for service in ("backend", "local") if args.local else ("backend",):
        for queue_seconds in ("30", SHORT_QUEUE):
            with started(service, args.texts_per_second, queue_seconds) as url:
                rows[f"{service}, queue_seconds {queue_seconds}"] = measure(url, args.seconds)
    show(rows)
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/flood.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "rows": rows,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


@contextlib.contextmanager
def started(service: str, texts_per_second: float, queue_seconds: str) -> Iterator[str]:
    """The address of a service that is ready."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if service == "local":
            run = services.llmrs(folder, QUEUE_SECONDS=queue_seconds)
        else:
            backend = services.null_backend(folder, texts_per_second=texts_per_second)
            url = stack.enter_context(backend).url
            run = services.gateway(folder, url, QUEUE_SECONDS=queue_seconds)
        yield stack.enter_context(run).url


def measure(url: str, seconds: int) -> list[dict[str, float]]:
    """Vectors a second, the share of capacity, refusals a second, and how long /readyz took at worst."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = requests.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
        bodies = write_bodies(Path(folder) / "bodies", texts.make("en20", 512), model=model)
        wrk_any(url, CALM_CLIENTS, 3, bodies)
        for clients in (CALM_CLIENTS, *FLOODS):
            run = wrk_any(url, clients, seconds, bodies)
            rows.append(
                {
                    "clients": clients,
                    "vectors_per_second": round(run["good"], 1),
                    "refused_per_second": round(run["non_2xx"] / run["seconds"], 1),
                    "p99_ms": round(1e3 * run["p99"], 1),
                    "socket_errors": run["socket_errors"],
                    "share": 1.0,
                }
            )
            rows[-1]["share"] = round(rows[-1]["vectors_per_second"] / rows[0]["vectors_per_second"], 3)
            print(rows[-1], file=sys.stderr)
            time.sleep(2)
    return rows


def show(rows: dict[str, list[dict[str, float]]]) -> None:
    titles = ("", "clients", "vectors/s", "of capacity", "refused/s", "P99 ms")
    print(f"| {' | '.join(titles)} |\n|---|{'---:|' * 5}")
    for name, loads in rows.items():
        for row in loads:
            print(
                f"| {name} | {row['clients']} | {row['vectors_per_second']:.0f} | {row['share']:.0%} | "
                f"{row['refused_per_second']:.0f} | {row['p99_ms']:.0f} |"
            )


if __name__ == "__main__":
    main()
