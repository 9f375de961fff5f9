"""What is read of a folder that sentence-transformers is to compute: sizes, and what is refused."""

from __future__ import annotations

import pytest

from llmrs.backends.local import LocalBackend
from llmrs.errors import ConfigError, ModelError
from llmrs.models import engines, folder, opaque
from llmrs.models.engines import open_engine
from llmrs.models.folder import read_folder
from tests.models.makers import HIDDEN, POSITIONS, VOCABULARY, change_json, make_model, write_json

KINDS = "sentence_transformers.models."


def steps(root, *kinds):
    """Write `modules.json`: a Transformer, and these."""
    modules = [("Transformer", "")] + [(kind, f"{number}_{kind}") for number, kind in enumerate(kinds, 1)]
    write_json(
        root / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": KINDS + kind}
            for n, (kind, path) in enumerate(modules)
        ],
    )
    for _, path in modules[1:]:
        (root / path).mkdir(exist_ok=True)


def read(root):
    return read_folder(root, engine="torch")


def refusal(root):
    with pytest.raises(ModelError) as raised:
        read(root)
    return str(raised.value)


def test_sizes(made):
    model = read(made.folder)
    encoder = model.encoder
    assert (encoder.hidden, encoder.vocabulary, encoder.padding_id) == (HIDDEN, VOCABULARY, 0)
    assert encoder.root == model.path == made.folder
    assert (model.dimensions, model.max_tokens, model.normalized) == (HIDDEN, POSITIONS, False)
    assert encoder.padded


def test_widths_follow_the_modules(made):
    root = made.folder
    steps(
        root,
        "WeightedLayerPooling",
        "CNN",
        "Pooling",
        "LayerNorm",
        "Dense",
        "Dropout",
        "Normalize",
        "Dropout",
    )
    write_json(root / "2_CNN/cnn_config.json", {"out_channels": 5, "kernel_sizes": [1, 3, 5]})
    write_json(root / "3_Pooling/config.json", {"embedding_dimension": 15, "pooling_mode": ["mean", "max"]})
    dense = {
        "out_features": 12,
        "use_residual": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(root / "5_Dense/config.json", {"out_features": 30} | {"activation_function": "torch.nn.Tanh"})
    model = read(root)
    assert (model.dimensions, model.normalized, model.encoder.padded) == (30, True, False)
    write_json(root / "5_Dense/config.json", dense)
    write_json(root / "config_sentence_transformers.json", {"truncate_dim": 7, "prompts": {"query": "q: "}})
    model = read(root)
    assert (model.dimensions, model.full_width, model.normalized) == (7, 12, False)
    assert model.prompts == {"query": "q: "}


def test_the_longest_input(made, tmp_path):
    change_json(made.folder / "config.json", max_position_embeddings=100_000, num_attention_heads=12)
    assert read(made.folder).max_tokens == 4729
    change_json(made.folder / "config.json", max_position_embeddings=...)
    assert read(made.folder).max_tokens == 4729
    write_json(made.folder / "sentence_albert_config.json", {"max_seq_length": 24})
    assert read(made.folder).max_tokens == 24
    assert read(make_model(tmp_path / "roberta", "roberta").folder).max_tokens == POSITIONS - 2


def test_a_module_that_is_unknown_or_code(made):
    steps(made.folder, "Pooling", "Router")
    write_json(made.folder / "1_Pooling/config.json", {"embedding_dimension": HIDDEN})
    assert "module 'Router' is not supported" in refusal(made.folder)
    write_json(made.folder / "modules.json", [{"path": "", "type": "modeling.Transformer"}])
    assert "code of its own, which is never run" in refusal(made.folder)
    steps(made.folder, "Normalize")
    assert "there is no Pooling" in refusal(made.folder)


def test_an_activation_that_is_code(made):
    steps(made.folder, "Pooling", "Dense")
    dense = {"out_features": 5, "activation_function": "os.system"}
    write_json(made.folder / "2_Dense/config.json", dense)
    assert "activation_function is code" in refusal(made.folder)


def test_pickles_are_not_opened(made):
    steps(made.folder, "Pooling", "Dense")
    write_json(made.folder / "2_Dense/config.json", {"out_features": 5})
    (made.folder / "2_Dense/pytorch_model.bin").touch()
    assert "is a pickle, which is never opened" in refusal(made.folder)
    (made.folder / "2_Dense/model.safetensors").touch()
    assert read(made.folder).dimensions == 5
    (made.folder / "model.safetensors").rename(made.folder / "pytorch_model.bin")
    assert "model.safetensors is missing" in refusal(made.folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_from_elsewhere_are_code(made, key):
    for value in ("someone/kernel", {"text": "someone/kernel@v1"}):
        change_json(made.folder / "config.json", sub={"parts": [{key: value}]})
        assert f"{key} is code from elsewhere" in refusal(made.folder)
    change_json(made.folder / "config.json", sub={key: "sdpa"})
    assert read(made.folder).dimensions == HIDDEN


ARGUMENTS = [
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
]


@pytest.mark.parametrize("key", ARGUMENTS)
def test_arguments_for_the_library_are_refused(made, key):
    write_json(made.folder / "sentence_bert_config.json", {key: {"attn_implementation": "someone/kernel"}})
    assert f'{key}.attn_implementation = "someone/kernel" is not' in refusal(made.folder)
    write_json(made.folder / "sentence_bert_config.json", {key: {}})
    assert read(made.folder).dimensions == HIDDEN


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, "auto_map.AutoModel"),
        ({"auto_map": {"AutoModelForCausalLM": "someone/code--modeling.Other"}}, "auto_map"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "qwen2", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
    ],
)
def test_what_transformers_would_leave_out_is_refused(made, changes, word):
    change_json(made.folder / "config.json", **changes)
    assert word in refusal(made.folder)


