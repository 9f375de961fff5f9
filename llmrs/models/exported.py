"""A model that somebody has exported: a graph in an ONNX file or in OpenVINO's own format.

What has to be known of it before it is read, from the encoder's `config.json`: the graph itself says
neither which token ids it takes nor how long a text may be. `export_graph` reads the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llmrs.models.architectures import Encoder, longest_input
from llmrs.models.settings import Settings

SKIP_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Kinds of models whose positions count from the padding token's id + 1, after fairseq: so many positions
fewer are left."""


@dataclass(frozen=True)
class Exported:
    """An exported graph, and the sizes that it does not tell.

    Attributes:
        file: the graph, `.onnx` or `.xml`.
        hidden: width of the token vectors.
        vocabulary: token ids are below it.
        max_tokens: the longest input that has a position for each of its tokens.
        padding_id: the id that fills padded places.
        positions_skip_padding: whether positions count from `padding_id` + 1 (RoBERTa, after fairseq).
        multiplications: of all linear layers, for one token, in a layout like BERT's.
    """

    file: Path
    hidden: int
    vocabulary: int
    max_tokens: int
    padding_id: int
    positions_skip_padding: bool
    multiplications: int


Graphed: TypeAlias = Encoder | Exported
"""What is computed as a graph, by `engine`."""


def read_exported(file: Path, config: Settings) -> Exported:
    """The exported model in `file`, of the encoder that a Hugging Face `config.json` describes.

    Raises:
        ModelError: a size is missing.
    """
    hidden = config.integer("hidden_size", "dim", "d_model", "n_embd")
    heads = config.integer("num_attention_heads", "n_heads", "n_head", default=1)
    layers = config.integer("num_hidden_layers", "n_layers", "n_layer", default=12)
    inner = config.integer("intermediate_size", "hidden_dim", "n_inner", default=4 * hidden)
    kind = config.text("model_type", default="")
    skip = kind in SKIP_PADDING
    padding_id = config.integer("pad_token_id", default=1 if skip else 0, minimum=-1)
    if kind == "mpnet":
        padding_id = 1  # fixed in MPNet's code, not in its configuration
    skip = skip and padding_id >= 0  # -1 is no token's id, and positions begin after it
    padding_id = max(padding_id, 0)
    positions = config.integer("max_position_embeddings", "n_positions", "max_seq_len")
    return Exported(
        file=file,
        hidden=hidden,
        vocabulary=config.integer("vocab_size"),
        # How the graph computes attention is not known: at worst it keeps each head's scores.
        max_tokens=longest_input(positions - (padding_id + 1 if skip else 0), masks=heads),
        padding_id=padding_id,
        positions_skip_padding=skip,
        multiplications=layers * hidden * (4 * hidden + 2 * inner),
    )
