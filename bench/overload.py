"""What is left of a service that is asked for several times what it can do.

The default service with the real model. First its maximum: requests arrive faster and faster until it
begins to refuse. Then (`full`) that rate for twenty seconds, and four times that (`flood`) for a minute:
how many vectors per second still go out (goodput), how long those took, what the others were told, how
memory went; and (`after`), five seconds after the flood, whether everything is as it was at half the
maximum. The clients share the machine's cores with the service, so what they take is measured, too.

    python bench/overload.py --output bench/results/overload.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import services
import texts
from arrivals import Arrivals, count, good

CALM = 0.5
"""Share of the maximum at which latencies are those of a service that is not overloaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of the flood")
    parser.add_argument("--factor", type=float, default=4, help="of the maximum, in the flood")
    parser.add_argument("--queue-seconds", default="30", help="of the service; 30 is its default")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        services.llmrs(folder, QUEUE_SECONDS=args.queue_seconds) as service,
    ):
        load = Arrivals(service.url, texts.make("en20", 512))
        load.run(100, 3)
        maximum = find_maximum(load)
        rows = {
            "half": measure(load, service, CALM * maximum, 20),
            "full": measure(load, service, maximum, 20),
            "flood": measure(load, service, args.factor * maximum, args.seconds),
        }
        time.sleep(5)
        rows["after"] = measure(load, service, CALM * maximum, 20)
    show(maximum, rows)
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/overload.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "maximum": round(maximum, 1),
            "rows": rows,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def find_maximum(load: Arrivals) -> float:
    """The most vectors per second that come of any rate, each tried for five seconds."""
    best, rate = 0.0, 200.0
    while True:
        outcomes = load.run(rate, 5)
        goodput = len(good(outcomes)) / max(outcome.due + outcome.seconds for outcome in outcomes)
        print(f"{rate:6.0f} requests/s: {goodput:6.0f} vectors/s  {count(outcomes)}", file=sys.stderr)
        best = max(best, goodput)
        if goodput < 0.8 * rate:
            return best
        rate *= 1.15


def measure(load: Arrivals, service: services.Service, rate: float, seconds: float) -> dict[str, Any]:
    """One row: a rate for some time."""
    cpu = time.process_time()
    outcomes = load.run(rate, seconds)
    cpu = time.process_time() - cpu
    latencies = good(outcomes)
    served = sorted(outcome.server for outcome in outcomes if outcome.status == 200)
    refusals = [outcome.retry_after for outcome in outcomes if outcome.status == 429]
    refused = [outcome.seconds for outcome in outcomes if outcome.status == 429]
    return {
        "rate": round(rate, 1),
        "goodput": round(len(latencies) / max(seconds, max(o.due + o.seconds for o in outcomes)), 1),
        "p50_ms": round(1e3 * statistics.median(latencies), 1),
        "p99_ms": round(1e3 * latencies[int(0.99 * len(latencies))], 1),
        "server_p99_ms": round(1e3 * served[int(0.99 * len(served))], 1),
        "client_cores": round(cpu / seconds, 2),
        "answers": {str(status): number for status, number in count(outcomes).items()},
        "refused_p99_ms": round(1e3 * sorted(refused)[int(0.99 * len(refused))], 1) if refused else None,
        "retry_after_s": [round(min(refusals), 2), round(max(refusals), 2)] if refusals else None,
        "memory_mb": round(services.resident_mb(service.worker_pid), 1),
    }


def show(maximum: float, rows: dict[str, dict[str, Any]]) -> None:
    print(f"maximum: {maximum:.0f} vectors/s")
    titles = ("", "arriving/s", "vectors/s", "of full", "P50 ms", "P99 ms", "P99 ms by the server")
    titles += ("cores of the clients", "answers", "memory MB")
    print(f"| {' | '.join(titles)} |\n|---|{'---:|' * 7}---|---:|")
    for name, row in rows.items():
        answers = ", ".join(f"{number} x {status}" for status, number in row["answers"].items())
        print(
            f"| {name} | {row['rate']:.0f} | {row['goodput']:.0f} | "
            f"{row['goodput'] / rows['full']['goodput']:.0%} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f} | "
            f"{row['server_p99_ms']:.0f} | {row['client_cores']} | {answers} | {row['memory_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
