"""Run everything that `make test` runs, whatever fails on the way, and report all of it.

Each part is a command. What failed in the earlier ones is told by the last one, which is pytest's longest
run: so its summary is the last thing to be read. The exit code is 1 if anything failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile", "--max-worker-restart", "0")
"""Two files at a time: tests of servers mostly wait. A crash ends the run: with another process in its place,
pytest-xdist 3.8 waited for ever for the files of the one that had crashed."""


class Part(NamedTuple):
    """A command of the virtual environment, and its name in reports."""

    name: str
    command: tuple[str, ...]
    worker_class: str = ""


PARTS = (
    Part("ruff check", ("ruff", "check", ".")),
    Part("ruff format", ("ruff", "format", "--check", ".")),
    Part("mypy", ("mypy",)),
    # What floods a server is tested alone. Whatever starts one is tested on both worker classes: gunicorn's
    # first, then ours with all else. Tests that choose their worker class run once.
    Part("alone, stock worker", ("pytest", "-m", "alone and not chooses_worker_class"), "gevent"),
    Part("alone", ("pytest", "-m", "alone")),
    Part(
        "stock worker",
        ("pytest", *SIDE_BY_SIDE, "-m", "not chooses_worker_class and not alone", "tests/integration"),
        "gevent",
    ),
    Part("all else", ("pytest", *SIDE_BY_SIDE, "-m", "not alone")),
)


def main(arguments: list[str]) -> int:
    """Run the parts, pytest's with these arguments added; 1 if one of them failed."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "parts"
        report.touch()
        for part in PARTS:
            is_last = part is PARTS[-1]
            began = time.monotonic()
            code = _run(part, arguments, report, is_last=is_last)
            failed = failed or code != 0
            with report.open("a") as file:
                line = {"part": part.name, "code": code, "seconds": time.monotonic() - began}
                file.write(json.dumps(line) + "\n")
    return int(failed)


def _run(part: Part, arguments: list[str], report: Path, *, is_last: bool) -> int:
    """The exit code of a part. 5 is pytest's for no tests, as where the arguments choose none of a part."""
    program, *flags = part.command
    if program == "pytest":
        flags += arguments
    env = {**os.environ, "TEST_REPORT": str(report), "TEST_PART": "" if is_last else part.name}
    if part.worker_class:
        env["TEST_WORKER_CLASS"] = part.worker_class
    print(f"\n== {part.name}: {program} {' '.join(flags)}", flush=True)
    code = subprocess.call([str(BIN / program), *flags], cwd=ROOT, env=env)
    return 0 if code == 5 and arguments else code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
