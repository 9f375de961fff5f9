"""`make test` runs all of its parts, tells of all that failed, and ends with pytest's own summary."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.processes import ROOT, clean_environment

PROGRAM = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("run_tests", sys.argv[1])
parts = importlib.util.module_from_spec(spec)
sys.modules["run_tests"] = parts
spec.loader.exec_module(parts)
parts.BIN, parts.ROOT = Path("bin").absolute(), Path.cwd()
parts.PARTS = (
    parts.Part("lint", ("ruff",)),
    parts.Part("first", ("pytest", "test_first.py"), "gevent"),
    parts.Part("last", ("pytest", "test_last.py")),
)
raise SystemExit(parts.main([]))
"""
PASSES = "def test_it(): pass\n"
FAILS = "def test_it(): assert False\n"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts" / "run_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_tests"] = module
    spec.loader.exec_module(module)
    return module


def run(folder: Path, *, lint: int, first: str, last: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ruff").write_text(f"#!/bin/sh\nexit {lint}\n")
    (programs / "pytest").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m pytest -c /dev/null --rootdir . -p tests.conftest "$@"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "test_first.py").write_text(first)
    (folder / "test_last.py").write_text(last)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "scripts" / "run_tests.py")], cwd=folder, timeout=240,
        capture_output=True, text=True, env=clean_environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lint", "first", "last", "wanted"),
    [
        (0, PASSES, PASSES, ["lint: passed", "first: passed"]),
        (3, PASSES, PASSES, ["lint: FAILED with exit code 3", "first: passed"]),
        (0, FAILS, PASSES, ["lint: passed", "FAILED (first) test_first.py::test_it", "first: FAILED"]),
        (0, "import nothing_of_that_name", PASSES, ["FAILED (first) test_first.py", "first: FAILED"]),
        (0, PASSES, FAILS, ["lint: passed", "first: passed", "FAILED test_last.py::test_it"]),
    ],
    ids=["all well", "lint", "an earlier test", "an earlier file", "the last"],
)  # fmt: skip
def test_all_parts_run_and_are_told_of(
    tmp_path: Path, lint: int, first: str, last: str, wanted: list[str]
) -> None:
    done = run(tmp_path, lint=lint, first=first, last=last)
    told = done.stdout.partition("earlier parts")[2]
    assert all(words in told for words in wanted), done.stdout
    assert done.returncode == int(bool(lint) or FAILS in (first, last) or "import" in first)
    end = done.stdout.splitlines()[-1]
    assert (" failed" if last == FAILS else " passed") in end, "pytest's own summary comes last"
    assert done.stdout.count(" in 0.") >= 2, "both have run"


def test_every_test_is_in_a_part() -> None:
    parts = [part for part in load().PARTS if part.command[0] == "pytest" and not part.worker_class]
    assert [part.command[part.command.index("-m") + 1] for part in parts] == ["alone", "not alone"]
    assert parts[-1] is load().PARTS[-1] or parts[-1] == load().PARTS[-1]
    both = [part for part in load().PARTS if part.worker_class == "gevent"]
    assert len(both) == 2
    assert all("not chooses_worker_class" in " ".join(part.command) for part in both)
