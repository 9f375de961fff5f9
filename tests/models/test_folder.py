"""Reading a model folder, and every way in which one can be wrong."""

from __future__ import annotations

import pytest

from llmrs.errors import ModelError
from llmrs.models.families import FAMILIES
from llmrs.models.folder import Dense, Normalize, Pooling, read_folder
from llmrs.models.graph import build_graph
from tests.models.makers import HIDDEN, POSITIONS, change_json, make_model, write_json, write_safetensors


def refused(folder, *words):
    """Reading or building the folder fails with one line that has all of the words."""
    with pytest.raises(ModelError) as raised:
        build_graph(read_folder(folder))
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def test_the_default_model(default_folder):
    folder = read_folder(default_folder)
    assert folder.steps == (Pooling(("mean",)), Normalize())
    assert (folder.dimensions, folder.max_tokens, folder.normalized) == (384, 256, True)
    assert (len(folder.encoder.layers), folder.encoder.heads, folder.encoder.vocabulary) == (6, 12, 30522)
    assert folder.prompts == {}


def test_dense_sets_the_width(tmp_path):
    folder = read_folder(make_model(tmp_path, dense=((24, "tanh", True),), normalize=True).folder)
    assert isinstance(folder.steps[1], Dense)
    assert folder.dimensions == 24
    assert folder.normalized


@pytest.mark.parametrize(
    ("settings", "tokenizer", "expected"),
    [
        ({"max_seq_length": 16}, 20, 16),
        ({"max_seq_length": 1000}, 20, POSITIONS),
        ({}, 20, 20),
        ({}, int(1e30), POSITIONS),
        ({}, None, POSITIONS),
    ],
)
def test_the_longest_input(made, settings, tokenizer, expected):
    write_json(made.folder / "sentence_bert_config.json", settings)
    if tokenizer is not None:
        change_json(made.folder / "tokenizer_config.json", model_max_length=tokenizer)
    assert read_folder(made.folder).max_tokens == expected


def test_roberta_has_fewer_positions_than_rows(tmp_path):
    assert read_folder(make_model(tmp_path, "roberta").folder).max_tokens == POSITIONS - 2


def test_prompts(made):
    path = made.folder / "config_sentence_transformers.json"
    write_json(path, {"prompts": {"query": "query: ", "passage": "passage: ", "sts": "similar: "}})
    assert read_folder(made.folder).prompts == {
        "query": "query: ",
        "passage": "passage: ",
        "sts": "similar: ",
        "document": "passage: ",
    }
    change_json(path, default_prompt_name="sts")
    assert read_folder(made.folder).prompts[""] == "similar: "
    change_json(path, default_prompt_name="none of them")
    refused(made.folder, "config_sentence_transformers.json", "default_prompt_name")


def test_matryoshka_and_cut(tmp_path):
    made = make_model(tmp_path, normalize=True)
    change_json(tmp_path / "config.json", matryoshka_dimensions=[16, 8])
    write_json(tmp_path / "config_sentence_transformers.json", {"truncate_dim": 16})
    folder = read_folder(made.folder)
    assert folder.matryoshka == (8, 16)
    assert folder.dimensions == 16
    assert not folder.normalized  # a cut unit vector is not one


def test_modules_in_folders_of_their_own(tmp_path):
    make_model(tmp_path)
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).rename(tmp_path / "0_Transformer" / name)
    kinds = ["Transformer", "Pooling", "Dropout"]
    paths = ["0_Transformer", "1_Pooling", "2_Dropout"]
    modules = [
        {"path": path, "type": f"sentence_transformers.base.modules.{kind.lower()}.{kind}"}
        for kind, path in zip(kinds, paths, strict=True)
    ]
    write_json(tmp_path / "modules.json", modules)
    folder = read_folder(tmp_path)
    assert folder.path == tmp_path / "0_Transformer"
    assert folder.steps == (Pooling(("mean",)),)
    build_graph(folder)


# -- what is missing or broken --------------------------------------------------------------------


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "config.json", "incomplete")


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json"])
def test_a_missing_configuration(made, name):
    (made.folder / name).unlink()
    refused(made.folder, name)


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b"3", b'"text"'])
def test_a_broken_configuration(made, name, content):
    (made.folder / name).write_bytes(content)
    refused(made.folder, name)


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size", "model_type"])
@pytest.mark.parametrize("value", [..., None, "12", True, -1, 1.5, [], {}])
def test_a_wrong_value_in_the_configuration(made, name, value):
    if name == "model_type" and value == "12":
        return
    change_json(made.folder / "config.json", **{name: value})
    refused(made.folder, "config.json", name)


@pytest.mark.parametrize("kind", ["t5", "llama", "12", "x" * 10_000])
def test_an_unsupported_architecture(made, kind):
    """The message says which are supported."""
    change_json(made.folder / "config.json", model_type=kind)
    refused(made.folder, "config.json", kind[:40], "BACKEND_URL", *FAMILIES)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"hidden_act": "quick_gelu"}, "quick_gelu"),
        ({"position_embedding_type": "relative_key"}, "position"),
        ({"is_decoder": True}, "decoder"),
        ({"num_attention_heads": 5}, "heads"),
        ({"matryoshka_dimensions": ["all"]}, "matryoshka_dimensions"),
    ],
)
def test_an_unsupported_setting(made, changes, word):
    change_json(made.folder / "config.json", **changes)
    refused(made.folder, "config.json", word)


