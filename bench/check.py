"""Has llmrs become slower? The pytest-benchmark suites against their peers, in the same run.

The time of a peer over the time of llmrs is a ratio that does not depend on the machine's speed; every
group of a suite gives one for each of its `llmrs` contenders, against the fastest peer. A ratio that is
more than 20 % below the stored one is a loss. As machines are noisy, the suites that lost something are
run once more, and the better figure counts.

    python bench/check.py             compare with bench/results/ratios.json; exit code 1 at a loss
    python bench/check.py --update    store the ratios of this run
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORED = HERE / "results" / "ratios.json"
SUITES = ("bench_kernels.py", "bench_wire.py", "bench_upstream.py", "bench_collector.py", "bench_worker.py")
LOSS = 0.2
QUICK = ("--benchmark-min-time=0.0005", "--benchmark-max-time=0.15", "--benchmark-min-rounds=9")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="store the ratios of this run")
    args = parser.parse_args()
    found = {suite: run(suite) for suite in SUITES}
    now = {name: ratio for suite in found.values() for name, ratio in suite.items()}
    if args.update:
        again = {name: ratio for suite in SUITES for name, ratio in run(suite).items()}
        # The lower of two runs: a lucky one would make every later run a loss.
        now = {name: round(min(ratio, again[name]), 2) for name, ratio in now.items()}
        STORED.write_text(json.dumps(now, indent=1) + "\n")
        print(f"stored {len(now)} ratios")
        return 0
    stored: dict[str, float] = json.loads(STORED.read_text())
    for suite, ratios in found.items():
        if losses(stored, ratios):
            now = better(now, run(suite))
    print("\n".join(table(stored, now)))
    return report(losses(stored, now), stored.keys() - now.keys())


def run(suite: str) -> dict[str, float]:
    """The ratios of one suite."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "pytest", "-q", str(HERE / suite), f"--benchmark-json={result}"]
        done = subprocess.run([*command, *QUICK], cwd=HERE.parent, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
        return ratios_of(json.loads(result.read_text())["benchmarks"])


def ratios_of(benchmarks: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """For each group and llmrs contender: how many times longer the fastest peer takes."""
    ours: dict[tuple[str, str], float] = {}
    peers: dict[str, float] = {}
    for each in benchmarks:
        contender = (each["params"] or {}).get("contender")
        group, seconds = each["group"], each["stats"]["min"]
        if contender is None:
            continue
        if contender.startswith("llmrs"):
            ours[group, contender] = seconds
        else:
            peers[group] = min(seconds, peers.get(group, seconds))
    return {
        f"{group}, {contender}": peers[group] / seconds
        for (group, contender), seconds in ours.items()
        if group in peers
    }


def losses(stored: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """The ratios that both know and that fell by more than LOSS."""
    return [name for name, ratio in now.items() if name in stored and ratio < (1 - LOSS) * stored[name]]


def better(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The higher of two ratios, where both runs have one."""
    return {name: max(ratio, other.get(name, ratio)) for name, ratio in one.items()}


def table(stored: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    lines = [f"{'stored':>8} {'now':>8}"]
    for name, ratio in now.items():
        before = f"x{stored[name]:.2f}" if name in stored else "new"
        lines.append(f"{before:>8} {f'x{ratio:.2f}':>8}  {name}")
    return lines


def report(lost: list[str], missing: Iterable[str]) -> int:
    """Say what is wrong; the exit code."""
    for name in sorted(missing):
        print(f"not compared, because this CPU or this checkout does not have it: {name}")
    for name in lost:
        print(f"LOST: {name}")
    print("some ratios are more than 20 % below the stored ones" if lost else "nothing lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
