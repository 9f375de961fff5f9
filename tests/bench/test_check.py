"""`make bench-check`: what counts as a loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import BENCH, bench_module

check = bench_module("check")


def measured(group: str, **seconds: float) -> list[dict[str, Any]]:
    return [
        {"group": group, "params": {"contender": name.replace("_", "-")}, "stats": {"min": time}}
        for name, time in seconds.items()
    ]


def test_a_ratio_is_against_the_fastest_peer() -> None:
    runs = [
        *measured("a", llmrs=2.0, orjson=6.0, json=20.0),
        *measured("b", llmrs_avx2=1.0, llmrs_baseline=4.0, orjson=2.0),
        *measured("no peer", llmrs=1.0),
        {"group": "no contender", "params": None, "stats": {"min": 1.0}},
    ]
    assert check.ratios_of(runs) == {"a, llmrs": 3.0, "b, llmrs-avx2": 2.0, "b, llmrs-baseline": 0.5}


@pytest.mark.parametrize(("now", "lost"), [(5.0, []), (4.01, []), (3.99, ["a"]), (9.0, [])])
def test_a_loss_is_more_than_a_fifth(now: float, lost: list[str]) -> None:
    assert check.losses({"a": 5.0, "other": 1.0}, {"a": now, "new": 0.1}) == lost


def test_the_better_of_two_runs_counts() -> None:
    assert check.better({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 1.0, "c": 9.0}) == {"a": 3.0, "b": 2.0}


def test_a_loss_is_named_with_both_figures_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    name = "base64 32x384, llmrs-avx2"
    assert check.report({name: 4.0}, {name: 3.1}, [name], [], []) == 1
    assert f"LOST: {name}: x3.10, stored x4.00" in capsys.readouterr().out
    assert check.report({name: 4.0}, {name: 3.9}, [], [], []) == 0


def test_variants_that_the_cpu_lacks_are_named_and_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    stored = {"a, llmrs-avx512": 3.0, "b, llmrs-avx512": 3.0, "a, llmrs-avx2": 2.0}
    now = {"a, llmrs-avx2": 2.0}
    absent, gone = check.missing(stored, now)
    assert (absent, gone) == (["a, llmrs-avx512", "b, llmrs-avx512"], [])
    assert check.report(stored, now, [], absent, gone) == 0
    assert "NOT COMPARED: this CPU cannot run llmrs-avx512 (2 ratios)" in capsys.readouterr().out


def test_a_benchmark_that_is_gone_fails(capsys: pytest.CaptureFixture[str]) -> None:
    stored = {"a, llmrs-avx2": 2.0, "b, llmrs-avx2": 2.0, "parse, llmrs": 1.0}
    now = {"a, llmrs-avx2": 2.0}
    absent, gone = check.missing(stored, now)
    assert (absent, gone) == ([], ["b, llmrs-avx2", "parse, llmrs"])
    assert check.report(stored, now, [], absent, gone) == 1
    assert "GONE: parse, llmrs" in capsys.readouterr().out


@pytest.mark.parametrize(("second", "code"), [(3.9, 0), (3.0, 1)])
def test_a_suite_that_lost_something_has_a_second_run(
    second: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored = tmp_path / "ratios.json"
    stored.write_text(json.dumps({"ratios": {"a, llmrs": 4.0, "b, llmrs": 1.0}}))
    runs = {"one.py": [{"a, llmrs": 2.0}, {"a, llmrs": second}], "two.py": [{"b, llmrs": 1.0}]}
    monkeypatch.setattr(check, "STORED", stored)
    monkeypatch.setattr(check, "SUITES", tuple(runs))
    monkeypatch.setattr(check, "run", lambda suite: runs[suite].pop(0))
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert check.main() == code
    assert not any(runs.values())


def test_every_stored_ratio_still_has_its_benchmark() -> None:
    """Without running them: names of groups are in the suites, or made of what is in them."""
    suites = "".join((BENCH / suite).read_text() for suite in check.SUITES)
    for name in json.loads(check.STORED.read_text())["ratios"]:
        group, _, contender = name.rpartition(", ")
        assert contender.startswith("llmrs")
        assert group.split()[0] in suites, name


@pytest.mark.parametrize("suite", check.SUITES)
def test_every_suite_runs(suite: str) -> None:
    """Once over every case: their own assertions are that the contenders do the same work."""
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", str(BENCH / suite)]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
