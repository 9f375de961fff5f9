"""What the files beside tokenizer.json say about a model's tokenizer.

tokenizer_config.json, special_tokens_map.json and added_tokens.json are brought together as transformers 5
does it, before any tokenizer is made. A key that could change tokens and is not known ends the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmrs.errors import ModelError
from llmrs.models.settings import Settings, read_settings
from llmrs.models.tokenizer_class import GENERIC, VOCABULARIES, choose_class

Side: TypeAlias = Literal["start", "end"]

SIDES: dict[str, Side] = {"left": "start", "right": "end"}
"""The end of a text that is cut off, in transformers' words and in ours."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens that every tokenizer has a name for, in transformers' order."""

FLAGS = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "clean_text",
    "do_lower_case",
    "keep_accents",
    "legacy",
    "split_by_punct",
    "split_special_tokens",
    "strip_accents",
    "tokenize_chinese_chars",
)
"""Keys that are true or false, and matter to some classes."""

OBEYED = (
    *FLAGS,
    "added_tokens_decoder",
    "additional_special_tokens",
    "auto_map",
    "extra_ids",
    "extra_special_tokens",
    "fast_tokenizer_files",
    "fix_mistral_regex",
    "init_inputs",
    "max_len",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "tokenizer_class",
    "truncation_side",
    "trust_remote_code",
    "unk_id",
)
"""Keys that count, or are refused where they would."""

HARMLESS_KEYS = """
_comment _commit_hash _from_auto _name_or_path add_dummy_prefix_space added_tokens_file architectures
backend cache_dir chat_control_tokens chat_template clean_up_tokenization_spaces
clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output date description device_map
do_basic_tokenize dtype errors force_download from_slow full_tokenizer_file is_fast is_local lang language
license local_files_only low_cpu_mem_usage max_length max_seq_length merges_file model_type name
name_or_path never_split pad_to_max_length pad_to_multiple_of pad_token_type_id padding padding_strategy
processor_class proxies remove_space response_schema response_template resume_download
return_attention_mask return_length return_offsets_mapping return_tensors return_token_type_ids revision
slow_tokenizer_class sp_model_kwargs spaces_between_special_tokens special_tokens special_tokens_map_file
src_lang stride subfolder task tgt_lang token tokenizer_file tokenizer_type tokenizer_version
tokenizers_version torch_dtype transformers_version trim_offsets truncation truncation_strategy
unsloth_fixed unsloth_version use_default_system_prompt use_fast verbose version vocab_file vocab_size
vocab_type wordpieces_prefix
"""
"""Keys that no tokenizer is made of: names, versions, chats, decoding, downloads, defaults of other calls."""

HARMLESS = frozenset(HARMLESS_KEYS.split())

POINTLESS = 1e15
"""No text is so long: larger limits may be written with a decimal point."""

LARGE = ("model", "added_tokens")
"""Parts of tokenizer.json that hold its vocabulary."""

Token: TypeAlias = "str | dict[str, Any]"
"""A token, or the keyword arguments of an AddedToken."""


@dataclass(frozen=True)
class TokenizerFiles:
    """A folder's tokenizer, as its files describe it.

    Attributes:
        folder: where they are.
        name: the class, see `tokenizer_class`.
        config: tokenizer_config.json, for messages.
        arguments: what the class is made with: flags, numbers, and special tokens by name.
        extra: further special tokens; None where none are given.
        added: tokens that are no part of the vocabulary or not divided, by their ids.
        json: tokenizer.json; None where there is none.
    """

    folder: Path
    name: str
    config: Settings
    arguments: Mapping[str, Any]
    extra: list[Token] | None
    added: Mapping[int, dict[str, Any]]
    json: Settings | None


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """What the tokenizer in a model's folder is made of.

    Raises:
        ModelError: a file is broken, or says something that is not supported.
    """
    config = read_settings(folder / "tokenizer_config.json", optional=True)
    model = read_settings(folder / "config.json", optional=True)
    path = folder / "tokenizer.json"
    json = read_settings(path) if path.exists() else None
    _check(config)
    read_truncation_side(folder)
    name = choose_class(config, model, byte_level=json is not None and _is_byte_level(json))
    if config.raw("trust_remote_code") and name != GENERIC:  # it would take tokenizer.json as it is
        raise ModelError(f"{config.path}: trust_remote_code is not supported, only false: remove it")
    values = {key: value for key, value in config.values.items() if key not in HARMLESS}
    if isinstance(values.get("use_auth_token"), bool):  # of an old download; a text there is a special token
        del values["use_auth_token"]
    if json is not None:  # its post-processor counts
        values.pop("add_bos_token", None)
        values.pop("add_eos_token", None)
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    if isinstance(named := values.get("extra_special_tokens"), dict):
        values = {**values, **{_named(key): token for key, token in named.items()}}
        del values["extra_special_tokens"]
    added = _added(config, json, values)
    if name == "T5Tokenizer" and "extra_special_tokens" not in values:
        _mark_places(values)
    return TokenizerFiles(folder, name, config, *_arguments(config, values, added), added, json)


def vocabulary_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that a tokenizer is made of without a tokenizer.json; none where it needs one.

    Raises:
        ModelError: the tokenizer is of a class that is not supported.
    """
    config = read_settings(folder / "tokenizer_config.json", optional=True)
    return VOCABULARIES.get(choose_class(config, read_settings(folder / "config.json", optional=True)), ())


