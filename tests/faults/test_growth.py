"""Memory after a million texts of mixed lengths: part of `make test-nightly`, which sets GROWTH_TEXTS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench import bench_module
from tests.processes import tool

TEXTS = int(os.environ.get("GROWTH_TEXTS", "0"))
GROWTH_MB = 32


@pytest.mark.skipif(not TEXTS, reason="takes a quarter of an hour; GROWTH_TEXTS asks for it")
def test_memory_stays_where_it_was_after_the_first_tenth(tmp_path: Path) -> None:
    tool("wrk")
    scaling = bench_module("scaling")
    bodies = tmp_path / "bodies.txt"
    scaling.write_bodies(bodies, scaling.mixed_texts(), encoding_format="base64")
    rows = scaling.watch_memory(str(tmp_path), bodies, TEXTS)
    assert rows[-1]["requests"] >= TEXTS
    settled = next(row["rss_mb"] for row in rows if row["requests"] >= TEXTS / 10)
    assert rows[-1]["rss_mb"] <= settled + GROWTH_MB
