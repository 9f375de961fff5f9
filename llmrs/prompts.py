"""Which of a model's prompts is put in front of a text.

Models that were trained with prompts declare them by name in config_sentence_transformers.json, and
`ModelInfo.prompts` has them. What counts is, in this order: the prompt that the caller names; the one for
the type of input that the caller names, if the model has one; the configured default; the model's own
default. Token ids never get a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmrs.errors import ConfigError, InvalidRequest


def choose_prompt(
    prompts: Mapping[str, str], prompt_name: str | None, input_type: str | None, default: str = ""
) -> str:
    """The prefix for texts of a request that names a prompt, a type of input, both or neither.

    `default` is the name of the prompt for those that name neither; the empty one is the model's own.

    Raises:
        InvalidRequest: the model has no prompt of the name.
    """
    if prompt_name is None:
        return prompts.get(input_type or default, "")
    if prompt_name not in prompts:
        raise InvalidRequest("the model has no prompt of that name", param="prompt_name")
    return prompts[prompt_name]


def check_default(prompts: Mapping[str, str], default: str | None) -> None:
    """Raise ConfigError unless a model with these prompts has the configured default, if there is one."""
    if default is not None and default not in prompts:
        names = ", ".join(sorted(filter(None, prompts)))
        raise ConfigError(
            f"default_prompt = {default[:100]!a}: the model has no prompt of that name, "
            + (f"only {names[:500]}" if names else "nor any other")
        )
