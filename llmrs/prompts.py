"""Which of a model's prompts is put in front of a text.

Models that were trained with prompts declare them by name in config_sentence_transformers.json, and
`ModelInfo.prompts` has them. What counts is, in this order: the prompt that the caller names; the one for
the type of input that the caller names, if the model has one; the configured default; the model's own
default. Token ids never get a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmrs.errors import ConfigError, InvalidRequest

INPUT_TYPES: Mapping[str, str] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "retrieval_query": "query",
    "retrieval_document": "document",
    "code.query": "code.query",
    "code.passage": "code.passage",
    "text-matching": "text-matching",
    "separation": "separation",
    "classification": "classification",
    "clustering": "clustering",
}
"""The words of OpenAI's clients, Cohere, NVIDIA, Voyage, Jina, Gemini and Nomic for what inputs are, and the
prompt that each stands for where the model has none of the word's own name."""


def choose_prompt(
    prompts: Mapping[str, str],
    prompt_name: str | None,
    input_type: str | None,
    default: str = "",
) -> str:
    """The prefix for texts of a request that names a prompt, a type of input, both or neither.

    `input_type` is one of INPUT_TYPES. `default` is the name of the prompt for those that name neither; the
    empty one is the model's own.

    Raises:
        InvalidRequest: there is no such type, or the model has no prompt of the name, or it has prompts and
            none for the task that the inputs are for. Queries and documents may be what a model has none for.
    """
    if prompt_name is not None:
        if prompt_name not in prompts:
            raise InvalidRequest(
                f"the model has no prompt of that name, {_others(prompts)}", param="prompt_name"
            )
        return prompts[prompt_name]
    if input_type is None:
        return prompts.get(default, "")
    if input_type not in INPUT_TYPES:
        raise InvalidRequest(f"input_type must be one of {', '.join(INPUT_TYPES)}", param="input_type")
    meant = INPUT_TYPES[input_type]
    own = {name.lower(): prompt for name, prompt in prompts.items() if name}
    found = own.get(input_type, own.get(meant))
    if found is None and own and meant not in ("query", "document"):
        raise InvalidRequest(
            f"input_type must be query or document: the model has prompts, but none for {meant}",
            param="input_type",
        )
    return found or ""


def check_default(prompts: Mapping[str, str], default: str | None) -> None:
    """Raise ConfigError unless a model with these prompts has the configured default, if there is one."""
    if default is not None and default not in prompts:
        raise ConfigError(
            f"default_prompt = {default[:100]!a}: the model has no prompt of that name, {_others(prompts)}"
        )


def _others(prompts: Mapping[str, str]) -> str:
    names = ", ".join(sorted(filter(None, prompts)))
    return f"only {names[:500]}" if names else "nor any other"
