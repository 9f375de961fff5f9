"""The torch engine against sentence-transformers' own `encode`. Run by test_torch.py, where both are.

Small random models of kinds that no graph is built for, or with modules that no graph has, are made here,
saved as published, and loaded by both.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import CNN, LayerNorm, Pooling, WeightedLayerPooling

from llmrs.backends.local import LocalBackend
from llmrs.embedder import Embedder
from llmrs.errors import ConfigError, DeadlineExceeded, EngineError, ModelError, NotReady
from llmrs.models.architectures import Encoder
from llmrs.models.folder import read_folder
from llmrs.models.opaque import Opaque
from llmrs.models.resolve import DEFAULT_MODEL, resolve
from llmrs.models.torch_engine import TorchEngine
from llmrs.models.torch_model import FeatureMaker, choose_device, choose_dtype
from tests.models.families import SIZES, SPECIALS, randomize, tokenizer
from tests.models.makers import change_json

WORDS = [f"w{number}" for number in range(60)]
LENGTHS = (1, 2, 3, 5, 8, 8, 13, 21, 34, 8, 55, 1)
"""Words of the texts."""

T5 = {
    "vocab_size": SIZES["vocab_size"],
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
}
FUNNEL = {
    "vocab_size": SIZES["vocab_size"],
    "block_sizes": [2, 2],
    "d_model": 32,
    "n_head": 4,
    "d_head": 8,
    "d_inner": 48,
    "num_decoder_layers": 1,
    "architectures": ["FunnelModel"],
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 80, "vocab_size": SIZES["vocab_size"]}

connections: list[str] = []


def note_connections(event: str, arguments: Any) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        connections.append(f"{event} {arguments}")


sys.addaudithook(note_connections)


class Case(NamedTuple):
    """One model.

    Attributes:
        kind: its `model_type`.
        config: its sizes.
        steps: what follows the encoder.
        left: whether its tokenizer pads on the left.
        padded: whether texts of different lengths may be computed together.
    """

    kind: str
    config: dict[str, Any] = SIZES
    steps: Callable[[], list[Any]] = lambda: [Pooling(32, "mean")]
    left: bool = False
    padded: bool = True


CASES = {
    "deberta": Case("deberta-v2", {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "t5": Case("t5", T5, lambda: [Pooling(32, "mean"), Dense(32, 24, bias=False), Normalize()]),
    "funnel": Case("funnel", FUNNEL, lambda: [Pooling(32, "cls")], padded=False),
    "gpt2-left": Case("gpt2", {**GPT2, "pad_token_id": 0}, lambda: [Pooling(32, "lasttoken")], left=True),
    "layernorm": Case("bert", steps=lambda: [Pooling(32, ["mean", "max"]), LayerNorm(64)]),
    "layers": Case(
        "bert",
        {**SIZES, "output_hidden_states": True},
        lambda: [WeightedLayerPooling(32, num_hidden_layers=3, layer_start=1), Pooling(32, "mean")],
    ),
    "cnn": Case("bert", steps=lambda: [CNN(32, 8, [1, 3, 5]), Pooling(24, "mean")], padded=False),
    "qwen3-left": Case(
        "qwen3",
        {**SIZES, "num_key_value_heads": 2, "head_dim": 16},
        lambda: [Pooling(32, "lasttoken"), Normalize()],
        left=True,
    ),
}


class Made(NamedTuple):
    """A model's folder, texts, and their vectors, each computed alone."""

    folder: Path
    texts: list[str]
    vectors: np.ndarray


