"""Has llmrs become slower? The pytest-benchmark suites against their peers, in the same run.

The time of a peer over the time of llmrs is a ratio that does not depend on the machine's speed; every
group of a suite gives one for each of its `llmrs` contenders, against the fastest peer. A ratio that is
more than 20 % below the stored one is a loss, and so is one that is not measured any more. As machines
are noisy, the suites that lost something are run once more, and the better figure counts.

Kernels come in variants, and each has ratios of its own. Those of a variant that this CPU lacks cannot
be compared here; they are named, and kept by an update.

    python bench/check.py             compare with bench/results/ratios.json; exit code 1 at a loss
    python bench/check.py --update    store the ratios of this machine

What a ratio does not show: how fast anything is, and what happens between the parts that are measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORED = HERE / "results" / "ratios.json"
SUITES = ("bench_kernels.py", "bench_wire.py", "bench_upstream.py", "bench_collector.py", "bench_worker.py")
PACKAGES = ("llmrs", "numpy", "orjson", "msgspec", "pybase64", "gunicorn")
LOSS = 0.2
QUICK = ("--benchmark-min-time=0.0005", "--benchmark-max-time=0.15", "--benchmark-min-rounds=9")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="store the ratios of this machine")
    args = parser.parse_args()
    stored: dict[str, float] = json.loads(STORED.read_text())["ratios"] if STORED.exists() else {}
    found = {suite: run(suite) for suite in SUITES}
    if args.update:
        store(stored, [merged(found), merged({suite: run(suite) for suite in SUITES})])
        return 0
    for suite, ratios in found.items():
        if losses(stored, ratios):
            found[suite] = better(ratios, run(suite))
    now = merged(found)
    print("\n".join(table(stored, now)))
    absent, gone = missing(stored, now)
    return report(stored, now, losses(stored, now), absent, gone)


def store(stored: Mapping[str, float], runs: Sequence[Mapping[str, float]]) -> None:
    """Write the lowest of some runs: a lucky one would make every later run a loss."""
    from services import machine

    lowest = {name: round(min(each[name] for each in runs), 2) for name in runs[0]}
    absent, _ = missing(stored, lowest)
    document = {
        "date": datetime.date.today().isoformat(),
        "command": "python bench/check.py --update",
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "ratios": lowest | {name: stored[name] for name in absent},
    }
    STORED.write_text(json.dumps(document, indent=1) + "\n")
    print(f"stored {len(lowest)} ratios; kept {len(absent)} of variants that this CPU lacks")


def merged(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The ratios of all suites."""
    return {name: ratio for suite in found.values() for name, ratio in suite.items()}


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
        who = (each["params"] or {}).get("contender")
        group, seconds = each["group"], each["stats"]["min"]
        if who is None:
            continue
        if who.startswith("llmrs"):
            ours[group, who] = seconds
        else:
            peers[group] = min(seconds, peers.get(group, seconds))
    return {
        f"{group}, {who}": peers[group] / seconds for (group, who), seconds in ours.items() if group in peers
    }


def losses(stored: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """The ratios that both know and that fell by more than LOSS."""
    return [name for name, ratio in now.items() if name in stored and ratio < (1 - LOSS) * stored[name]]


def missing(stored: Mapping[str, float], now: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """The stored ratios that were not measured: of variants that this CPU lacks, and of no such reason."""
    contenders = {contender(name) for name in now}
    unmeasured = [name for name in stored if name not in now]
    absent = [name for name in unmeasured if "-" in contender(name) and contender(name) not in contenders]
    return absent, [name for name in unmeasured if name not in absent]


def contender(name: str) -> str:
    """Of a ratio's name: `llmrs`, or `llmrs-avx2` for a variant of the kernels."""
    return name.rpartition(", ")[2]


def better(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The higher of two ratios, where both runs have one."""
    return {name: max(ratio, other.get(name, ratio)) for name, ratio in one.items()}


def table(stored: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    lines = [f"{'stored':>8} {'now':>8}"]
    for name, ratio in now.items():
        before = f"x{stored[name]:.2f}" if name in stored else "new"
        lines.append(f"{before:>8} {f'x{ratio:.2f}':>8}  {name}")
    return lines


def report(
    stored: Mapping[str, float],
    now: Mapping[str, float],
    lost: Sequence[str],
    absent: Sequence[str],
    gone: Sequence[str],
) -> int:
    """Say what is wrong; the exit code."""
    for variant in sorted({contender(name) for name in absent}):
        count = sum(contender(name) == variant for name in absent)
        print(f"NOT COMPARED: this CPU cannot run {variant} ({count} ratios)")
    for name in lost:
        print(f"LOST: {name}: x{now[name]:.2f}, stored x{stored[name]:.2f}")
    for name in gone:
        print(f"GONE: {name}: not measured any more, stored x{stored[name]:.2f}")
    if lost or gone:
        print("llmrs is slower than it was; if that is meant: python bench/check.py --update")
        return 1
    print(f"{len(now)} ratios, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
