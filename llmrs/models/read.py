"""How families read their configurations: what several of them ask for."""

from __future__ import annotations

from llmrs.errors import ModelError
from llmrs.models.settings import Settings

ACTIVATIONS = {
    "gelu": "gelu",
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
    key_heads = config.integer("num_key_value_heads", default=default)
    if heads % key_heads:
        raise ModelError(f"{config.path}: {key_heads} num_key_value_heads do not divide {heads} heads")
    return heads, key_heads


def only(config: Settings, *keys: str, value: bool | str | float | None) -> None:
    """Check settings of which one value can be built; absent and null are that value.

    Raises:
        ModelError: one has another value.
    """
    for key in keys:
        found = config.raw(key)
        if found is not None and found != value:
            raise ModelError(f"{config.path}: {key} = {str(found)[:40]} is not supported")