def make(case: Case, folder: Path) -> Made:
    random = torch.Generator().manual_seed(1)
    config = hf.AutoConfig.for_model(case.kind, **case.config)
    encoder = hf.T5EncoderModel(config) if case.kind == "t5" else hf.AutoModel.from_config(config)
    randomize(encoder, random)
    encoder.eval().save_pretrained(folder / "encoder")
    fast = tokenizer("<s> $A </s>", SPECIALS[0])
    fast.padding_side = "left" if case.left else "right"
    fast.save_pretrained(folder / "encoder")
    steps = case.steps()
    for step in steps:
        randomize(step, random)
    model = SentenceTransformer(
        modules=[Transformer(str(folder / "encoder")), *steps],
        prompts={"query": "w1 w2 ", "document": "w3 "},
        device="cpu",
    )
    model.eval().save(str(folder / "model"))
    numbers = np.random.default_rng(1)
    texts = [" ".join(numbers.choice(WORDS, length)) for length in LENGTHS]
    return Made(folder / "model", texts, np.stack([model.encode(text) for text in texts]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    torch.set_num_threads(1)
    made = {name: make(case, tmp_path_factory.mktemp(name)) for name, case in CASES.items()}
    connections.clear()  # saving asks the hub for what a model's description could link to
    return made


@pytest.fixture(scope="module")
def deberta(models: dict[str, Made]) -> LocalBackend:
    return LocalBackend(str(models["deberta"].folder), engine="torch", threads=1)


@pytest.fixture
def engine(models: dict[str, Made]) -> TorchEngine:
    """One to be damaged."""
    return TorchEngine(read_folder(models["deberta"].folder, engine="torch"), threads=1)


def same(vectors: np.ndarray, expected: np.ndarray) -> None:
    assert vectors.shape == expected.shape
    assert vectors.dtype == np.float32
    a, b = vectors.astype(np.float64), expected.astype(np.float64)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() >= 0.99999
    np.testing.assert_allclose(vectors, expected, atol=2e-5 * np.abs(expected).max())


def ids(backend: LocalBackend, texts: list[str]) -> list[np.ndarray]:
    return [each.payload for each in backend.prepare(texts)]


# -- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_encode(models, name):
    """All together, which pads them; in batches of other sizes; and each alone."""
    made, case = models[name], CASES[name]
    backend = LocalBackend(str(made.folder), engine="torch", threads=1)
    assert (backend.precision, backend.limits.slots) == ("f32", 1)
    assert backend._engine._padded is case.padded
    prepared = backend.prepare(made.texts)
    for size in (len(prepared), 5, 1):
        rows = [
            backend.embed(prepared[start : start + size], timeout=60).matrix
            for start in range(0, len(prepared), size)
        ]
        same(np.concatenate(rows), made.vectors)
    info = backend.info
    assert (info.dimensions, info.normalized) == (
        made.vectors.shape[1],
        isinstance(case.steps()[-1], Normalize),
    )


def test_the_default_model_has_the_vectors_of_its_safetensors():
    """The references of the graph that is built of them, see test_default_model.py."""
    references = Path(__file__).parent / "references"
    about = json.loads((references / "all-MiniLM-L6-v2.json").read_text(encoding="utf-8"))
    expected = np.load(references / "all-MiniLM-L6-v2.npy")
    backend = LocalBackend(DEFAULT_MODEL, engine="torch", offline=True)
    assert backend.info.dimensions == 384
    assert backend.info.max_input_tokens == 256
    assert backend.info.normalized
    prepared = backend.prepare(about["texts"], truncate="end")
    assert [each.payload.tolist() for each in prepared] == about["token_ids"]
    same(backend.embed(prepared, timeout=120).matrix, expected)


def test_prompts_limits_and_widths_are_ours(models):
    made = models["t5"]
    oracle = SentenceTransformer(str(made.folder), device="cpu")
    with Embedder(str(made.folder), engine="torch", threads=1) as embedder:
        assert embedder.info.prompts == {"query": "w1 w2 ", "document": "w3 "}
        query = embedder.embed(made.texts[:3], input_type="query")
        same(query, oracle.encode(made.texts[:3], prompt_name="query"))
        assert np.linalg.norm(embedder.embed("w1", dimensions=8)) == pytest.approx(1, abs=1e-6)
    change_json(made.folder / "sentence_bert_config.json", max_seq_length=12)
    oracle.max_seq_length = 12
    with Embedder(str(made.folder), engine="torch", threads=1) as embedder:
        same(embedder.embed(made.texts), oracle.encode(made.texts))


def test_bfloat16_stays_close(models):
    made = models["deberta"]
    backend = LocalBackend(str(made.folder), engine="torch", dtype="bf16", threads=1, slots=3)
    assert (backend.precision, backend.limits.slots) == ("bf16", 1)
    vectors = backend.embed(backend.prepare(made.texts), timeout=60).matrix
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, made.vectors))
    assert 0.99 <= (a * b).sum(axis=1).min() < 0.9999999


