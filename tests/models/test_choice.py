"""Which of a folder's files is computed, and how."""

from __future__ import annotations

import dataclasses

import pytest

from llmrs.errors import ModelError
from llmrs.models.architectures import Encoder
from llmrs.models.exported import Exported
from llmrs.models.files import EXPORTS, needed_weights
from llmrs.models.folder import read_folder
from tests.models.makers import HIDDEN, INNER, LAYERS, POSITIONS, VOCABULARY, change_json, make_model

ONNX, INT8, XML = "onnx/model.onnx", "onnx/model_quantized.onnx", "openvino/openvino_model.xml"


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def chosen(folder, **wanted):
    """The exported file that is taken, relative to the folder; None where the graph is built."""
    encoder = read_folder(folder, **wanted).encoder
    if isinstance(encoder, Encoder):
        return None
    assert isinstance(encoder, Exported)
    return str(encoder.file.relative_to(folder))


def refusal(folder, **wanted):
    with pytest.raises(ModelError) as raised:
        read_folder(folder, **wanted)
    return str(raised.value)


def test_what_can_be_built_comes_first(made):
    put(made.folder, ONNX, XML)
    assert chosen(made.folder) is None
    assert chosen(made.folder, engine="openvino") is None
    assert chosen(made.folder, model_file="model.safetensors") is None


def test_exported_models_come_in_a_fixed_order(made):
    (made.folder / "model.safetensors").unlink()
    put(made.folder, *EXPORTS, INT8)
    for name in EXPORTS:
        assert chosen(made.folder) == name
        (made.folder / name).unlink()


def test_a_family_that_cannot_be_built_is_taken_as_it_was_exported(made):
    put(made.folder, XML)
    change_json(made.folder / "config.json", model_type="luke")
    assert chosen(made.folder) == XML
    (made.folder / XML).unlink()
    assert "'luke' is not supported" in refusal(made.folder)


def test_a_file_of_another_name_counts_if_it_is_the_only_one(made):
    (made.folder / "model.safetensors").unlink()
    put(made.folder, INT8)
    assert chosen(made.folder) == INT8
    put(made.folder, "onnx/model_qint8_avx512.onnx")
    assert "set model_file to one of onnx/model_qint8_avx512.onnx, onnx/model_quantized" in refusal(
        made.folder
    )
    assert chosen(made.folder, model_file=INT8) == INT8


def test_the_file_that_is_asked_for(made):
    put(made.folder, ONNX, INT8, XML)
    for name in (ONNX, INT8, XML):
        assert chosen(made.folder, model_file=name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("onnx/model_fp16.onnx", "has no such file"),
        ("/etc/passwd", "leaves the model folder"),
        ("../model.safetensors", "leaves the model folder"),
        ("onnx", "has no such file"),
        ("config.json", "none that can be read"),
        ("1_Pooling/model.safetensors", "none that can be read"),
    ],
)
def test_a_file_that_cannot_be_meant(made, name, reason):
    put(made.folder, ONNX, "1_Pooling/model.safetensors")
    assert reason in refusal(made.folder, model_file=name)


def test_beside_the_encoder_or_in_the_models_folder(made):
    """sentence-transformers writes exports below the Transformer's folder, others beside modules.json."""
    place = made.folder / "0_Transformer"
    place.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (made.folder / name).rename(place / name)
    (made.folder / "model.safetensors").unlink()
    (made.folder / "modules.json").write_text(
        '[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"},'
        ' {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]'
    )
    put(made.folder, ONNX)
    assert chosen(made.folder) == ONNX
    put(place, ONNX)
    assert chosen(made.folder) == chosen(made.folder, model_file=ONNX) == f"0_Transformer/{ONNX}"


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_what_is_known_of_an_exported_model(tmp_path, kind):
    """The same as of the one that is built of it."""
    folder = make_model(tmp_path, kind).folder
    put(folder, ONNX)
    built = read_folder(folder).encoder
    encoder = read_folder(folder, model_file=ONNX).encoder
    sizes = dataclasses.asdict(encoder)
    del sizes["file"]
    assert sizes == {name: getattr(built, name) for name in sizes}
    assert (encoder.hidden, encoder.vocabulary) == (HIDDEN, VOCABULARY)
    assert encoder.max_tokens == POSITIONS - (2 if kind == "roberta" else 0)
    assert encoder.multiplications == LAYERS * HIDDEN * (4 * HIDDEN + 2 * INNER)


@pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_size_that_is_missing(made, name):
    put(made.folder, ONNX)
    change_json(made.folder / "config.json", **{name: ...})
    assert f"{name} is missing" in refusal(made.folder, model_file=ONNX)


def test_attention_of_an_exported_model_has_bounded_scores(made):
    put(made.folder, ONNX)
    change_json(made.folder / "config.json", max_position_embeddings=32768, num_attention_heads=12)
    assert read_folder(made.folder, model_file=ONNX).max_tokens == 4729


# -- of a listing ---------------------------------------------------------------------------------

WHOLE = ["model.safetensors", "2_Dense/model.safetensors", "config.json", "pytorch_model.bin"]
PARTS = ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"]
GRAPHS = [ONNX, f"{ONNX}_data", f"{ONNX}_data_1", INT8, XML, XML.replace("xml", "bin"), "onnx/notes.txt"]


@pytest.mark.parametrize(
    ("names", "wanted", "needed"),
    [
        (WHOLE + GRAPHS, {}, ["model.safetensors"]),
        (PARTS + GRAPHS, {}, PARTS),
        (WHOLE + GRAPHS, {"buildable": False}, GRAPHS[:3]),
        (GRAPHS, {}, GRAPHS[:3]),
        (GRAPHS[3:], {}, GRAPHS[4:6]),
        ([INT8], {}, [INT8]),
        (["0_Transformer/model.safetensors"], {}, ["0_Transformer/model.safetensors"]),
        ([f"0_Transformer/{ONNX}"], {}, [f"0_Transformer/{ONNX}"]),
        (WHOLE + GRAPHS, {"model_file": INT8}, [INT8]),
        (WHOLE + GRAPHS, {"model_file": XML}, GRAPHS[4:6]),
        (WHOLE, {"buildable": False}, ["model.safetensors"]),
        (["config.json", "pytorch_model.bin", "1_Pooling/model.onnx"], {}, []),
    ],
)
def test_what_a_download_brings(names, wanted, needed):
    assert needed_weights(names, **wanted) == needed


@pytest.mark.parametrize(
    ("names", "wanted", "reason"),
    [
        ([INT8, "onnx/model_int8.onnx"], {}, "a/b has several exported models"),
        (GRAPHS, {"model_file": "onnx/none.onnx"}, "a/b has no such file"),
    ],
)
def test_what_a_download_cannot_bring(names, wanted, reason):
    with pytest.raises(ModelError, match=reason):
        needed_weights(names, place="a/b", **wanted)


def test_a_download_brings_what_is_taken_from_a_folder(made):
    """The two rules are one: whatever is there, the file that is read is among those that are brought."""
    (made.folder / "model.safetensors").unlink()
    put(made.folder, *EXPORTS, INT8)
    for name in (*EXPORTS, INT8):
        files = [str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()]
        assert chosen(made.folder) == needed_weights(files)[0] == name
        (made.folder / name).unlink()
