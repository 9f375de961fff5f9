"""Settings that hold for all tests, and the report of a run of several parts (scripts/run_tests.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import settings

# The gate judges a change, so it tries the same examples every time; everybody else looks for new ones.
# Nobody is judged by the clock: the machine may have other work.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("local")
if os.environ.get("CI"):
    settings.load_profile("gate")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Note what failed in this part, or tell, in the last one, of all parts before it."""
    if (report := os.environ.get("TEST_REPORT")) is None:
        return
    part = os.environ["TEST_PART"]
    if part:
        failed = [
            each.nodeid for kind in ("failed", "error") for each in terminalreporter.stats.get(kind, ())
        ]
        with Path(report).open("a") as file:
            file.writelines(json.dumps({"part": part, "failed": name}) + "\n" for name in failed)
        return
    lines = [json.loads(line) for line in Path(report).read_text().splitlines()]
    terminalreporter.section("earlier parts")
    for line in lines:
        if "failed" in line:
            terminalreporter.write_line(f"FAILED ({line['part']}) {line['failed']}", red=True)
        else:
            outcome = "passed" if line["code"] == 0 else f"FAILED with exit code {line['code']}"
            terminalreporter.write_line(f"{line['part']}: {outcome} in {line['seconds']:.0f} s")