def test_what_is_not_finite_stays_in_its_row(models, engine, deberta):
    """A token whose word vector is infinite spoils no text that is computed with it."""
    texts = ids(deberta, models["deberta"].texts)
    clean = engine.embed(texts).matrix
    words = engine._modules[0].model.get_input_embeddings()
    with torch.no_grad():
        words.weight[SIZES["vocab_size"] - 1] = torch.inf
    poison = np.full(20, SIZES["vocab_size"] - 1, np.int32)
    matrix = engine.embed([*texts[:5], poison, *texts[5:]]).matrix
    assert not np.isfinite(matrix[5]).any()
    np.testing.assert_allclose(np.delete(matrix, 5, axis=0), clean, atol=1e-5)


# -- who computes ---------------------------------------------------------------------------------


def test_auto_takes_torch_for_what_nothing_else_can_compute(models):
    assert isinstance(read_folder(models["deberta"].folder).encoder, Opaque)
    assert isinstance(read_folder(models["cnn"].folder).encoder, Opaque)
    assert isinstance(read_folder(models["qwen3-left"].folder).encoder, Encoder)
    with pytest.raises(ModelError, match=r"llmrs\[torch\].* ENGINE=torch.* BACKEND_URL"):
        read_folder(models["deberta"].folder, engine="openvino")


def test_a_folder_that_nobody_can_read_has_the_first_reason(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "luke"}')
    with pytest.raises(ModelError, match="'luke' is not supported"):
        read_folder(tmp_path)


def test_a_folder_that_sentence_transformers_cannot_load(models, tmp_path):
    place = models["deberta"].folder
    for file in place.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot load it"):
        LocalBackend(str(tmp_path), engine="torch")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("encoder.layer.1.output.dense.weight", "its weights lack"), ("pooler.dense.bias", None)],
)
def test_weights_that_are_not_there_are_not_made_up(models, tmp_path, name, reason):
    """But for the pooler's, which no vector depends on."""
    made = models["layers"]
    place = shutil.copytree(made.folder, tmp_path / "model")
    weights = load_file(place / "model.safetensors")
    del weights[name]
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    if reason is None:
        backend = LocalBackend(str(place), engine="torch", threads=1)
        same(backend.embed(backend.prepare(made.texts), timeout=60).matrix, made.vectors)
        return
    with pytest.raises(ModelError, match=f"{reason} {name}, and 1 in all"):
        LocalBackend(str(place), engine="torch")


@pytest.mark.parametrize("name", ["linear.weight", "encoder.layer.0.output.dense.lora_A.weight"])
def test_weights_that_would_be_left_out_are_refused(models, tmp_path, name):
    """But for heads, which no vector depends on."""
    made = models["layers"]
    place = shutil.copytree(made.folder, tmp_path / "model")
    weights = load_file(place / "model.safetensors")
    save_file({**weights, "cls.seq.weight": torch.ones(2)}, place / "model.safetensors", {"format": "pt"})
    LocalBackend(str(place), engine="torch", threads=1)
    save_file({**weights, name: torch.ones(2)}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"its weights have {name}, which transformers leaves out"):
        LocalBackend(str(place), engine="torch")


