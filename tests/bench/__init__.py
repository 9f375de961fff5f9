"""Tests of the measuring tools, which are scripts in bench/ and no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

BENCH = Path(__file__).parent.parent.parent / "bench"


def bench_module(name: str) -> ModuleType:
    """A script of bench/ that imports nothing but the standard library, as a module."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
