"""One load run: wrk with one text, or some, per request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def write_bodies(
    path: Path, inputs: Sequence[object], *, model: str = "all-MiniLM-L6-v2", **fields: object
) -> Path:
    """A file of request bodies, one a line; each of `inputs` is the `input` of one."""
    bodies = ({"model": model, "input": each} | fields for each in inputs)
    path.write_text("\n".join(json.dumps(body, ensure_ascii=False) for body in bodies), encoding="utf-8")
    return path


def wrk(url: str, clients: int, seconds: int, bodies: Path, *, core: int | None = None) -> dict[str, float]:
    """Load an embeddings route from `clients` connections without think time.

    Returns requests, seconds, rps and, in seconds, mean, p50, p95, p99, min and max of the latency.
    Ends the program unless every answer was a good one: a fast error is no result.
    """
    run = wrk_any(url, clients, seconds, bodies, core=core)
    if run["non_2xx"] or run["socket_errors"] or not run["requests"]:
        sys.exit(f"not every answer of {clients} clients' to {url} was good: {run}")
    return run


def wrk_any(
    url: str, clients: int, seconds: int, bodies: Path, *, core: int | None = None
) -> dict[str, float]:
    """The same, whatever the answers are: `good` is how many vectors came a second."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    command = f"wrk -t1 -c{clients} -d{seconds}s --timeout 30s".split()
    script = ["-s", str(HERE / "embeddings.lua"), f"{url}/v1/embeddings", "--", str(bodies)]
    output = subprocess.run(
        [*command, *script],
        check=True, capture_output=True, text=True, timeout=seconds + 60,
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    ).stdout  # fmt: skip
    run: dict[str, float] = json.loads(output.split("JSON ", 1)[1])
    run["rps"] = run["requests"] / run["seconds"]
    run["good"] = (run["requests"] - run["non_2xx"]) / run["seconds"]
    return run
