"""llmrs as a gateway against LiteLLM's proxy, each before a backend that costs nothing.

The gateway has core 0; the backend and wrk share core 1. Throughput is of 64 clients with one text per
request; added latency is the median of one client through the gateway, less its median without. `direct`
is wrk on the backend itself: far more than through any gateway, or the backend would be what is measured.

    python bench/gateway.py --output bench/results/gateway.json
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import requests
import services
import texts
from compare import versions
from load import write_bodies, wrk
from services import Service

GATEWAY, REST = 0, 1  # cores
CLIENTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=6, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        inputs = texts.make("en20")
        bodies = write_bodies(Path(folder) / "bodies", inputs, model="null", encoding_format="base64")
        direct = stack.enter_context(services.null_backend(folder, core=REST))
        running = {
            "llmrs": stack.enter_context(services.gateway(folder, direct.url, core=GATEWAY)),
            "litellm": stack.enter_context(services.litellm(folder, direct.url, core=GATEWAY)),
            "direct": direct,
        }
        check_same_answers(running)
        for service in running.values():
            load(service, 2, bodies)  # warm-up
        for turn in range(args.turns):
            for name, service in running.items():
                services.settle(running.values())
                run = load(service, args.seconds, bodies)
                runs.setdefault(name, []).append(run)
                figures = f"{run['rps']:8.0f} requests/s, one client {run['p50'] * 1e3:.2f} ms"
                print(f"turn {turn + 1}: {name:8} {figures}", file=sys.stderr)
    report(runs, args.output)


def load(service: Service, seconds: int, bodies: Path) -> dict[str, float]:
    """Requests per second of many clients, and the median latency of one."""
    many = wrk(service.url, CLIENTS, seconds, bodies, core=REST)
    one = wrk(service.url, 1, seconds, bodies, core=REST)
    return {"rps": many["rps"], "p50": one["p50"]}


def check_same_answers(running: dict[str, Service]) -> None:
    """Both gateways hand on the backend's vectors, as base64."""
    rows = {}
    body = {"model": "null", "input": ["one", "two"], "encoding_format": "base64"}
    for name, service in running.items():
        answer = requests.post(f"{service.url}/v1/embeddings", json=body, timeout=60).json()
        rows[name] = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    for name, vectors in rows.items():
        if not np.allclose(vectors, rows["direct"], atol=1e-6):
            sys.exit(f"{name} gives other vectors: nothing to compare")


def report(runs: dict[str, list[dict[str, float]]], output: Path) -> None:
    direct = statistics.median(turn["p50"] for turn in runs["direct"])
    figures = {
        name: {
            "rps": statistics.median(turn["rps"] for turn in turns),
            "added_ms": (statistics.median(turn["p50"] for turn in turns) - direct) * 1e3,
            "rps_turns": [round(turn["rps"], 1) for turn in turns],
        }
        for name, turns in runs.items()
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
        "settings": {
            "llmrs": services.GATEWAY,
            "litellm": {
                "flags": services.LITELLM,
                "environment": services.LITELLM_ENV,
                "config": services.LITELLM_CONFIG,
            },
        },
        "clients": CLIENTS,
        "results": figures,
        "ratio": ratio,
    }
    output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