@pytest.mark.parametrize(
    ("modules", "word"),
    [
        ([], "first module"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}], "first module"),
        ([{"type": "sentence_transformers.models.Transformer", "path": ""}], "Pooling"),
        ([{"type": "custom_code.Transformer", "path": ""}], "never run"),
        ([{"type": "sentence_transformers.models.Transformer", "path": "../elsewhere"}], "leaves"),
        ([{"type": "sentence_transformers.models.Transformer", "path": "/etc"}], "leaves"),
        ([{"path": ""}], "type"),
        (["Transformer"], "list of modules"),
    ],
)
def test_wrong_modules(made, modules, word):
    write_json(made.folder / "modules.json", modules)
    refused(made.folder, "modules.json", word)


@pytest.mark.parametrize("kind", ["CNN", "LSTM", "WordEmbeddings"])
def test_an_unsupported_module(made, kind):
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), (kind, "2_Other")]
    write_json(
        made.folder / "modules.json",
        [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in modules],
    )
    refused(made.folder, "modules.json", kind)


def test_a_layer_norm_of_another_width(made):
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("LayerNorm", "2_LayerNorm")]
    write_json(
        made.folder / "modules.json",
        [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in modules],
    )
    write_json(made.folder / "2_LayerNorm/config.json", {"dimension": HIDDEN})
    assert read_folder(made.folder).dimensions == HIDDEN
    write_json(made.folder / "2_LayerNorm/config.json", {"dimension": HIDDEN + 1})
    refused(made.folder, "2_LayerNorm", "dimension")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"pooling_mode": "attention"}, "pooling_mode"),
        ({"pooling_mode": []}, "pooling_mode"),
        ({"pooling_mode": 7}, "pooling_mode"),
        ({"pooling_mode": [["mean"]]}, "pooling_mode"),
        ({"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
        ({"pooling_mode": "mean", "word_embedding_dimension": ...}, "embedding_dimension"),
    ],
)
def test_unsupported_pooling(made, config, word):
    path = made.folder / "1_Pooling" / "config.json"
    write_json(path, {"word_embedding_dimension": HIDDEN})
    change_json(path, **config)
    refused(made.folder, "1_Pooling", word)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"activation_function": "os.system"}, "activation_function"),
        ({"activation_function": "torch.nn.modules.activation.Hardtanh"}, "activation_function"),
        ({"use_residual": True}, "use_residual"),
        ({"module_input_name": "token_embeddings"}, "module_input_name"),
        ({"in_features": HIDDEN + 1}, "in_features"),
        ({"out_features": 25}, "linear.weight"),
        ({"out_features": ...}, "out_features"),
    ],
)
def test_unsupported_dense(tmp_path, changes, word):
    made = make_model(tmp_path, dense=((24, "tanh", True),))
    change_json(made.folder / "2_Dense" / "config.json", **changes)
    refused(made.folder, "2_Dense", word)


# -- weights --------------------------------------------------------------------------------------


def test_missing_weights(made):
    (made.folder / "model.safetensors").unlink()
    (made.folder / "pytorch_model.bin").touch()
    refused(made.folder, "model.safetensors", "convert")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 2000, -1])
def test_truncated_weights(made, keep):
    path = made.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(made.folder, "model.safetensors", "truncated or corrupt")


@pytest.mark.parametrize("start", [b"\xff" * 8, b"\x00" * 8, b"\x10" + b"\x00" * 7 + b"not JSON at all."])
def test_corrupt_weights(made, start):
    path = made.folder / "model.safetensors"
    path.write_bytes(start + path.read_bytes()[len(start) :])
    refused(made.folder, "model.safetensors", "truncated or corrupt")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_folder_that_was_cloned_without_its_large_files(made, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90\n"
    (made.folder / name).write_text(pointer, encoding="utf-8")
    refused(made.folder, name, "it is a pointer of Git LFS, run `git lfs pull` there")


def test_weights_that_are_no_file(made):
    (made.folder / "model.safetensors").unlink()
    (made.folder / "model.safetensors").mkdir()
    refused(made.folder, "model.safetensors")


def test_a_missing_tensor(made):
    path = made.folder / "model.safetensors"
    path.write_bytes(
        path.read_bytes().replace(b"encoder.layer.1.output.dense.bias", b"encoder.layer.1.output.dense.nope")
    )
    refused(made.folder, "model.safetensors", "encoder.layer.1.output.dense.bias")


def test_weights_of_another_model(made):
    change_json(made.folder / "config.json", hidden_size=64, intermediate_size=128)
    refused(made.folder, "model.safetensors", "shape")


def test_weights_without_words(made):
    norm = "embeddings.LayerNorm.bias"
    write_safetensors(made.folder / "model.safetensors", {norm: made.oracle.tensors[norm]})
    refused(made.folder, "model.safetensors", "word_embeddings")


def test_quantized_weights(made):
    write_safetensors(made.folder / "model.safetensors", made.oracle.tensors, "I8")
    refused(made.folder, "model.safetensors", "I8")


def test_a_missing_part(tmp_path):
    make_model(tmp_path, parts=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, "model-00002-of-00003.safetensors", "missing")


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {"a": 3}, {"a": "../secrets.safetensors"}, {"a": "/etc/passwd"}]
)
def test_a_wrong_index(tmp_path, weight_map):
    make_model(tmp_path, parts=2)
    change_json(tmp_path / "model.safetensors.index.json", weight_map=weight_map)
    refused(tmp_path, "model.safetensors.index.json", "weight_map")