def read_longest(folder: Path) -> float:
    """The longest input that a tokenizer lets through, in tokens. Raises ModelError."""
    config = read_settings(folder / "tokenizer_config.json", optional=True)
    key = "model_max_length" if "model_max_length" in config.values else "max_len"
    longest = config.number(key, default=1e30)  # as tokenizers without a limit say
    if isinstance(config.raw(key), float) and longest < POINTLESS:
        raise ModelError(f"{config.path}: {key} is {longest}, expected a whole number")
    return longest


def read_truncation_side(folder: Path) -> Side:
    """Which end an over-long text loses where nobody says otherwise.

    `truncation_side` of tokenizer_config.json counts, else the direction in tokenizer.json.

    Raises:
        ModelError: it is neither end.
    """
    config = read_settings(folder / "tokenizer_config.json", optional=True)
    tokenizer = read_settings(folder / "tokenizer.json", optional=True)
    side = tokenizer.object("truncation").text("direction", default="Right").lower()
    if "truncation_side" in config.values:
        side = config.values["truncation_side"]
    if side not in SIDES:
        raise ModelError(f"{config.path}: truncation_side is {str(side)[:60]!r}, expected left or right")
    return SIDES[side]


def _check(config: Settings) -> None:
    """Refuse what is not known, and what is known not to be supported."""
    for key in config.values:
        if key not in OBEYED and key not in HARMLESS and not key.endswith(("_token", "_token_id")):
            raise ModelError(
                f"{config.path}: {key[:60]} is not known, and could change tokens: remove it if it does not"
            )
    if config.values.get("padding_side", "right") not in SIDES:
        raise ModelError(f"{config.path}: padding_side is not left or right")
    if config.raw("fix_mistral_regex"):
        raise ModelError(f"{config.path}: fix_mistral_regex = true is not supported")
    if config.raw("init_inputs"):
        raise ModelError(f"{config.path}: init_inputs is not supported, only an empty one")
    if config.raw("fast_tokenizer_files") not in (None, ["tokenizer.json"]):
        raise ModelError(f"{config.path}: fast_tokenizer_files is not supported, only ['tokenizer.json']")
    names = config.values.get("model_input_names", ["input_ids", "attention_mask"])
    if not isinstance(names, list) or not {"input_ids", "attention_mask"} <= {str(name) for name in names}:
        raise ModelError(f"{config.path}: model_input_names does not name input_ids and attention_mask")
    for key in FLAGS:
        value = config.raw(key)
        if value is not None and type(value) is not bool:
            raise ModelError(f"{config.path}: {key} is of the wrong type ({type(value).__name__})")


def _is_byte_level(json: Settings) -> bool:
    return any("'ByteLevel'" in str(value) for key, value in json.values.items() if key not in LARGE)


