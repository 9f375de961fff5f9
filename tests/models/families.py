"""Makes small random models of every family with transformers, and their vectors with sentence-transformers.

Run as a program, in an environment of its own that has both (see the Makefile); `test_families` reads
what it writes. For each case of `CASES` a folder in the layout that models are published in, `model/`,
and beside it `texts.json`, `alone.npy` with the vectors of the texts encoded one by one, and
`padded-left.npy` and `padded-right.npy` with those of one padded batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
WORDS = [f"w{number}" for number in range(60)]
VOCABULARY = len(SPECIALS) + len(WORDS) + 4
"""The word table has a few rows more than the tokenizer has tokens, as real ones do."""

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 16, 17, 30, 31, 33, 47, 60)
"""Words of the texts. The special tokens come on top; windows are 8 tokens wide."""

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


class Case(NamedTuple):
    """One model.

    Attributes:
        model: makes it, with any weights.
        steps: what follows the encoder.
        template: the special tokens around a text.
        publish: the configuration in the form that models are published with, where transformers
            writes another.
        dtype: of the weights in the files.
        part_size: of the files of weights; None for one file.
        more_lengths: further texts.
        left: whether the family's positions allow padding on the left.
    """

    model: Callable[[], Any]
    steps: Callable[[], list[Any]] = lambda: [Pooling(32, "mean")]
    template: str = "<s> $A </s>"
    publish: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config
    dtype: torch.dtype = torch.float32
    part_size: str | None = None
    more_lengths: tuple[int, ...] = ()
    left: bool = True


def plain(kind: str, **changes: Any) -> Case:
    """A model of a kind that transformers knows, of these sizes but for some changes."""
    config = {**SIZES, **changes}
    return Case(lambda: hf.AutoModel.from_config(hf.AutoConfig.for_model(kind, **config)), left=False)


NTK = 4.0


def gemma3(*, bidirectional: bool) -> Any:
    return hf.Gemma3TextConfig(
        **SIZES,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        use_bidirectional_attention=bidirectional,
    )


def gemma3_published(config: dict[str, Any]) -> dict[str, Any]:
    del config["rope_parameters"]
    return {**config, "rope_theta": 1_000_000, "rope_local_base_freq": 10_000, "rope_scaling": None}


def gte(*, theta: float, factor: float = 1.0, **changes: Any) -> Any:
    rope = {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    return hf.GteConfig(**{**SIZES, **changes}, rope_parameters=rope)


def gte_published(config: dict[str, Any]) -> dict[str, Any]:
    """NTK scaling by a fixed factor is a larger theta and linear scaling, which is how it was computed."""
    del config["rope_parameters"]
    rope = {"rope_theta": 1000, "rope_scaling": {"type": "ntk", "factor": NTK}}
    own = {"position_embedding_type": "rope", "layer_norm_type": "layer_norm", "pack_qkv": True}
    return {**config, **rope, **own, "model_type": "new", "logn_attention_scale": False}


def modernbert(**changes: Any) -> Any:
    return hf.ModernBertConfig(**SIZES, local_attention=8, **changes)


def modernbert_published(config: dict[str, Any]) -> dict[str, Any]:
    del config["rope_parameters"], config["layer_types"]
    return {
        **config,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    }


def nomic_published(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_positions": config["max_position_embeddings"],
        "vocab_size": config["vocab_size"],
        "type_vocab_size": config["type_vocab_size"],
        "layer_norm_epsilon": config["layer_norm_eps"],
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_scaling_factor": None,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "prenorm": False,
        "parallel_block": False,
        "use_rms_norm": False,
        "causal": False,
    }


def qwen3_published(config: dict[str, Any]) -> dict[str, Any]:
    theta = config.pop("rope_parameters")["rope_theta"]
    del config["layer_types"]
    return {**config, "rope_theta": theta, "rope_scaling": None, "use_sliding_window": False}


CASES = {
    "albert": plain("albert", embedding_size=16, num_hidden_groups=2, inner_group_num=2),
    "bert": plain("bert"),
    # As wide as BERT-large, with the pooling of Yuan-embedding-2.0-zh.
    "bert-large": plain(
        "bert", hidden_size=1024, num_attention_heads=16, intermediate_size=4096, num_hidden_layers=2
    )._replace(steps=lambda: [Pooling(1024, "cls")]),
    "camembert": plain("camembert", pad_token_id=1),
    "distilbert": plain("distilbert", dim=32, n_layers=3, n_heads=4, hidden_dim=48),
    "electra": plain("electra", embedding_size=16)._replace(
        steps=lambda: [Pooling(32, "max"), Dense(32, 24), LayerNorm(24), Dense(24, 16), Normalize()]
    ),
    "gemma3": Case(
        lambda: hf.Gemma3TextModel(gemma3(bidirectional=True)),
        steps=lambda: [
            Pooling(32, "mean"),
            Dense(32, 64, bias=False, activation_function=torch.nn.Identity()),
            Dense(64, 32, bias=False, activation_function=torch.nn.Identity()),
            Normalize(),
        ],
    ),
    "gemma3-causal": Case(
        lambda: hf.Gemma3TextModel(gemma3(bidirectional=False)), publish=gemma3_published, part_size="20KB"
    ),
    "gte": Case(lambda: hf.GteModel(gte(theta=5000.0))),
    "gte-new": Case(
        lambda: hf.GteModel(gte(theta=1000.0 * NTK, factor=NTK ** (2 / 8), type_vocab_size=0)),
        steps=lambda: [Pooling(32, "cls")],
        publish=gte_published,
        left=False,
    ),
    "modernbert": Case(lambda: hf.ModernBertModel(modernbert())),
    "modernbert-published": Case(
        lambda: hf.ModernBertModel(modernbert(norm_bias=True, attention_bias=True, mlp_bias=True)),
        steps=lambda: [Pooling(32, "cls")],
        publish=modernbert_published,
        dtype=torch.float16,
        left=False,
    ),
    "mpnet": plain("mpnet", pad_token_id=1, max_position_embeddings=300)._replace(
        more_lengths=(120, 140, 290), left=True
    ),
    "nomic": Case(lambda: hf.NomicBertModel(hf.NomicBertConfig(**SIZES))),
    "nomic-published": Case(lambda: hf.NomicBertModel(hf.NomicBertConfig(**SIZES)), publish=nomic_published),
    "qwen3": Case(
        lambda: hf.Qwen3Model(hf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16)),
        steps=lambda: [Pooling(32, "lasttoken"), Normalize()],
        template="$A </s>",
        publish=qwen3_published,
        dtype=torch.bfloat16,
        part_size="20KB",
    ),
    "qwen3-windows": Case(
        lambda: hf.Qwen3Model(
            hf.Qwen3Config(
                **SIZES, num_key_value_heads=1, use_sliding_window=True, sliding_window=8, max_window_layers=1
            )
        ),
        steps=lambda: [Pooling(32, "lasttoken")],
    ),
    "roberta": plain("roberta", pad_token_id=1),
    "xlm-roberta": plain("xlm-roberta", pad_token_id=1),
}


# -- making ---------------------------------------------------------------------------------------


def tokenizer(template: str, padding: str) -> hf.PreTrainedTokenizerFast:
    """Words to ids."""
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *WORDS])}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token=padding, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def randomize(model: Any, random: torch.Generator) -> None:
    """Weights large enough for every part to matter; transformers' own hardly differ from zero."""
    for name, weight in model.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            weight.data += torch.randn(weight.shape, generator=random) * 0.2
        elif weight.dim() == 1:
            weight.data = torch.randn(weight.shape, generator=random) * 0.2
        else:
            scale = 0.5 if "embed" in name or "relative" in name else 1.5 / weight.shape[1] ** 0.5
            weight.data = torch.randn(weight.shape, generator=random) * scale


