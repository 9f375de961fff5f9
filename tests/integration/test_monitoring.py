"""Dashboard, alert rules and handbook speak of series that a real server has, and of all of them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import ROOT, llmrs

DASHBOARD = ROOT / "deploy/grafana/llmrs.json"
RULES = ROOT / "deploy/prometheus/alerts.yml"
HANDBOOK = ROOT / "docs/operations.md"

SERIES = re.compile(r"\b(?:llmrs|process)_[a-z_]+\b")
SELECTOR = re.compile(r"\b((?:llmrs|process)_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|=|!~)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
TARGET = {"job", "instance"}
"""Labels that Prometheus gives to whatever it scrapes."""

ELSEWHERE = {"up"}
"""Series that Prometheus makes itself."""


class Scrape:
    """What a scrape holds: families by name, and which sample belongs to which."""

    def __init__(self, page: str) -> None:
        self.families = list(text_string_to_metric_families(page))
        self.samples = {name: family for family in self.families for name in _sample_names(family)}

    def labels(self, sample: str) -> set[str]:
        return {label for each in self.samples[sample].samples for label in each.labels}

    def values(self, sample: str, label: str) -> set[str]:
        return {each.labels.get(label, "") for each in self.samples[sample].samples}


def _sample_names(family: Metric) -> Iterator[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
    return (family.name + suffix for suffix in suffixes)


def get(url: str) -> Scrape:
    answer = requests.get(f"{url}/metrics", timeout=30)
    assert answer.status_code == 200
    return Scrape(answer.text)


@pytest.fixture(scope="module")
def scrapes() -> Iterator[tuple[Scrape, Scrape]]:
    """A scrape of a server that nobody has asked anything yet, and one after traffic."""
    with llmrs(WORKER_CLASS="llmrs") as server:  # which knows its connections
        before = get(server.url)
        body: Any = {"input": ["a", "b c"]}
        assert requests.post(f"{server.url}/v1/embeddings", json=body, timeout=30).status_code == 200
        assert requests.post(f"{server.url}/embed", json={"texts": 3}, timeout=30).status_code == 400
        with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            connection.sendall(b"\x16\x03\x01\x00\xa5\r\n\r\n")  # TLS
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
        yield before, get(server.url)


def queries() -> list[str]:
    """Every expression of the dashboard, its variables' queries included, and of the rules."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return found + [rule["expr"] for rule in rules()]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_series_exists_before_the_first_request(scrapes: tuple[Scrape, Scrape]) -> None:
    before, _ = scrapes
    named = {name for query in queries() for name in SERIES.findall(query)}
    assert len(named) > 30
    assert named <= before.samples.keys()


def test_every_label_exists(scrapes: tuple[Scrape, Scrape]) -> None:
    _, after = scrapes
    checked = 0
    for query in queries():
        names = SERIES.findall(query)
        for name, matchers in SELECTOR.findall(query):
            for label, operator, value in MATCHER.findall(matchers):
                assert label in after.labels(name) | TARGET, query
                if operator in ("=", "!=") and label not in TARGET:
                    assert value in after.values(name, label), query
                checked += 1
        known = TARGET.union(*(after.labels(name) for name in names if after.samples[name].samples))
        for labels in GROUPING.findall(query):
            # Keys have names only where they are configured.
            assert {label.strip() for label in labels.split(",")} <= known | {"key"}, query
    assert checked > 50


def test_what_is_no_request_is_counted(scrapes: tuple[Scrape, Scrape]) -> None:
    _, after = scrapes
    assert after.values("llmrs_refused_requests_total", "status") == {"400"}


def test_every_panel_has_a_query_and_a_place_of_its_own() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    places = set()
    for panel in dashboard["panels"]:
        assert panel["type"] == "row" or panel["targets"], panel["title"]
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in places, panel["title"]
                assert x < 24
                places.add((x, y))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_alert_is_in_the_handbook_and_no_other() -> None:
    named = set(re.findall(r"`(Llmrs\w+)`", HANDBOOK.read_text(encoding="utf-8")))
    assert named == {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_every_series_is_in_the_handbook_and_no_other(scrapes: tuple[Scrape, Scrape]) -> None:
    before, _ = scrapes
    rows = [line for line in HANDBOOK.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {
        name: line
        for line in rows
        for name in re.findall(r"`((?:llmrs|process)_[a-z_]+)[`{]", line.split("|")[1])
    }
    names = {family.name + ("_total" if family.type == "counter" else "") for family in before.families}
    assert told.keys() == names
    for family in before.families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert family.type in told[name].split("|")[2], name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_all_of_it(tmp_path: Path) -> None:
    """Its own checker on the rules, and on the dashboard's expressions dressed up as rules."""
    dashboard = [query for query in queries() if not query.startswith("label_values")]
    dressed = [
        {"record": f"panel:{i}", "expr": query.replace("$__rate_interval", "5m")}
        for i, query in enumerate(dashboard)
    ]
    panels = tmp_path / "panels.yml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": dressed}]}), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES), str(panels)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
