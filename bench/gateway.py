"""llmrs as a gateway against LiteLLM's proxy, each before a backend that costs nothing.

The gateway has core 0; the backend and wrk share core 1. Throughput is of 64 clients with one text per
request; added latency is the median of one client through the gateway, less its median without.

    python bench/gateway.py --output bench/results/gateway.json
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

import services
import texts
from compare import versions
from load import write_bodies, wrk

GATEWAY, REST = 0, 1  # cores
CLIENTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=6, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        inputs = texts.make("en20")
        bodies = write_bodies(Path(folder) / "bodies", inputs, model="null", encoding_format="base64")
        backend = stack.enter_context(services.null_backend(folder, core=REST))
        env = {"BACKEND_TYPE": "proxy", "BACKEND_URL": backend.url, "MODEL_NAME": "null"}
        ours = services.llmrs(folder, core=GATEWAY, BACKEND_PROTOCOL="openai", **env)
        running = {
            "llmrs": stack.enter_context(ours),
            "litellm": stack.enter_context(services.litellm(folder, backend.url, core=GATEWAY)),
        }
        results: dict[str, dict[str, list[float]]] = {
            name: {"rps": [], "p50": []} for name in (*running, "direct")
        }
        for turn in range(args.turns + 1):
            for name, service in (*running.items(), ("direct", backend)):
                many = (
                    wrk(service.url, CLIENTS, args.seconds, bodies, core=REST)["rps"]
                    if name in running
                    else 0.0
                )
                one = wrk(service.url, 1, args.seconds, bodies, core=REST)["p50"]
                if turn:  # the first only warms up
                    results[name]["rps"].append(many)
                    results[name]["p50"].append(one)
    report(results, args.output)


def report(results: dict[str, dict[str, list[float]]], output: Path) -> None:
    direct = statistics.median(results["direct"]["p50"])
    figures = {
        name: {
            "rps": statistics.median(results[name]["rps"]),
            "added_ms": (statistics.median(results[name]["p50"]) - direct) * 1e3,
        }
        for name in ("llmrs", "litellm")
    }
    ratio = figures["llmrs"]["rps"] / figures["litellm"]["rps"]
    for name, row in figures.items():
        print(f"{name:8} {row['rps']:8.0f} requests/s; one client: + {row['added_ms']:.2f} ms")
    print(f"x{ratio:.0f} requests/s")
    document = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "bench/gateway.py", *sys.argv[1:]]),
        "machine": services.machine(),
        "versions": {
            "llmrs": versions("llmrs", ["llmrs"]),
            "litellm": versions("litellm", ["litellm", "uvicorn"]),
        },
        "clients": CLIENTS,
        "results": figures,
        "ratio": ratio,
    }
    output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
