"""What the files of a folder may say: every key is obeyed, of no account, or refused with file and value."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.errors import ModelError
from llmrs.models import config_keys, families, layout
from llmrs.models.exported import read_exported
from llmrs.models.folder import read_folder
from llmrs.models.graph import build_graph
from llmrs.models.rules import IGNORED, READ, UNSET, check_keys, each, only, within
from llmrs.models.settings import Settings
from tests.models.documented_keys import DOCUMENT, block
from tests.models.makers import (
    HIDDEN,
    POSITIONS,
    change_json,
    make_model,
    make_static,
    write_json,
    write_safetensors,
)

SENTENCES = "config_sentence_transformers.json"
ENGINES = ("auto", "openvino", "torch")


def refused(folder, *words, **wanted):
    """Reading fails with one line that has all of the words."""
    with pytest.raises(ModelError) as raised:
        read_folder(folder, **wanted)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def config(kind, **changes):
    """Of a small model of that family."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
    if kind == "qwen3":
        sizes["num_key_value_heads"] = 2
    if kind == "distilbert":
        sizes["hidden_dim"] = 48
    return {"model_type": kind, **sizes, "vocab_size": 99, "max_position_embeddings": 40, **changes}


JINA = {
    "AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig",
    "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
}

# -- tables ---------------------------------------------------------------------------------------

TABLE = {
    "read": READ,
    "name": IGNORED,
    "unset": UNSET,
    "one": only(1, "a", []),
    "flag": only(False),
    "inner": within({"deep": within({"leaf": only(2)})}),
    **each(IGNORED, "b c"),
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"read": object, "name": {"any": "thing"}, "b": 1, "c": [2]},
        {"unset": None, "one": None, "inner": None, "never heard of": None},
        {"one": 1.0, "flag": False},
        {"one": [], "inner": {"deep": {"leaf": 2}}},
        {"inner": {"deep": {}}},
    ],
)
def test_what_a_table_lets_through(tmp_path, values):
    check_keys(Settings(tmp_path / "some.json", values), TABLE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"other": 3}, "other = 3 is not known and could change the vectors"),
        ({"unset": 0}, "unset = 0 is not supported, it must be null or absent"),
        ({"one": True}, 'one = true is not supported, only 1, "a", [] is'),
        ({"flag": 0}, "flag = 0 is not supported, only false is"),
        ({"inner": {"deep": {"leaf": 3}}}, "inner.deep.leaf = 3 is not supported, only 2 is"),
        ({"inner": {"deep": {"leaves": 3}}}, "inner.deep.leaves = 3 is not known"),
        ({"inner": [1]}, "inner is of the wrong type (list), expected an object"),
        ({"k" * 900: "v" * 900}, "k" * 60 + ' = "' + "v" * 59 + " is not known"),
    ],
)
def test_what_a_table_refuses(tmp_path, values, message):
    with pytest.raises(ModelError) as raised:
        check_keys(Settings(tmp_path / "some.json", values), TABLE)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'some.json'}: ")


def test_others_may_be_somebody_elses(tmp_path):
    check_keys(Settings(tmp_path, {"other": 3}), TABLE, others=True)


def test_every_family_has_a_table():
    assert config_keys.FAMILIES.keys() == families.FAMILIES.keys()


@pytest.mark.parametrize(
    ("kind", "given", "padding", "skips"),
    [
        ("xlm-roberta", {}, 1, True),
        ("xlm-roberta", {"pad_token_id": 1}, 1, True),
        ("roberta", {"pad_token_id": -1}, 0, False),
        ("mpnet", {"pad_token_id": 0}, 1, True),
        ("bert", {}, 0, False),
        ("bert", {"pad_token_id": -1}, 0, False),
    ],
)
def test_positions_of_an_exported_graph_count_as_those_of_a_built_one(tmp_path, kind, given, padding, skips):
    values = {key: value for key, value in config(kind).items() if key != "pad_token_id"}
    settings = Settings(tmp_path / "config.json", {**values, **given})
    exported = read_exported(tmp_path / "model.onnx", settings)
    built = families.read_encoder(settings)
    assert (exported.padding_id, exported.positions_skip_padding) == (padding, skips)
    assert (built.padding_id, built.positions_skip_padding) == (padding, skips)
    assert exported.max_tokens == built.max_tokens


