"""The package as it is built: one version, the compiled module, nothing heavy on import."""

from __future__ import annotations

import importlib.machinery
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import llmrs
from llmrs import _fast

ROOT = Path(__file__).parents[2]


def test_one_version():
    assert metadata.version("llmrs") == llmrs.__version__
    assert f'\nversion = "{llmrs.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_compiled_module_is_in_use():
    """There is no pure twin: what is imported is the extension, beside its source."""
    assert _fast.__file__.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    assert type(_fast.encode_openai).__name__ == "cython_function_or_method"
    assert type(_fast.__loader__) is importlib.machinery.ExtensionFileLoader


def test_the_best_variant_is_in_use():
    """In a process of its own, as tests switch it here."""
    code = "from llmrs import _fast; print(_fast.kernel_name(), *_fast.kernel_names())"
    used, best, *others = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert used == best
    assert [best, *others][-1] == "baseline"


def test_the_vocabulary_and_its_licence_are_packed():
    for name in ("cl100k.xz", "cl100k.LICENSE"):
        assert (ROOT / "llmrs" / name).exists()
        assert f"llmrs/{name}" in (ROOT / "MANIFEST.in").read_text()
    settings = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^llmrs = \[.*"cl100k\.\*"', settings, re.MULTILINE)
    assert re.search(r'^license-files = \[.*"llmrs/cl100k\.LICENSE"', settings, re.MULTILINE)


@pytest.mark.parametrize("module", ["llmrs", "llmrs.wire"])
def test_importing_is_light(module):
    heavy = [
        "gevent",
        "falcon",
        "gunicorn",
        "requests",
        "urllib3",
        "openvino",
        "tokenizers",
        "huggingface_hub",
    ]
    code = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


def test_the_marker_for_type_checkers_is_there():
    assert (ROOT / "llmrs" / "py.typed").exists()
    names = {name for name in dir(_fast) if not name.startswith("_") and callable(getattr(_fast, name))}
    stubbed = (ROOT / "llmrs" / "_fast.pyi").read_text()
    classes = {"InvalidRequest", "NonFiniteEmbedding"}
    assert {name for name in names if f"def {name}(" not in stubbed} == classes
