"""The house: which room may import which, and what importing costs.

Reads every module's imports, also those inside functions: an edge is knowledge, whenever it is
paid for. A new module, room or edge has to be entered here, where its reason can be asked for.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "llmrs"

GROUND = {"errors", "embeddings", "config", "options", "sources"}

ROOMS: dict[str, set[str]] = {
    # The ground floor: known to everyone, knows nobody above it.
    "errors": set(),
    "embeddings": set(),
    "options": {"errors"},
    "sources": {"errors", "options"},
    "config": {"errors", "options", "sources"},
    # Bytes in, bytes out.
    "_fast": GROUND,
    "fields": GROUND | {"prompts"},
    "dialects": GROUND | {"fields", "prompts"},
    "bodies": GROUND | {"dialects", "fields"},
    "cl100k": GROUND,
    "wire": GROUND | {"_fast", "bodies", "dialects", "fields"},
    # Vectors.
    "models": GROUND | {"_fast"},
    "backends": GROUND | {"_fast", "models"},
    "embedder": GROUND | {"_fast", "backends", "chunks", "prompts", "threaded"},
    "langchain": GROUND | {"embedder"},
    "llamaindex": GROUND | {"embedder"},
    "": {"embedder"},  # llmrs/__init__.py
    # The service.
    "fairqueue": GROUND,
    "batch": GROUND | {"fairqueue"},
    "speed": GROUND,
    "admission": GROUND | {"fairqueue", "speed"},
    "prompts": GROUND,
    "truncation": GROUND,
    "chunks": GROUND,
    "collector": GROUND | {"admission", "batch", "fairqueue"},
    "threaded": GROUND | {"batch", "collector", "fairqueue"},
    "server": GROUND
    | {"", "batch", "chunks", "cl100k", "collector", "fairqueue", "prompts", "truncation", "wire"}
    | {"embedder", "backends"},
    "loadtest": GROUND,
    # The command line calls at the doors of the other rooms.
    "flags": GROUND | {""},
    "cli": GROUND | {"flags", "loadtest", "server", "embedder", "backends", "models"},
    "__main__": {"cli"},
}
"""Edges from room to room. A room is a file or folder right under llmrs/."""

WRAPPED = {
    "openvino": {"models": 6},  # Five modules build the graph, one runs it.
    "tokenizers": {"models": 3},  # Two build tokenizers, one runs them.
    "safetensors": {"models": 1},
    "torch": {"models": 2},  # One module loads, one computes.
    "sentence_transformers": {"models": 1},
    "transformers": {"models": 1},
    "huggingface_hub": {"models": 3},  # One knows the cache, one asks the hub, one receives files.
    "requests": {"backends": 1},
    "urllib3": {"backends": 1},
    "httptools": {"server": 1, "backends": 1},  # Of what clients send, and of what backends answer.
    "prometheus_client": {"server": 1},
    "opentelemetry": {"server": 1},
    "langchain_core": {"langchain": 1},
    "llama_index": {"llamaindex": 1},
    "falcon": {"server": None},
    "gevent": {"server": None},
    "gunicorn": {"server": None},
}
"""The rooms that wrap each heavy library, and how many of their modules may import it."""

LIGHT = ("llmrs", "llmrs.config", "llmrs.errors", "llmrs.embeddings", "llmrs.wire", "llmrs.cli")
HEAVY = (
    "gevent",
    "falcon",
    "gunicorn",
    "requests",
    "openvino",
    "tokenizers",
    "safetensors",
    "torch",
    "transformers",
    "sentence_transformers",
    "huggingface_hub",
    "prometheus_client",
    "opentelemetry",
)


def modules() -> dict[str, Path]:
    """Every Python module of the package by its dotted name."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()
KNOWN = {*MODULES, *(f"llmrs.{path.stem}" for path in PACKAGE.glob("*.pyx"))}


def imports(name: str, source: str, known: set[str], *, is_package: bool) -> Iterator[str]:
    """Dotted names that `source`, the module `name`, imports; relative ones are made absolute.

    `from a import b` is an import of `a.b` where `known` has such a module, else of `a`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join(parent[: len(parent) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def imports_of(name: str) -> set[str]:
    path = MODULES[name]
    source = path.read_text(encoding="utf-8")
    return set(imports(name, source, KNOWN, is_package=path.name == "__init__.py")) - {name}


def room(name: str) -> str:
    """The room of `llmrs.room.module`; the package itself is the room with no name."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", MODULES)
def test_every_edge_is_in_the_table(name):
    here = room(name)
    assert here in ROOMS, f"{name} opens a new room: enter it in ROOMS"
    for imported in imports_of(name):
        if imported.split(".")[0] == "llmrs" and room(imported) != here:
            assert room(imported) in ROOMS[here], f"{name} may not import {imported}"


def test_the_kernels_know_the_ground_floor_only():
    for path in PACKAGE.glob("*.pyx"):
        found = re.findall(
            r"^\s*(?:from|import|cimport)\s+llmrs\.?(\w*)", path.read_text(encoding="utf-8"), re.M
        )
        assert set(found) <= ROOMS["_fast"]


def test_the_table_itself_has_no_cycle():
    assert list(graphlib.TopologicalSorter(ROOMS).static_order())


def test_modules_have_no_cycle():
    """Nor may two modules of one room import each other."""
    graph = {name: imports_of(name) & set(MODULES) for name in MODULES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("library", WRAPPED)
def test_heavy_libraries_stay_behind_their_wrapper(library):
    users = {name for name in MODULES if library in {imported.split(".")[0] for imported in imports_of(name)}}
    assert {room(name) for name in users} == WRAPPED[library].keys()
    for home, most in WRAPPED[library].items():
        here = {name for name in users if room(name) == home}
        assert most is None or len(here) <= most, f"{library} is imported by {sorted(here)}"


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_the_engine_sends_no_telemetry():
    """`import openvino` reports its use to the network from a process that it forks.

    In a gevent worker that child returns into the server's loop as a second worker. OpenVINO does
    neither where its package openvino_telemetry cannot be imported.
    """
    code = "import sys, llmrs.models.engine; print(sys.modules.get('openvino_telemetry'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "None", "")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from a import b, c", {"a", "a.b"}),
        ("from . import d", {"p.q"}),
        ("from .r import d", {"p.q.r"}),
        ("from ..s import d", {"p.s"}),
        ("def f():\n    from a import c", {"a"}),
        ("if TYPE_CHECKING:\n    import t", {"t"}),
        ("importlib.import_module('a.x')", {"a.x"}),
        ("__import__('y')", {"y"}),
    ],
)
def test_the_reader_of_imports(source, found):
    assert set(imports("p.q.m", source, {"a.b"}, is_package=False)) == found


def test_the_reader_of_imports_in_a_package():
    assert set(imports("p.q", "from .r import d\nfrom ..s import d", set(), is_package=True)) == {
        "p.q.r",
        "p.s",
    }
