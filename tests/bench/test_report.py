"""What `make bench` writes into the READMEs, from figures that are made up here."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.bench import bench_module

report = bench_module("report")
LANGUAGES = [report.ENGLISH, report.CHINESE]


def figures(rps: float) -> dict[str, float]:
    latencies = {"mean": 1 / rps, "p50": 1 / rps, "p95": 2 / rps, "p99": 3 / rps, "min": 0.1 / rps}
    return latencies | {"max": 9 / rps, "rps": rps, "requests": rps * 45, "memory_mb": 10000 / rps}


COMPARISON: dict[str, Any] = {
    "date": "2026-01-02",
    "machine": "2 cores, Some CPU, Linux",
    "versions": {
        "llmrs": {"python": "3.11.7", "openvino": "2026.4.1"},
        "fastapi": {"torch": "2.13.0"},
        "infinity": {"infinity-emb": "0.0.78"},
    },
    "cells": [
        {
            "texts": kind,
            "clients": clients,
            "results": {"fastapi": figures(50.0), "infinity": figures(40.0), "llmrs": figures(1000.0)},
        }
        for kind in ("zh30", "en20", "en200")
        for clients in (20, 50, 70)
    ],
}
GATEWAY: dict[str, Any] = {
    "clients": 64,
    "versions": {"litellm": {"litellm": "1.106.2"}},
    "results": {
        "llmrs": {"rps": 12000.0, "added_ms": 0.4},
        "litellm": {"rps": 120.0, "added_ms": 8.0},
    },
    "ratio": 100.0,
}


def test_the_headline_has_the_missions_rows() -> None:
    lines = report.headline(COMPARISON, report.ENGLISH)
    assert lines[0].startswith("| 30 Chinese characters, 50 clients | FastAPI + sentence-transformers |")
    assert lines[2] == "| Average latency | 20.0 ms | 25.0 ms | **1.0 ms** | -95 % |"
    assert lines[7] == "| Requests per second | 50.0 | 40.0 | **1,000.0** | x20.0 |"
    assert [line.split(" |")[0][2:] for line in lines[2:]] == list(report.ENGLISH.rows)


@pytest.mark.parametrize(
    ("ratio", "shown"), [(20.0, "x20.0"), (2.01, "x2.0"), (1.5, "+50 %"), (0.14, "-86 %"), (1.0, "+0 %")]
)
def test_a_change_is_a_factor_or_a_share(ratio: float, shown: str) -> None:
    assert report.change(ratio) == shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_section_names_every_cell_and_fact(language: Any) -> None:
    section = report.section(COMPARISON, GATEWAY, language)
    for each in COMPARISON["cells"]:
        name = f"{language.kinds[each['texts']]}, {language.clients.format(each['clients'])}"
        assert f"| {name} |" in section
    for fact in ("2026-01-02", "Some CPU", "3.11.7", "2026.4.1", "2.13.0", "0.0.78", "12,000", "1.106.2"):
        assert fact in section
    assert f"bench/results/{language.chart}" in section


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_chart_is_xml_with_every_figure_inside_its_picture(language: Any) -> None:
    root = ET.fromstring(report.chart(COMPARISON, language))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    shapes = [each for each in root.iter() if each.tag.endswith("rect")]
    assert len(shapes) == 3 * 9 + 3  # and the legend
    for each in shapes:
        x, y = float(each.attrib["x"]), float(each.attrib["y"])
        assert 0 <= x <= x + float(each.attrib["width"]) <= width
        assert 0 <= y <= y + float(each.attrib["height"]) <= height
    texts = [each.text or "" for each in root.iter() if each.tag.endswith("text")]
    assert texts.count("1,000") == texts.count("50") == texts.count("40") == 9


def test_both_readmes_are_rewritten_between_their_marks_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for language in LANGUAGES:
        (tmp_path / language.readme).write_text(f"above\n{report.BEGIN}old\n{report.END}below\n")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "load", {"comparison": COMPARISON, "gateway": GATEWAY}.get)
    for _ in range(2):  # a second time changes nothing
        report.main()
        for language in LANGUAGES:
            body = (tmp_path / language.readme).read_text()
            section = report.section(COMPARISON, GATEWAY, language)
            assert body == f"above\n{report.BEGIN}{section}{report.END}below\n"
            assert re.search("<svg", (tmp_path / language.chart).read_text())
