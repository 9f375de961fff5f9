"""Exported models, ONNX and OpenVINO's own format, against sentence-transformers: text in, vector out."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.errors import ModelError
from llmrs.models.exported import Exported
from tests.models.makers import change_json, write_json
from tests.models.oracles import run_oracle
from tests.models.test_families import cosines, same

FAMILIES = ("bert", "roberta", "modernbert", "qwen3", "deberta")
"""Those of exports.py."""

DOCUMENT = Path(__file__).parents[2] / "docs/models.md"
"""Its program exports the default model."""

TIMEOUT = 60.0


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, default_folder: Path) -> Path:
    """The folder of all cases. Without the oracle's environment: a failure under CI, else a skip."""
    folder = tmp_path_factory.mktemp("exports")
    default = shutil.copytree(default_folder, folder / "default")
    documented = folder / "export.py"
    documented.write_text(re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1])
    run_oracle("exports.py", folder, documented, default)
    write_ir(folder / "bert/model")
    return folder


def write_ir(model: Path) -> None:
    """OpenVINO's format, as exporters write it, and with weights as float16."""
    graph = ov.Core().read_model(model / "onnx/model.onnx")
    ov.save_model(graph, model / "openvino/openvino_model.xml", compress_to_fp16=False)
    ov.save_model(graph, model / "openvino/fp16.xml", compress_to_fp16=True)


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)


@pytest.fixture
def bert(exports, tmp_path) -> Path:
    """A copy of the exported BERT, to be changed."""
    return shutil.copytree(exports / "bert/model", tmp_path / "model")


def loaded(folder, dtype="f32", **settings):
    backend = LocalBackend(str(folder), dtype=dtype, threads=1, **settings)
    assert isinstance(backend.folder.encoder, Exported)
    return backend


def texts_of(folder):
    return json.loads((folder / "texts.json").read_text())


def every_way(backend, texts, compare, expected):
    """All texts in one batch, each alone, and in batches of some sizes, in both orders."""
    prepared = backend.prepare(texts)

    def embed(chosen):
        return backend.embed([prepared[index] for index in chosen], timeout=TIMEOUT).matrix

    everything = list(range(len(texts)))
    compare(embed(everything), expected)
    compare(embed(everything[::-1]), expected[::-1])
    for size in (1, 2, 5):
        starts = range(0, len(texts), size)
        compare(np.concatenate([embed(everything[at : at + size]) for at in starts]), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_are_those_of_sentence_transformers(exports, name):
    folder = exports / name
    every_way(loaded(folder / "model"), texts_of(folder), same, np.load(folder / "alone.npy"))


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("onnx/model_external.onnx", 0.999999),
        ("onnx/model_whole.onnx", 0.999999),
        ("onnx/model_only_texts.onnx", 0.999999),
        ("onnx/model_fp16.onnx", 0.9999),
        ("openvino/openvino_model.xml", 0.999999),
        ("openvino/fp16.xml", 0.9999),
    ],
)
def test_every_form_in_which_a_graph_is_published(exports, file, least):
    folder = exports / "bert"

    def close(vectors, expected):
        assert cosines(vectors, expected).min() >= least
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    backend = loaded(folder / "model", model_file=file)
    assert backend.info.dimensions == 24
    every_way(backend, texts_of(folder), close, np.load(folder / "alone.npy"))


@pytest.mark.parametrize("name", FAMILIES)
def test_low_precision_stays_close(exports, name):
    folder = exports / name
    backend = loaded(folder / "model", dtype="auto")
    vectors = backend.embed(backend.prepare(texts_of(folder)), timeout=TIMEOUT).matrix
    least = 0.99999 if backend.precision == "f32" else 0.98
    assert cosines(vectors, np.load(folder / "alone.npy")).min() >= least