def _added(config: Settings, json: Settings | None, values: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Added tokens by their ids; without a list of them `values` gets those of special_tokens_map.json."""
    if "added_tokens_decoder" in values:
        listed = config.object("added_tokens_decoder") if values["added_tokens_decoder"] is not None else None
        if listed is None:
            raise ModelError(f"{config.path}: added_tokens_decoder is null")
        return {_id(config, key): _fields(config, token) for key, token in listed.values.items()}
    special = read_settings(config.path.with_name("special_tokens_map.json"), optional=True)
    for key, value in special.values.items():
        _take_special(special, key, value, values)
    added = _legacy(config.path.with_name("added_tokens.json"), values)
    for entry in (json.raw("added_tokens") or ()) if json is not None else ():
        fields = dict(_fields(config if json is None else json, entry))
        added[_id(config if json is None else json, fields.pop("id", None))] = fields
    return added


def _mark_places(values: dict[str, Any]) -> None:
    """Add T5's tokens for places, which it has unless a list names some of them."""
    listed = values.get("additional_special_tokens")
    if isinstance(listed, list) and not any("<extra_id_" in str(token) for token in listed):
        count = values.get("extra_ids", 100)
        values["additional_special_tokens"] = [*listed, *(f"<extra_id_{number}>" for number in range(count))]


def _take_special(special: Settings, key: str, value: Any, values: dict[str, Any]) -> None:
    """Note one entry of special_tokens_map.json, which is worth more than tokenizer_config.json."""
    lists = ("additional_special_tokens", "extra_special_tokens")
    if key not in lists and not key.endswith("_token"):
        raise ModelError(f"{special.path}: {key[:60]} is not known, and could change the tokens")
    if key == "extra_special_tokens" and isinstance(value, dict):
        values.update({_named(name): token for name, token in value.items()})
        return
    if key == "extra_special_tokens" and isinstance(value, list):
        listed = values.get(key)
        value = [*(listed if isinstance(listed, list) else ()), *value]
    elif isinstance(value, dict):
        value = {**{name: field for name, field in value.items() if name != "__type"}, "special": True}
        value["__type"] = "AddedToken"
    values[key] = value


def _legacy(path: Path, values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The tokens of added_tokens.json."""
    listed = read_settings(path, optional=True)
    extra = values.get("extra_special_tokens")
    every = [*(values.get(key) for key in NAMED), *(extra if isinstance(extra, list) else ())]
    special = {_content(value) for value in every}
    return {
        _id(listed, index): {
            "content": token,
            "normalized": token not in special,
            "special": token in special,
        }
        for token, index in listed.values.items()
    }


def _arguments(
    config: Settings, values: dict[str, Any], added: Mapping[int, dict[str, Any]]
) -> tuple[dict[str, Any], list[Token] | None]:
    """The arguments with tokens in one form, and the further special tokens."""
    flags = {fields.get("content"): fields for fields in added.values()}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if not key.endswith("_token") or key in FLAGS:
            arguments[key] = value
        elif value is None or isinstance(value, str):
            arguments[key] = flags.get(value, value) if key in NAMED else value
        else:
            token = _typed(config, key, value)
            arguments[key] = flags.get(token.get("content"), token) if key in NAMED else token
    extra = arguments.pop("extra_special_tokens", ...)
    if extra is ...:  # a class may have some of its own
        extra = arguments.pop("additional_special_tokens", None)
        return arguments, None if extra is None else _tokens(config, extra)
    arguments.pop("additional_special_tokens", None)
    return arguments, _tokens(config, extra or [])


def _tokens(config: Settings, values: Any) -> list[Token]:
    key = "extra_special_tokens"
    if not isinstance(values, list):
        raise ModelError(f"{config.path}: {key} is not a list of tokens")
    return [each if isinstance(each, str) else _typed(config, key, each) for each in values]


def _typed(config: Settings, key: str, value: Any) -> dict[str, Any]:
    """The fields of a token that is written as an object, which must say what it is."""
    if not isinstance(value, dict) or value.get("__type") != "AddedToken":
        raise ModelError(f"{config.path}: {key} is neither a string nor an AddedToken")
    return _fields(config, {name: field for name, field in value.items() if name != "__type"})


def _fields(place: Settings, token: Any) -> dict[str, Any]:
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise ModelError(f"{place.path}: an added token has no content")
    return token


def _id(place: Settings, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ModelError(f"{place.path}: an added token's id is not a number") from None


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _named(key: str) -> str:
    """A name for a token under extra_special_tokens, by which it is seen to be one."""
    return key if key.endswith("_token") else f"{key}_token"