# -- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_an_unknown_key_is_refused_in_every_family(tmp_path, kind):
    path = tmp_path / "config.json"
    families.read_encoder(Settings(path, config(kind)))
    with pytest.raises(ModelError, match=r"config\.json: frobnicate = 3 is not known"):
        families.read_encoder(Settings(path, config(kind, frobnicate=3)))


@pytest.mark.parametrize("kind", families.FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "modeling_own.OwnModel"}},
        {"auto_map": {"AutoConfig": "someone/else--configuration_bert.JinaBertConfig"}},
        {"architectures": ["OwnModel"]},
        {"architectures": "BertModel"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"attn_implementation": "someone/kernel"},
        {"per_layer_config": {"1": {"hidden_act": "relu"}}},
        {"transformers_weights": "other.safetensors"},
        {"pruned_heads": {"0": [1]}},
        {"is_decoder": True},
        {"is_encoder_decoder": True},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_what_decides_masks_heads_and_code_is_refused(tmp_path, kind, changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        families.read_encoder(Settings(tmp_path / "config.json", config(kind, **changes)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {"is_causal": True}),
        ("bert", {"use_bidirectional_attention": False}),
        ("modernbert", {"sliding_window": 4}),
        ("modernbert", {"rope_theta": 77.0}),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("modernbert", {"rope_parameters": {"rope_theta": 77.0}}),
        ("nomic_bert", {"rope_theta": 77.0}),
        ("nomic_bert", {"head_dim": 16}),
        ("nomic_bert", {"n_layer": 3}),
        ("nomic_bert", {"scale_attn_weights": False}),
        ("distilbert", {"n_heads": 8}),
        ("distilbert", {"hidden_dim": 64}),
        ("gte", {"head_dim": 16}),
        ("gte", {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_theta": 77.0}}),
        ("qwen3", {"use_bidirectional_attention": True}),
        ("qwen3", {"is_causal": False, "use_sliding_window": True}),
        ("gemma3_text", {"is_causal": False}),
        ("gemma3_text", {"_sliding_window_pattern": 2}),
    ],
)
def test_what_one_family_alone_understands_otherwise_is_refused(tmp_path, kind, changes):
    """Each of these either changes the oracle's vectors, or is a word of another family for a change."""
    with pytest.raises(ModelError, match=next(iter(changes))):
        families.read_encoder(Settings(tmp_path / "config.json", config(kind, **changes)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {"position_embedding_type": "alibi", "auto_map": JINA}),
        ("new", {"auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}}),
        ("new", {"auto_map": {"AutoConfig": "configuration.NewConfig"}, "architectures": ["NewModel"]}),
        ("gte", {"auto_map": {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"}}),
        ("nomic_bert", {"auto_map": {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"}}),
        (
            "nomic_bert",
            {"auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}},
        ),
        ("bert", {"architectures": ["BertForSequenceClassification"], "num_labels": 1, "pruned_heads": {}}),
        ("qwen3", {"architectures": ["Qwen3ForCausalLM"], "temperature": 0.6}),
        ("roberta", {"pad_token_id": -1, "torch_dtype": "float16", "transformers.js_config": {}}),
        ("xlm-roberta", {"num_attention_heads": 4.0}),
    ],
)
def test_what_published_models_say_is_understood(tmp_path, kind, changes):
    families.read_encoder(Settings(tmp_path / "config.json", config(kind, **changes)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {"is_causal": None}),
        ("gemma3_text", {"is_causal": None}),
        ("gemma3_text", {"query_pre_attn_scalar": None}),
        ("gemma3_text", {"sliding_window": None}),
        ("modernbert", {"local_attention": None}),
        ("bert", {"hidden_act": None}),
    ],
)
def test_null_that_is_not_the_same_as_absent(tmp_path, kind, changes):
    """To transformers a null `is_causal` is a false one; the others it does not load."""
    with pytest.raises(ModelError, match=f"{next(iter(changes))} = null is not supported"):
        families.read_encoder(Settings(tmp_path / "config.json", config(kind, **changes)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {"layer_norm_eps": 0}),
        ("bert", {"layer_norm_eps": -1e-5}),
        ("qwen3", {"rms_norm_eps": 8}),
        ("qwen3", {"rope_theta": 0}),
        ("gemma3_text", {"query_pre_attn_scalar": 0}),
        ("gemma3_text", {"query_pre_attn_scalar": 0.5}),
    ],
)
def test_numbers_that_nothing_can_be_computed_with(tmp_path, kind, changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        families.read_encoder(Settings(tmp_path / "config.json", config(kind, **changes)))


def test_a_padding_id_outside_the_word_table(tmp_path):
    for wrong in (99, -100):
        with pytest.raises(ModelError, match="pad_token_id"):
            families.read_encoder(Settings(tmp_path / "config.json", config("bert", pad_token_id=wrong)))


def test_two_names_of_one_rotation_agree(tmp_path):
    said = config("gte", rope_scaling={"type": "linear", "rope_type": "default", "factor": 2})
    with pytest.raises(ModelError, match="rope_type = default and type = linear contradict each other"):
        families.read_encoder(Settings(tmp_path / "config.json", said))


def test_the_padding_of_mpnet_is_no_setting(tmp_path):
    for padding_id in (0, 1, -1):
        said = config("mpnet", pad_token_id=padding_id)
        encoder = families.read_encoder(Settings(tmp_path / "config.json", said))
        assert (encoder.padding_id, encoder.positions_skip_padding) == (1, True)


def test_the_code_of_another_jina_model_is_refused(tmp_path):
    """Its layers have norms that these have not."""
    theirs = "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"
    jina = config("bert", position_embedding_type="alibi", auto_map={"AutoModel": theirs})
    with pytest.raises(ModelError, match=r"auto_map\.AutoModel"):
        families.read_encoder(Settings(tmp_path / "config.json", jina))


# -- files around it ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [f"sentence_{kind}_config.json" for kind in ("bert", "xlm-roberta")])
@pytest.mark.parametrize(
    "settings",
    [
        {"frobnicate": 3},
        {"config_args": {"num_hidden_layers": 3}},
        {"config_kwargs": {"is_causal": False}},
        {"model_kwargs": {"num_labels": 3}},
        {"processor_kwargs": {"do_lower_case": False}},
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        {"processing_kwargs": {"text": {"truncation": False}}},
        {"processing_kwargs": {"common": {"max_length": 3}}},
        {"processing_kwargs": {"words": {}}},
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
        {"modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}},
        {"query_length": 5},
        {"document_length": 5},
        {"query_expansion": {"strategy": "fixed", "length": 3}},
        {"tokenizer_name_or_path": "someone/else"},
        {"max_seq_length": 7.5},
        {"max_seq_length": 0},
    ],
)
def test_settings_of_the_transformer_that_are_not_obeyed(made, engine, name, settings):
    write_json(made.folder / name, settings)
    refused(made.folder, f"{name}: ", next(iter(settings)), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_of_the_transformer_that_are(made, engine):
    path = made.folder / "sentence_bert_config.json"
    for settings, longest in (
        ({"max_seq_length": 16.0}, 16),
        ({"max_seq_length": 16, "processing_kwargs": {"text": {"max_length": 4}}}, 4),
        ({"max_seq_length": 16, "tokenizer_args": {"model_max_length": 6}}, 6),
        ({"max_seq_length": None, "query_length": None, "unpad_inputs": False}, POSITIONS),
        ({"model_args": {"torch_dtype": "float16", "trust_remote_code": True}}, POSITIONS),
    ):
        write_json(path, settings)
        assert read_folder(made.folder, engine=engine).max_tokens == longest


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (SENTENCES, {"frobnicate": 3}),
        (SENTENCES, {"model_type": "SparseEncoder"}),
        (SENTENCES, {"prompts": {"query": 3}}),
        (SENTENCES, {"prompts": 0}),
        (SENTENCES, {"prompts": {"": "x "}}),
        ("1_Pooling/config.json", {"frobnicate": 3}),
        ("1_Pooling/config.json", {"include_prompt": False}),
        ("2_Dense/config.json", {"frobnicate": 3}),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}),
    ],
)
def test_keys_of_the_modules(tmp_path, engine, file, changes):
    folder = make_model(tmp_path, dense=((24, "tanh", True),), normalize=True).folder
    for name in (SENTENCES, "3_Normalize/config.json"):
        write_json(folder / name, {})
    change_json(folder / file, **changes)
    refused(folder, f"{file}: ", next(iter(changes)), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"frobnicate": 3}, "frobnicate"),
        ({"kwargs": ["task"]}, "kwargs"),
        ({"name": "0"}, "two modules have one name"),
        ({"path": None}, "path is missing"),
        ({"type": "sentence_transformers.sparse_encoder.models.Pooling"}, "never run"),
    ],
)
def test_keys_of_the_list_of_modules(made, engine, changes, word):
    modules = json.loads((made.folder / "modules.json").read_text())
    modules[1].update(changes)
    write_json(made.folder / "modules.json", modules)
    refused(made.folder, "modules.json: ", word, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_with_the_settings_of_another(made, engine):
    """Even one that does nothing is not loaded so by sentence-transformers."""
    modules = json.loads((made.folder / "modules.json").read_text())
    dropout = {"name": "2", "path": "1_Pooling", "type": "sentence_transformers.models.Dropout"}
    write_json(made.folder / "modules.json", [*modules, dropout])
    refused(made.folder, "1_Pooling/config.json: ", "is not known", engine=engine)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_another_encoding_is_no_json(made, encoding):
    (made.folder / SENTENCES).write_bytes("{}".encode(encoding))
    refused(made.folder, SENTENCES, "is not valid JSON")


def test_a_null_prompt_is_an_empty_one(made):
    write_json(made.folder / SENTENCES, {"prompts": {"query": None}, "default_prompt_name": "query"})
    assert read_folder(made.folder).prompts == {"query": "", "": ""}


# -- weights --------------------------------------------------------------------------------------


def stored(made, *others, prefix=""):
    """Write the model's tensors with that prefix, and others beside them."""
    tensors = {prefix + name: tensor for name, tensor in made.oracle.tensors.items()}
    more = {name: np.ones((2, 2)) for name in others}
    write_safetensors(made.folder / "model.safetensors", {**tensors, **more})
    return made.folder


@pytest.mark.parametrize(
    "name",
    [
        "linear.weight",
        "encoder.layer.0.attention.self.query.lora_A.weight",
        "encoder.layer.0.attention.self.query.weight_scale",
        "encoder.layer.0.attention.self.layer_norm_q.weight",
        "embeddings.distance_embedding.weight",
        "base_model.model.embeddings.LayerNorm.weight",
    ],
)
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_tensor_that_is_not_known_is_refused(made, prefix, name):
    for full in {name, prefix + name}:
        with pytest.raises(ModelError, match=f"tensor {full} is not known") as raised:
            build_graph(read_folder(stored(made, full, prefix=prefix)))
        assert str(made.folder / "model.safetensors") in str(raised.value)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_heads_buffers_and_further_layers_are_of_no_account(made, prefix):
    within = ("pooler.dense.weight", "embeddings.position_ids", "encoder.layer.7.output.dense.bias")
    heads = ("cls.predictions.bias", "classifier.weight", "lm_head.dense.weight", "score.weight")
    build_graph(read_folder(stored(made, *heads, *(prefix + name for name in within), prefix=prefix)))


def test_several_encoders_in_one_file(made):
    words = "embeddings.word_embeddings.weight"
    for folder in (stored(made, words, prefix="bert."), stored(made, f"bert.{words}")):
        with pytest.raises(ModelError, match=r"embeddings\.weight and embeddings\.word_emb.* not clear"):
            build_graph(read_folder(folder))


@pytest.mark.parametrize("prefix", ["roberta.", "encoder_q.", "0.auto_model.", "bert.bert."])
def test_an_encoder_under_another_name(made, prefix):
    with pytest.raises(ModelError, match=r"which encoder is meant is not clear.* '', 'bert\.'"):
        build_graph(read_folder(stored(made, prefix=prefix)))


def test_a_tensor_of_a_dense_layer_that_is_not_known(tmp_path):
    folder = make_model(tmp_path, dense=((24, "tanh", True),)).folder
    tensors = {"linear.weight": np.ones((24, HIDDEN)), "linear.bias": np.ones(24)}
    write_safetensors(folder / "2_Dense/model.safetensors", {**tensors, "residual.weight": np.ones((1, 1))})
    with pytest.raises(ModelError, match=r"2_Dense/model\.safetensors: tensor residual\.weight is not known"):
        build_graph(read_folder(folder))


@pytest.mark.parametrize(
    ("others", "word"), [(("embeddings",), "embeddings"), (("weights",), "weights"), (("more",), "more")]
)
def test_tensors_of_a_static_model(tmp_path, others, word):
    made = make_static(tmp_path, 8)
    more = {name: np.ones((2, 2)) for name in others}
    write_safetensors(made.folder / "model.safetensors", {"embedding.weight": made.table, **more})
    with pytest.raises(ModelError, match=f"tensor {word} is not"):
        LocalBackend(str(made.folder))


# -- what else lies there -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", layout.ADAPTERS)
def test_an_adapter_is_refused_wherever_it_lies(made, engine, name):
    write_json(made.folder / name, {"base_model_name_or_path": "someone/model"})
    refused(made.folder, name, "adapters are not supported", engine=engine)


def test_an_adapter_beside_a_static_model(tmp_path):
    folder = make_static(tmp_path, 8).folder
    write_json(folder / "adapter_config.json", {})
    refused(folder, "adapter_config.json")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("left", ["1_Pooling/config.json", "sentence_bert_config.json", SENTENCES])
def test_a_folder_that_has_lost_its_list_of_modules(made, engine, left):
    """Its default modules would be others than its own."""
    (made.folder / "modules.json").unlink()
    shutil.rmtree(made.folder / "1_Pooling")
    read_folder(made.folder, engine=engine)
    write_json(made.folder / left, {})
    refused(made.folder, "modules.json is missing", left, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bare_folder_that_makes_chats_of_texts(made, engine):
    (made.folder / "modules.json").unlink()
    shutil.rmtree(made.folder / "1_Pooling")
    write_json(made.folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    refused(made.folder, "tokenizer_config.json: chat_template", engine=engine)
    write_json(made.folder / "tokenizer_config.json", {})
    (made.folder / "chat_template.jinja").write_text("{{ messages }}")
    refused(made.folder, "chat_template.jinja: chat_template", engine=engine)


def test_classes_of_a_bare_folder(tmp_path):
    """Only the first class counts."""
    for changes, pooling in (
        ({}, "mean"),
        ({"architectures": ["BertForMaskedLM", "BertForCausalLM"]}, "mean"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "lasttoken"),
        ({"architectures": ["Qwen3ForCausalLM"], "is_causal": False}, "mean"),
        ({"architectures": ["Qwen3ForCausalLM"], "is_causal": None}, "mean"),
    ):
        assert layout.default_pooling(Settings(tmp_path, changes)) == pooling


def test_the_tables_are_documented():
    """`python -m tests.models.documented_keys` writes them."""
    assert block() in DOCUMENT.read_text(encoding="utf-8")
