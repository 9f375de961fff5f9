"""How families read their configurations: what several of them ask for."""

from __future__ import annotations

from llmrs.errors import ModelError
from llmrs.models.settings import Settings

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names of `hidden_act` in Hugging Face configurations, by what they compute."""


def activation(config: Settings, *keys: str, default: str = "gelu") -> str:
    """What the activation that a configuration names computes.

    Raises:
        ModelError: it is none of those that can be built.
    """
    value = config.text(*keys, default=default)
    if value not in ACTIVATIONS:
        raise ModelError(
            f"{config.path}: {keys[0]} {value[:40]!r} is not supported, only {', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[value]


def head_width(config: Settings, heads: int, hidden: int) -> int:
    """Of heads that share the hidden width equally."""
    if hidden % heads:
        raise ModelError(f"{config.path}: {heads} heads do not divide {hidden} dimensions")
    return hidden // heads


def shared_heads(config: Settings, *, default: int) -> tuple[int, int]:
    """Heads, and heads of keys and values, of which each serves several of the former."""
    heads = config.integer("num_attention_heads")
    null = config.is_null("num_key_value_heads")
    key_heads = config.integer("num_key_value_heads", default=heads if null else default)
    if heads % key_heads:
        raise ModelError(f"{config.path}: {key_heads} num_key_value_heads do not divide {heads} heads")
    return heads, key_heads


def padding(config: Settings, *, default: int = 0) -> int:
    """The id that fills padded places, whose vectors are no text's.

    Negative ids count from the end of the word table in PyTorch. None is ever looked up there, and
    OpenVINO needs one that is in the table.

    Raises:
        ModelError: it is not in the word table.
    """
    value = config.integer("pad_token_id", default=default, minimum=-config.integer("vocab_size"))
    if value >= config.integer("vocab_size"):
        raise ModelError(f"{config.path}: pad_token_id is {value}, which is not below vocab_size")
    return max(value, 0)


def epsilon(config: Settings, *keys: str, default: float) -> float:
    """What norms add to a variance. Raises ModelError: it is none, or far from small."""
    value = config.number(*keys, default=default)
    if not 0 < value < 1:
        raise ModelError(f"{config.path}: {keys[0]} is {value}, expected a number between 0 and 1")
    return value


def agree(config: Settings, *names: str) -> None:
    """Check that names of one value say the same, where several are there. Raises ModelError."""
    found = {name: config.raw(name) for name in names if name in config}
    if len(set(map(str, found.values()))) > 1:
        said = " and ".join(f"{name} = {str(value)[:40]}" for name, value in found.items())
        raise ModelError(f"{config.path}: {said} contradict each other")