@pytest.mark.parametrize("same_filesystem", [True, False])
def test_weights_beside_the_graph_in_the_hubs_cache(exports, bert, same_filesystem, monkeypatch):
    """There the files are links to others, of which each has the name of its hash."""
    if not same_filesystem:
        monkeypatch.setattr("os.link", lambda *paths: os.stat("/none"))
    blobs = bert.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted((bert / "onnx").iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    before = sorted(blobs.iterdir())
    backend = loaded(bert, model_file="onnx/model_external.onnx")
    vectors = backend.embed(backend.prepare(texts_of(exports / "bert")), timeout=TIMEOUT).matrix
    same(vectors, np.load(exports / "bert/alone.npy"))
    assert sorted(blobs.iterdir()) == before


# -- quantized models -----------------------------------------------------------------------------


def without_steps(folder):
    """Mean pooling alone."""
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", modules[:2])
    write_json(
        folder / modules[1]["path"] / "config.json", {"embedding_dimension": 1, "pooling_mode": "mean"}
    )
    return folder


@pytest.mark.model
def test_weights_of_four_bits_are_multiplied_as_floats_where_that_is_asked_for(exports, references):
    """Not as integers, as CPUs do faster: a text would have another vector in a batch than alone."""
    backend = loaded(exports / "default", model_file="onnx/model_q4.onnx")
    prepared = backend.prepare(references[0], truncate="end")
    together = backend.embed(prepared, timeout=TIMEOUT).matrix
    alone = np.concatenate([backend.embed([each], timeout=TIMEOUT).matrix for each in prepared])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_dynamically_quantized_graph_computes_each_text_alone(exports, bert):
    """Its scales come from all that is computed at once: a text's vector is that of the text alone, bit for
    bit, and near the one by the definitions of its operators."""
    backend = loaded(without_steps(bert), model_file="onnx/model_quantized.onnx")
    texts = texts_of(exports / "bert")
    prepared = backend.prepare(texts)
    alone = np.concatenate([backend.embed([each], timeout=TIMEOUT).matrix for each in prepared])
    assert cosines(alone, np.load(exports / "bert/model_quantized.npy")).min() >= 0.9999
    every_way(backend, texts, np.testing.assert_array_equal, alone)


@pytest.mark.parametrize(("file", "forgets"), [("model_quantized", True), ("model", False)])
def test_what_belongs_to_a_shape_is_not_kept_where_every_length_is_one(bert, file, forgets, monkeypatch):
    seen = []

    def compile_model(core, model, device, settings):
        seen.append(settings.get("CPU_RUNTIME_CACHE_CAPACITY"))
        return plain(core, model, device, settings)

    plain = ov.Core.compile_model
    monkeypatch.setattr(ov.Core, "compile_model", compile_model)
    loaded(without_steps(bert), model_file=f"onnx/{file}.onnx")
    assert seen == [0 if forgets else None]


def test_a_graph_whose_texts_see_each_other_is_refused(bert, monkeypatch):
    monkeypatch.setattr("llmrs.models.foreign.mixes_texts", lambda model: False)
    with pytest.raises(ModelError, match="than alone"):
        loaded(without_steps(bert), model_file="onnx/model_quantized.onnx")


# -- the default model ----------------------------------------------------------------------------


@pytest.mark.model
def test_the_default_model_is_the_same_from_both_of_its_forms(exports, default_f32, references):
    texts, _, expected = references

    def compare(vectors, others):
        assert cosines(vectors, others).min() >= 0.999999
        np.testing.assert_allclose(vectors, others, atol=2e-6)

    backend = loaded(exports / "default", model_file="onnx/model.onnx")
    prepared = backend.prepare(texts, truncate="end")
    together = backend.embed(prepared, timeout=TIMEOUT).matrix
    compare(together, expected)
    compare(np.concatenate([backend.embed([each], timeout=TIMEOUT).matrix for each in prepared]), expected)
    built = default_f32.embed(default_f32.prepare(texts, truncate="end"), timeout=TIMEOUT).matrix
    compare(together, built)


# -- what cannot be computed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("operator", "com.example.Fancy"),
        ("cache", "it asks for past_key_values.0.key"),
        ("no_mask", "no input attention_mask"),
        ("output", "its outputs are logits"),
        ("shape", "its vectors are [?,?]"),
        ("width", "its vectors are [?,?,?]"),
        ("fixed", "is [1,128]"),
        ("outside", "outside the base directory"),
        ("traced", "it cannot be computed"),
    ],
)
def test_a_graph_of_another_kind(exports, bert, name, reason):
    shutil.copy(exports / f"broken/{name}.onnx", bert / "other.onnx")
    assert reason in refusal(bert, "other.onnx")


def test_missing_or_damaged_files(bert):
    (bert / "onnx/model_external.onnx_data").write_bytes(b"short")
    assert "model_external.onnx_data" in refusal(bert, "onnx/model_external.onnx")
    (bert / "onnx/model_external.onnx_data").unlink()
    assert "model_external.onnx_data" in refusal(bert, "onnx/model_external.onnx")
    (bert / "openvino/openvino_model.bin").unlink()
    assert "bin file" in refusal(bert, "openvino/openvino_model.xml")
    whole = (bert / "onnx/model.onnx").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a graph"):
        (bert / "onnx/model.onnx").write_bytes(content)
        refusal(bert, "onnx/model.onnx")


def test_a_graph_of_another_size_than_its_configuration(bert):
    change_json(bert / "config.json", hidden_size=48)
    write_json(bert / "2_Dense/config.json", {"in_features": 48, "out_features": 24})
    assert "its vectors are [?,?,32]" in refusal(bert, "onnx/model.onnx")
    change_json(bert / "2_Dense/config.json", out_features=16)
    assert "its vectors are [?,24]" in refusal(bert, "onnx/model_only_texts.onnx")


def refusal(folder, file):
    """The one line with which a file is refused, and that names it."""
    with pytest.raises(ModelError) as raised:
        loaded(folder, model_file=file)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(folder / file) in message
    return message
