"""The HTTP layer alone: our gunicorn worker, gunicorn's own gevent worker, and nginx from memory.

The same small Falcon application runs under both workers, each in a gunicorn of its own on core 0;
wrk sends small POST requests over keep-alive connections from core 1, turn by turn, so that a
machine whose speed drifts drifts for all. CPU per request is what the worker process used, user and
system, over the requests it answered: on a shared machine it says more than requests per second.
nginx answers a constant without reading the body: what the kernel and wrk leave as a ceiling.

    python bench/bench_http.py --output bench/results/http.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import services
from constant_app import ANSWER, PATH

WORKERS = {"llmrs": "llmrs.server.worker.Worker", "gunicorn gevent": "gevent"}

SCRIPT = """
wrk.method = "POST"
wrk.body = '{"input":"The quick brown fox jumps over the lazy dog","model":"m","encoding_format":"base64"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-none"
wrk.headers["User-Agent"] = "bench"
"""

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; default_type application/json; return 200 '{answer}'; }} }}
"""


def main() -> None:
    args = parse_args()
    runs: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        script = Path(folder) / "post.lua"
        script.write_text(SCRIPT)
        servers = {name: stack.enter_context(gunicorn(worker, folder)) for name, worker in WORKERS.items()}
        if shutil.which("nginx"):
            servers["nginx"] = stack.enter_context(nginx(folder))
        # A gunicorn's requests are its worker's; this nginx has no other process.
        pids = {name: each.worker_pid if name in WORKERS else each.pid for name, each in servers.items()}
        for name, server in servers.items():
            load(server.url, pids[name], args.clients, 1, script)
        for turn in range(args.turns):
            for name, server in servers.items():
                run = load(server.url, pids[name], args.clients, args.seconds, script)
                runs.setdefault(name, []).append(run)
                print(
                    f"turn {turn + 1}: {name:16} {run[0]:8.0f} requests/s, {run[1]:6.1f} us", file=sys.stderr
                )
    report(runs, args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32, help="connections of wrk")
    parser.add_argument("--seconds", type=int, default=5, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    return parser.parse_args()


def gunicorn(worker: str, folder: str) -> services.Started:
    port = services.free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--worker-class", worker, "--bind", f"127.0.0.1:{port}",
        "--keep-alive", "75", "--no-control-socket", "--log-level", "error", "constant_app:make_app()",
    ]  # fmt: skip
    paths = os.pathsep.join((str(services.HERE), str(services.ROOT)))
    return services.start(command, port, folder, core=0, PYTHONPATH=paths)


def nginx(folder: str) -> services.Started:
    port = services.free_port()
    conf = Path(folder) / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port, answer=ANSWER))
    return services.start(["nginx", "-p", folder, "-c", str(conf)], port, folder, core=0)


def load(url: str, pid: int, clients: int, seconds: int, script: Path) -> tuple[float, float]:
    """Requests per second, and the server's CPU microseconds per request, of one load run."""
    before = services.cpu_seconds(pid)
    output = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(script), url + PATH],
        check=True, capture_output=True, text=True, timeout=seconds + 60,
    ).stdout  # fmt: skip
    used = services.cpu_seconds(pid) - before
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"not every answer was good:\n{output}")
    requests, rate = re.search(r"(\d+) requests in", output), re.search(r"Requests/sec: +([\d.]+)", output)
    assert requests is not None
    assert rate is not None
    return float(rate[1]), used / int(requests[1]) * 1e6


def report(runs: dict[str, list[tuple[float, float]]], args: argparse.Namespace) -> None:
    results = {
        name: {
            "requests_per_second": round(statistics.median(rate for rate, _ in turns)),
            "cpu_us_per_request": round(statistics.median(cpu for _, cpu in turns), 1),
        }
        for name, turns in runs.items()
    }
    stock = results["gunicorn gevent"]
    lines = ["| one core | requests/s | CPU us per request | to stock |", "|---|---:|---:|---:|"]
    for name, row in results.items():
        ratio = stock["cpu_us_per_request"] / row["cpu_us_per_request"]
        cells = f"{row['requests_per_second']:,.0f} | {row['cpu_us_per_request']:.1f} | x{ratio:.1f}"
        lines.append(f"| {name} | {cells} |")
    print("\n".join(lines))
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/bench_http.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("llmrs", "gunicorn", "gevent", "falcon", "httptools")},
            "clients": args.clients,
            "seconds": args.seconds * args.turns,
            "results": results,
            "table": lines,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