def make(case: Case, folder: Path, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    encoder = case.model().eval()
    randomize(encoder, random)
    parts = {"max_shard_size": case.part_size} if case.part_size else {}
    encoder.to(case.dtype).save_pretrained(folder / "encoder", **parts)
    padding = SPECIALS[encoder.config.pad_token_id]
    tokenizer(case.template, padding).save_pretrained(folder / "encoder")
    transformer = Transformer(str(folder / "encoder"), model_kwargs={"dtype": torch.float32})
    steps = case.steps()
    for step in steps:
        randomize(step, random)
    model = SentenceTransformer(modules=[transformer, *steps], device="cpu")
    texts = random_texts(case, np.random.default_rng(seed))
    write_vectors(model, case, texts, folder)
    model.save(str(folder / "model"))
    publish(case, folder)


def random_texts(case: Case, random: np.random.Generator) -> list[str]:
    return [" ".join(random.choice(WORDS, length)) for length in (*LENGTHS, *case.more_lengths)]


def write_vectors(model: SentenceTransformer, case: Case, texts: list[str], folder: Path) -> None:
    (folder / "texts.json").write_text(json.dumps(texts))
    np.save(folder / "alone.npy", np.stack([model.encode(text) for text in texts]))
    for side in ("right", "left") if case.left else ("right",):
        model.tokenizer.padding_side = side
        np.save(folder / f"padded-{side}.npy", model.encode(texts, batch_size=len(texts)))


def publish(case: Case, folder: Path) -> None:
    """Weights and configuration as published; the rest is as sentence-transformers saves it."""
    for file in (folder / "model").glob("model*.safetensors*"):
        file.unlink()
    for file in (folder / "encoder").glob("model*.safetensors*"):
        file.rename(folder / "model" / file.name)
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(case.publish(json.loads(config.read_text()))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for number, (name, case) in enumerate(CASES.items()):
            make(case, Path(sys.argv[1]) / name, number)
