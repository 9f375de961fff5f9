"""Runs the programs beside it that need transformers, in the environment that has it.

That is made by `make test`, or by `make .venv-oracles/installed`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.processes import ROOT, missing

PYTHON = ROOT / ".venv-oracles/bin/python"


def run_oracle(program: str, *arguments: object) -> None:
    """Run a program of this folder to its end. Without its environment: a failure under CI, else a skip."""
    if not PYTHON.exists():
        missing("the environment of transformers is missing: make .venv-oracles/installed")
    done = subprocess.run(
        [PYTHON, Path(__file__).parent / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode == 0, done.stderr
