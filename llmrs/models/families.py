"""The families of encoders that can be built: what their Hugging Face `config.json` says.

A family is a function from the configuration to an `Encoder`, entered in `FAMILIES` under the
`model_type` that its configurations carry. Here are those with positions from a table or a bias, in
`rotary` the others.
A setting that would change the vectors and is not understood is an error, never ignored.
docs/models.md lists the families, and a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llmrs.errors import ModelError
from llmrs.models import config_keys, names, rotary
from llmrs.models.architectures import Encoder, Layer
from llmrs.models.code import check_classes, check_code
from llmrs.models.read import activation, agree, epsilon, head_width, padding
from llmrs.models.rules import Table, check_keys
from llmrs.models.settings import OTHER_WAYS, Settings

SYNONYMS = (
    ("n_heads", "num_attention_heads"),
    ("n_layers", "num_hidden_layers"),
    ("dim", "hidden_size"),
    ("hidden_dim", "intermediate_size"),
)
"""DistilBERT's own words, and those of other families for the same."""


def read_encoder(config: Settings) -> Encoder:
    """The encoder that a Hugging Face `config.json` describes.

    Raises:
        ModelError: of a kind that cannot be built, or described incompletely.
    """
    kind = config.text("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{config.path}: model_type {kind[:40]!r} is not supported, only {', '.join(sorted(FAMILIES))}; "
            f"use another model, {OTHER_WAYS}"
        )
    check_keys(config, table_of(config), otherwise=OTHER_WAYS)
    check_code(config)
    check_classes(config)
    encoder = replace(FAMILIES[kind](config), prefixes=names.PREFIXES[kind])
    if encoder.max_tokens < 1:
        raise ModelError(f"{config.path}: {encoder.positions} positions leave no room for a token")
    return encoder


def table_of(config: Settings) -> Table:
    """The keys that the configuration of a family may have."""
    kind = config.text("model_type")
    if kind == "bert" and config.raw("position_embedding_type") == "alibi":
        return config_keys.JINA
    return config_keys.FAMILIES[kind]


def _bert(config: Settings) -> Encoder:
    return _jina(config) if table_of(config) is config_keys.JINA else _like_bert(config)


def _roberta(config: Settings) -> Encoder:
    return _like_bert(config, skip_padding=True)


def _like_bert(config: Settings, *, skip_padding: bool = False) -> Encoder:
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    layers = config.integer("num_hidden_layers")
    # -1 is no token's id, and positions begin after it.
    counts_from_0 = config.raw("pad_token_id") == -1
    return Encoder(
        names=names.BERT,
        layers=tuple(Layer(names.BERT_LAYER.format(index)) for index in range(layers)),
        heads=heads,
        key_heads=heads,
        head_width=head_width(config, heads, hidden),
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        position_table=True,
        token_types=config.integer("type_vocab_size", default=2),
        padding_id=padding(config, default=1 if skip_padding else 0),
        positions_skip_padding=skip_padding and not counts_from_0,
        epsilon=epsilon(config, "layer_norm_eps", default=1e-12),
        activation=activation(config, "hidden_act"),
    )


def _distilbert(config: Settings) -> Encoder:
    heads, hidden = config.integer("n_heads", "num_attention_heads"), config.integer("dim", "hidden_size")
    layers = config.integer("n_layers", "num_hidden_layers")
    for names_of_one in SYNONYMS:
        agree(config, *names_of_one)
    return Encoder(
        names=names.DISTILBERT,
        layers=tuple(Layer(names.DISTILBERT_LAYER.format(index)) for index in range(layers)),
        heads=heads,
        key_heads=heads,
        head_width=head_width(config, heads, hidden),
        hidden=hidden,
        intermediate=config.integer("hidden_dim"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        # Sinusoidal tables are stored in the weights like learned ones.
        positions=config.integer("max_position_embeddings"),
        position_table=True,
        padding_id=padding(config),
        # Fixed in DistilBERT's code, not in its configuration.
        epsilon=1e-12,
        activation=activation(config, "activation"),
    )


def _mpnet(config: Settings) -> Encoder:
    encoder = _like_bert(config, skip_padding=True)
    return replace(
        encoder,
        names=names.MPNET,
        token_types=0,
        padding_id=1,  # fixed in MPNet's code, not in its configuration
        positions_skip_padding=True,
        distance_bias="buckets",
    )


def _albert(config: Settings) -> Encoder:
    """ALBERT (Lan et al., 2019): layers share tensors, and word vectors are narrower."""
    layers, groups = config.integer("num_hidden_layers"), config.integer("num_hidden_groups", default=1)
    inner = config.integer("inner_group_num", default=1)
    prefixes = [
        names.ALBERT_LAYER.format(int(index / (layers / groups)), member)
        for index in range(layers)
        for member in range(inner)
    ]
    return replace(
        _like_bert(config),
        names=names.ALBERT,
        layers=tuple(Layer(prefix) for prefix in prefixes),
        embedding=config.integer("embedding_size", default=128),
        activation=activation(config, "hidden_act", default="gelu_new"),
    )


def _electra(config: Settings) -> Encoder:
    """ELECTRA (Clark et al., 2020): BERT, with word vectors that may be narrower."""
    encoder = _like_bert(config)
    width = config.integer("embedding_size", default=128)
    projection = None if width == encoder.hidden else "embeddings_project"
    return replace(encoder, names=replace(names.BERT, projection=projection), embedding=width)


def _jina(config: Settings) -> Encoder:
    """JinaBERT, of jina-embeddings-v2 (Guenther et al., 2023): ALiBi for positions, and gates."""
    return replace(
        _like_bert(config),
        names=names.JINA,
        position_table=False,
        distance_bias="alibi",
        up_bias=False,
        activation="gelu",
    )


FAMILIES: dict[str, Callable[[Settings], Encoder]] = {
    "albert": _albert,
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "gemma3_text": rotary.gemma3,
    "gte": rotary.gte,
    "modernbert": rotary.modernbert,
    "mpnet": _mpnet,
    "new": rotary.gte,
    "nomic_bert": rotary.nomic,
    "qwen3": rotary.qwen3,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
"""Every family by its `model_type`."""