def test_devices_and_dtypes():
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype("auto", cpu) == "f32"
    assert choose_dtype("bf16", cpu) == "bf16"
    with pytest.raises(ConfigError, match="dtype = f16"):
        choose_dtype("f16", cpu)
    with pytest.raises(ConfigError, match="device = cuda:63"):
        choose_device("cuda:63")


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "f32")])
def test_what_a_gpu_computes_in(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_device("auto").type == "cuda"
    assert choose_dtype("auto", choose_device("auto")) == precision
    assert choose_dtype("f16", choose_device("auto")) == "f16"


# -- when it fails --------------------------------------------------------------------------------


def failing(engine, monkeypatch, error, *, above):
    """Make the model raise `error` for more than `above` texts at once; the sizes it was called with."""
    forward, sizes = engine._forward, []

    def fail(texts):
        sizes.append(len(texts))
        assert engine.computing_since() <= time.monotonic()
        if len(texts) > above:
            raise error
        return forward(texts)

    monkeypatch.setattr(engine, "_forward", fail)
    return sizes


EXHAUSTED = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", EXHAUSTED, ids=["cuda", "cpu"])
def test_where_memory_ends_runs_are_halved(models, engine, deberta, monkeypatch, error):
    texts = ids(deberta, models["deberta"].texts)
    sizes = failing(engine, monkeypatch, error, above=2)
    same(engine.embed(texts).matrix, models["deberta"].vectors)
    assert max(sizes) > 2
    assert engine.computing_since() is None
    assert not engine.is_broken
    failing(engine, monkeypatch, error, above=0)
    with pytest.raises(EngineError, match="could not compute"):
        engine.embed(texts)


def test_the_memory_of_a_gpu_is_given_back_before_the_next_try(engine, deberta, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(sys.exc_info()[0]))
    engine._device = torch.device("cuda")
    failing(engine, monkeypatch, EXHAUSTED[0], above=1)
    engine.embed(ids(deberta, ["w1 w2", "w3 w4"]))
    assert emptied == [None]  # no exception is alive any more, whose frames hold tensors


def test_an_error_of_the_cpu_is_of_these_texts_alone(engine, deberta, monkeypatch):
    texts = ids(deberta, ["w1", "w2"])
    with monkeypatch.context() as patched:
        failing(engine, patched, RuntimeError("shapes"), above=1)
        with pytest.raises(EngineError) as raised:
            engine.embed(texts)
        assert raised.value.poison
    assert not engine.is_broken
    assert engine.embed(texts).matrix.shape == (2, 32)


def test_an_error_of_a_device_is_the_end(engine, deberta, monkeypatch):
    texts = ids(deberta, ["w1", "w2"])
    engine._device = torch.device("cuda")
    failing(engine, monkeypatch, RuntimeError("device-side assert triggered"), above=1)
    with pytest.raises(EngineError):
        engine.embed(texts)
    assert engine.is_broken
    with pytest.raises(NotReady):
        engine.embed(texts[:1])


def test_time_is_looked_at_between_runs(models, engine, deberta, monkeypatch):
    texts = ids(deberta, models["deberta"].texts)
    monkeypatch.setattr(engine, "_cells", 64)
    sizes = failing(engine, monkeypatch, None, above=1000)
    with pytest.raises(DeadlineExceeded):
        engine.embed(texts, timeout=-1)
    assert not sizes


def test_a_model_that_fails_when_it_is_tried(models, monkeypatch):
    def fail(self, texts):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(TorchEngine, "_forward", fail)
    with pytest.raises(ModelError, match="when it was tried"):
        LocalBackend(str(models["deberta"].folder), engine="torch")


def test_token_types_that_cannot_be_told_are_refused(models, monkeypatch):
    class Typed:
        padding_side = "right"
        model_input_names = ("input_ids", "token_type_ids")

        def __call__(self, text):
            return {"token_type_ids": [0, 2]}

    transformer = type("Transformer", (), {"tokenizer": Typed()})
    encoder = read_folder(models["deberta"].folder, engine="torch").encoder
    with pytest.raises(ModelError, match="gives tokens types"):
        FeatureMaker(transformer, encoder, torch.device("cpu"))


def test_nothing_has_used_the_network(models):
    """Runs last: all of the above has loaded and computed models."""
    resolve(DEFAULT_MODEL, offline=True)
    assert connections == []
