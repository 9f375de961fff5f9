"""What the deployment files say, read with the parsers of their formats."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.processes import ROOT

DEPLOY = ROOT / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    """The YAML documents of a file below deploy/."""
    return [each for each in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")) if each]


def manifest(kind: str) -> dict[str, Any]:
    """The one Kubernetes object of this kind that the kustomization brings."""
    names = documents("kubernetes/kustomization.yaml")[0]["resources"]
    found = [each for name in names for each in documents(f"kubernetes/{name}") if each["kind"] == kind]
    assert len(found) == 1, kind
    return found[0]


def dockerfile() -> dict[str, list[str]]:
    """The instructions of the Dockerfile's last stage: what follows each keyword, in order."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            found = {}
        found.setdefault(keyword, []).append(" ".join(rest.split()))
    return found


def unit() -> dict[str, list[str]]:
    """The settings of the systemd unit, those that are commented out as examples included."""
    text = (DEPLOY / "llmrs.service").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^#?([A-Z][A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def words(instruction: str) -> list[str]:
    """An instruction in exec form, a JSON array."""
    found = json.loads(instruction)
    assert all(isinstance(word, str) for word in found)
    return list(found)


def seconds(text: str) -> float:
    """`40s`, or a plain number of seconds."""
    return float(text.removesuffix("s"))
