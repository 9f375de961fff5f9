"""What clients see when the service is told to stop (TERM) under load.

The default service with the real model, at about half of what it can do, from clients that do not wait for
each other. Each stop counts what became of the requests that were due around it: answered, told to come
back later, refused at the door because nobody listened any more, or lost.

    python bench/stop.py --output bench/results/stop.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import services
import texts
from arrivals import REFUSED, Arrivals

NAMES = {200: "answered", 503: "503 with Retry-After", REFUSED: "refused"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--rate", type=float, default=250, help="requests a second")
    parser.add_argument("--processes", default="1", help="of the service")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    total: Counter[str] = Counter()
    seconds: list[float] = []
    for number in range(args.stops):
        with tempfile.TemporaryDirectory() as folder:
            seen, took = stop(folder, args)
        print(f"stop {number + 1}: {took:.2f} s, {dict(seen)}", file=sys.stderr)
        total += seen
        seconds.append(took)
    print(f"{args.stops} stops: {dict(total)}; ended after {min(seconds):.2f} to {max(seconds):.2f} s")
    if args.output:
        document: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/stop.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "requests": total,
            "seconds": [round(took, 2) for took in seconds],
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def stop(folder: str, args: argparse.Namespace) -> tuple[Counter[str], float]:
    """One stop: what became of the requests, and the seconds until the process had ended."""
    with services.llmrs(folder, PROCESSES=args.processes) as service:
        load = Arrivals(service.url, texts.make("en20", 256))
        load.run(args.rate, 1)
        requests = gevent.spawn(load.run, args.rate, 3)
        gevent.sleep(1)
        os.kill(service.pid, signal.SIGTERM)
        told = time.monotonic()
        while Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().strip():
            gevent.sleep(0.01)
        took = time.monotonic() - told
        outcomes = requests.get()
    names = (NAMES.get(each.status, "lost") for each in outcomes if each.status != 503 or each.retry_after)
    return Counter(names), took


if __name__ == "__main__":
    main()