def test_what_transformers_obeys_is_left_to_it(made):
    changes = {"model_type": "gemma2", "use_bidirectional_attention": True, "frobnicate": 3}
    change_json(made.folder / "config.json", is_causal=False, **changes)
    assert read(made.folder).dimensions == HIDDEN


def test_parts_that_are_elsewhere(made):
    write_json(made.folder / "adapter_config.json", {"base_model_name_or_path": "someone/model"})
    assert "adapters are not supported" in refusal(made.folder)


def test_pooling_without_the_prompt_is_not_ours(made):
    change_json(made.folder / "1_Pooling/config.json", include_prompt=False)
    assert "include_prompt = false is not supported" in refusal(made.folder)


def test_only_safetensors_can_be_named(made):
    (made.folder / "model.onnx").touch()
    assert read_folder(made.folder, engine="torch", model_file="model.safetensors").dimensions == HIDDEN
    with pytest.raises(ModelError, match=r"engine = torch, of which only model\.safetensors can be read"):
        read_folder(made.folder, engine="torch", model_file="model.onnx")


def test_auto_goes_on_to_torch_where_it_is_installed(made, monkeypatch):
    change_json(made.folder / "config.json", model_type="luke")
    monkeypatch.setattr(folder, "is_installed", lambda: False)
    with pytest.raises(ModelError, match=r"pip install 'llmrs\[torch\]' and set ENGINE=torch.* BACKEND_URL"):
        read_folder(made.folder)
    monkeypatch.setattr(folder, "is_installed", lambda: True)
    assert isinstance(read_folder(made.folder).encoder, opaque.Opaque)
    for wanted in ({"engine": "openvino"}, {"model_file": "model.safetensors"}):
        with pytest.raises(ModelError, match="'luke' is not supported"):
            read_folder(made.folder, **wanted)


def test_without_the_extra_it_says_what_to_install(made, monkeypatch):
    monkeypatch.setattr(engines, "is_installed", lambda: False)
    with pytest.raises(ModelError, match=r"pip install 'llmrs\[torch\]'"):
        LocalBackend(str(made.folder), engine="torch")


def test_a_device_is_for_torch_alone(made):
    model = read_folder(made.folder)
    with pytest.raises(ConfigError, match="device = cuda: only engine = torch"):
        open_engine(model, device="cuda")
    assert open_engine(model, device="cpu").dimensions == HIDDEN
