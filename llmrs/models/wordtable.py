"""A static model: a table of word vectors, of which a text's vector is the mean.

There are two layouts. sentence-transformers' `modules.json` begins with a StaticEmbedding: a tokenizer and a
table, of which every token counts. A folder of model2vec without that file is read as model2vec 0.10 reads
it: the unknown token does not count, and of a long text only the beginning is read. model2vec also writes
`modules.json`, and such a folder gives the vectors that sentence-transformers gives.

Neither puts special tokens around a text, and a text without a token has the zero vector. The table's file
is opened for its sizes only; `static` computes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from llmrs.errors import ModelError
from llmrs.models.module_keys import MODEL2VEC as MODEL2VEC_KEYS
from llmrs.models.rules import check_keys
from llmrs.models.settings import Settings, read_settings
from llmrs.models.weights import Weights

STATIC_MODULE = "StaticEmbedding"
MODEL2VEC = "model2vec"
"""What `modules.json` and `config.json` call them."""

TABLES = ("embedding.weight", "embeddings")
"""The table's name, as sentence-transformers and as model2vec write it."""

MAPPING, WEIGHTS = "mapping", "weights"
"""Of a model2vec table with fewer rows than tokens: the row of each, and what it is multiplied by."""

MOST_TOKENS = 32_768
"""The longest input where the model has no limit of its own, as none of sentence-transformers' has: a small
book's chapter. What is computed together has a bound, and so has what is tokenized for one text."""

MODEL2VEC_TOKENS = 512
"""The longest input of model2vec where its configuration names none."""


@dataclass(frozen=True)
class Static:
    """What is known of a word table before it is loaded.

    Attributes:
        hidden: width of the word vectors.
        vocabulary: token ids are below it.
        max_tokens: longest input.
        max_characters: what is beyond them in a text is not read; None where all is.
        unknown: the token that does not count; None where all count.
        padding_id: means nothing, for nothing is padded.
    """

    hidden: int
    vocabulary: int
    max_tokens: int
    max_characters: int | None = None
    unknown: int | None = None
    padding_id: int = 0


def read_static(folder: Path, *, model2vec: Settings | None = None) -> Static:
    """The static model in `folder`.

    Args:
        model2vec: its `config.json`, where it is to be read as model2vec does.

    Raises:
        ModelError: a file is missing, broken, or does not fit the others.
    """
    weights = Weights.of(folder)
    rows, hidden = table_shape(weights)
    if table_name(weights) == TABLES[0]:
        _check_alone(weights)
    mapping = weights.shape(MAPPING)
    if mapping is not None and len(mapping) != 1:
        raise ModelError(f"{weights.place}: tensor {MAPPING} has {len(mapping)} axes, expected 1")
    vocabulary = mapping[0] if mapping else rows
    tokenizer = read_settings(folder / "tokenizer.json")
    if model2vec is not None:
        return _as_model2vec(model2vec, tokenizer, hidden, vocabulary)
    # sentence-transformers has no limit for static models, but their tokenizers may cut.
    longest = tokenizer.object("truncation").integer("max_length", default=MOST_TOKENS)
    return Static(hidden, vocabulary, min(longest, MOST_TOKENS))


def table_name(weights: Weights) -> str:
    """What the table is called in a file. Raises ModelError where it is not there."""
    for name in TABLES:
        if weights.shape(name) is not None:
            return name
    raise ModelError(f"{weights.place}: tensor {TABLES[0]} is missing, the file is not a static model's")


def table_shape(weights: Weights) -> tuple[int, int]:
    """Rows and width of the table. Raises ModelError where it has none."""
    name = table_name(weights)
    shape = weights.shape(name) or ()
    if len(shape) != 2 or not all(shape):
        raise ModelError(f"{weights.place}: tensor {name} has shape {list(shape)}, expected rows of numbers")
    return shape[0], shape[1]


def _check_alone(weights: Weights) -> None:
    """sentence-transformers reads nothing else beside its own table. Raises ModelError."""
    for name in (TABLES[1], MAPPING, WEIGHTS):
        if weights.shape(name) is not None:
            raise ModelError(f"{weights.place}: tensor {name} is not read where there is {TABLES[0]}")


def _as_model2vec(config: Settings, tokenizer: Settings, hidden: int, vocabulary: int) -> Static:
    """model2vec cuts a text after the characters that this many tokens have, were all of median length."""
    check_keys(config, MODEL2VEC_KEYS)
    tokens = _tokens(tokenizer)
    unknown = _unknown(tokenizer.object("model"), tokens)
    if config.is_null("max_length"):
        return Static(hidden, vocabulary, MOST_TOKENS, unknown=unknown)
    longest = min(config.integer("max_length", default=MODEL2VEC_TOKENS), MOST_TOKENS)
    characters = longest * int(median(len(token) for token in tokens))
    return Static(hidden, vocabulary, longest, characters or None, unknown)


def _tokens(tokenizer: Settings) -> dict[str, int]:
    """All tokens of a tokenizer.json and their ids."""
    try:
        vocabulary = tokenizer.object("model").raw("vocab")
        if isinstance(vocabulary, list):  # Unigram's, with scores
            vocabulary = {token: index for index, (token, _) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in tokenizer.raw("added_tokens") or ()}
        tokens: dict[str, int] = {**vocabulary, **added}
        if {(str, int)} != {(type(token), type(index)) for token, index in tokens.items()}:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{tokenizer.path} has no list of tokens: download it again") from None
    return tokens


def _unknown(model: Settings, tokens: dict[str, int]) -> int | None:
    """The id of what a tokenizer gives for what it has no token for."""
    if "unk_token" in model:
        return tokens.get(model.text("unk_token"))
    return model.integer("unk_id", minimum=0) if "unk_id" in model else None
