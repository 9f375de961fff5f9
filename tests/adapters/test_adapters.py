"""The adapters for LangChain and LlamaIndex, with those libraries and without, and clients as they come.

They bring fifty packages, so they live in an environment of their own, `make .venv-adapters/installed`,
and what needs them runs in a process that finds it behind its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, llmrs, packages

REAL = {"langchain": 10, "llamaindex": 11}
"""How many tests there are with each."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Variables of a process that finds the libraries."""
    return packages(".venv-adapters")


@pytest.mark.parametrize("name", REAL)
def test_with_the_real_library(environment: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"tests/adapters/real_{name}.py"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{REAL[name]} passed", done.stdout, re.MULTILINE), done.stdout


def test_clients_as_they_come_against_default_settings(environment: dict[str, str]) -> None:
    # LlamaIndex brings the vocabulary that LangChain, too, would fetch from a network.
    vocabulary = next(ROOT.glob(".venv-adapters/lib/*/site-packages/llama_index/core/_static/tiktoken_cache"))
    own = {"HAYSTACK_TELEMETRY_ENABLED": "False", "TIKTOKEN_CACHE_DIR": str(vocabulary)}
    with llmrs() as server:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/adapters/real_clients.py"],
            env={**environment, **own, "LLMRS_URL": server.url},
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("readme", ["README.md", "README-ZH.md"])
def test_the_readmes_example(environment: dict[str, str], readme: str, tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [example for example in examples if "llmrs.langchain" in example]
    done = subprocess.run(
        [sys.executable, "-c", example],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "384 384\n"), done.stderr


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [("langchain", "langchain_core", "langchain-core"), ("llamaindex", "llama_index", "llama-index-core")],
)
def test_without_the_library_the_error_says_what_to_install(module: str, library: str, package: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import llmrs.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: llmrs.{module} needs {package}: pip install 'llmrs[{module}]'"
