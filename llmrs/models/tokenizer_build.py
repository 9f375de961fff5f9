"""A model's tokenizer, built as transformers 5 builds it; see `docs/decisions/0001-tokenizer-config.md`.

Wraps Hugging Face tokenizers, as `tokenizer_makers` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from llmrs.errors import ModelError
from llmrs.models.tokenizer_class import AS_IT_IS, GENERIC, VOCABULARIES
from llmrs.models.tokenizer_config import NAMED, Token, TokenizerFiles, read_tokenizer
from llmrs.models.tokenizer_makers import Arguments, Vocabulary, charsmap_of
from llmrs.models.tokenizer_recipes import RECIPES, Recipe

WORD_LEVEL = {"type": "WordLevel", "vocab": {}, "unk_token": ""}

UNHEARD_OF = "a \U000e0fff \u2603"
"""Characters that hardly any vocabulary has."""

REMEDY = (
    "Have transformers write it, with sentencepiece and protobuf installed: python -c 'import sys, "
    "transformers; transformers.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' "
    "FOLDER"
)
"""What makes a tokenizer.json of other files."""


def load_tokenizer(path: Path, *, lowercase: bool = False) -> Tokenizer:
    """The tokenizer of a model's folder, which neither cuts nor pads.

    Args:
        path: tokenizer.json. Beside it are its settings, and the vocabulary where it is missing.
        lowercase: lowercase texts before anything else.

    Raises:
        ModelError: a file is missing or broken, or says what is not supported.
    """
    files = read_tokenizer(path.parent)
    try:
        tokenizer = _build(files)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        place = files.config.path if files.json is None else path
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{place}: no {files.name} can be made of it: {why}") from None
    return _bare(tokenizer, lowercase)


def load_plain(path: Path, *, lowercase: bool = False) -> Tokenizer:
    """The tokenizer in a tokenizer.json and nothing else, which neither cuts nor pads. Raises ModelError."""
    if not path.exists():
        raise ModelError(f"{path} is missing: save the model with a fast tokenizer, or download it again")
    return _bare(_from_file(path), lowercase)


def _from_file(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path} is not a tokenizer ({type(error).__name__}): download it again") from None


def _bare(tokenizer: Tokenizer, lowercase: bool) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lowercase:
        own: Any = tokenizer.normalizer
        steps = [own[index] for index in range(len(own))] if isinstance(own, normalizers.Sequence) else [own]
        if not any(isinstance(step, normalizers.Lowercase) for step in steps):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return tokenizer


def _build(files: TokenizerFiles) -> Tokenizer:
    tokenizer = _generic(files) if files.name == GENERIC else _by_class(files, RECIPES[files.name])
    _check(tokenizer, files)
    return tokenizer


def _generic(files: TokenizerFiles) -> Tokenizer:
    """tokenizer.json as it is, and further special tokens."""
    if files.json is None:
        raise ModelError(f"{files.folder / 'tokenizer.json'} is missing. {REMEDY}")
    tokenizer = _from_file(files.json.path)
    _add(tokenizer, files, _special(files.arguments, {}, {}), files.extra or [])
    return tokenizer


def _by_class(files: TokenizerFiles, recipe: Recipe) -> Tokenizer:
    """The class's own tokenizer with the vocabulary of the files."""
    tokens = _special(files.arguments, recipe.tokens, recipe.fields)
    flags = {key: files.arguments.get(key, value) for key, value in recipe.flags.items()}
    given = Arguments({**flags, **tokens}, str(files.config.path))
    tokenizer: Tokenizer = recipe.make(_vocabulary(files, recipe), given)
    _add(tokenizer, files, tokens, list(recipe.extra) if files.extra is None else files.extra)
    _surround(tokenizer, files, recipe, given)
    return tokenizer


def _special(
    arguments: Mapping[str, Any],
    defaults: Mapping[str, str | None],
    fields: Mapping[str, Mapping[str, bool]],
) -> dict[str, Any]:
    """The special tokens by name: those that every tokenizer has a name for, then the model's own."""
    given = {key: token for key, token in arguments.items() if key.endswith("_token")}
    given = {key: token for key, token in given.items() if not isinstance(token, bool)}
    tokens = {key: given.pop(key, defaults.get(key)) for key in NAMED if key in given or key in defaults}
    for key, token in tokens.items():
        if isinstance(token, str) and key in fields:
            tokens[key] = {"content": token, **fields[key]}
    return {**tokens, **given}


def _add(tokenizer: Tokenizer, files: TokenizerFiles, tokens: Mapping[str, Any], extra: list[Token]) -> None:
    """Add the tokens that are not divided, in transformers' order."""
    tokenizer.encode_special_tokens = bool(files.arguments.get("split_special_tokens"))
    there = tokenizer.get_added_tokens_decoder()
    known = {repr(token) for token in there.values()}
    listed = [AddedToken(**fields) for _, fields in sorted(files.added.items())]
    new = [token for token in listed if repr(token) not in known]
    names = {token.content for token in (*there.values(), *new)}
    named = [token for token in tokens.values() if token is not None]
    special = {token if isinstance(token, str) else token["content"] for token in named}
    for token in (*named, *extra):
        added = _added_token(token)
        if added.content not in names:
            names.add(added.content)
            new.append(added)
    for token in new:
        if not token.special and token.content in special:
            token.special = True
    if new:
        tokenizer.add_tokens(new)
    if files.name == "Qwen2Tokenizer":
        tokenizer.add_tokens([AddedToken(content, special=True) for content in _all_special(tokens, extra)])


def _all_special(tokens: Mapping[str, Any], extra: list[Token]) -> list[str]:
    every = [*(token for token in tokens.values() if token is not None), *extra]
    return list(dict.fromkeys(token if isinstance(token, str) else token["content"] for token in every))


def _added_token(token: Token) -> AddedToken:
    return AddedToken(token, special=True) if isinstance(token, str) else AddedToken(**token)


def _surround(tokenizer: Tokenizer, files: TokenizerFiles, recipe: Recipe, given: Arguments) -> None:
    """Put special tokens before and after texts."""
    own = files.json.raw("post_processor") if files.json is not None else None
    if own is not None and (recipe.around is None or recipe.yields):
        parts = {"version": "1.0", "added_tokens": [], "model": WORD_LEVEL, "post_processor": own}
        tokenizer.post_processor = Tokenizer.from_str(json.dumps(parts)).post_processor
        return
    before, after = recipe.around or (None, None)
    if recipe.around is None and files.json is None:
        before = (
            "bos_token" if files.arguments.get("add_bos_token") and given.values.get("bos_token") else None
        )
        after = (
            "eos_token" if files.arguments.get("add_eos_token") and given.values.get("eos_token") else None
        )
    named = [given.token(key) for key in (before, after) if key]
    template = [*([given.token(before)] if before else []), "$A", *([given.token(after)] if after else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in set(named)]
    )


def _check(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Refuse what fails on unknown characters, and types of tokens, which a model would be told."""
    tokenizer.encode(UNHEARD_OF)
    if "token_type_ids" in (files.config.raw("model_input_names") or ()) and any(
        tokenizer.encode("a").type_ids
    ):
        place = files.config.path if files.json is None else files.json.path
        raise ModelError(f"{place}: the post-processor gives tokens types, which is not supported")


def _vocabulary(files: TokenizerFiles, recipe: Recipe) -> Vocabulary:
    if files.json is None:
        return _from_vocabulary_files(files, recipe)
    model = files.json.object("model")
    tokens, merges = model.raw("vocab"), model.raw("merges") or []
    kind = model.raw("type") or ("Unigram" if isinstance(tokens, list) else "BPE" if merges else "WordPiece")
    if kind != recipe.model:
        raise ModelError(
            f"{files.json.path}: its model is {str(kind)[:40]}, and transformers makes {recipe.model} of it, "
            f"because tokenizer_class or the family asks for a {files.name}. {AS_IT_IS}"
        )
    if recipe.model == "Unigram":
        tokens = [(token, score) for token, score in tokens]
    pairs: Any = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]
    return Vocabulary(tokens, pairs, charsmap_of(files.json.raw("normalizer")))


def _from_vocabulary_files(files: TokenizerFiles, recipe: Recipe) -> Vocabulary:
    """The vocabulary where there is no tokenizer.json."""
    paths = [files.folder / name for name in VOCABULARIES.get(files.name, ())]
    missing = [path.name for path in paths if not path.exists()]
    if missing or not paths:
        raise ModelError(f"{files.folder / 'tokenizer.json'} is missing{_instead(missing)}. {REMEDY}")
    if recipe.model == "WordPiece":
        return Vocabulary(models.WordPiece.read_file(str(paths[0])), [], None)
    tokens, merges = models.BPE.read_file(str(paths[0]), str(paths[1]))
    return Vocabulary(tokens, merges, None)


def _instead(missing: list[str]) -> str:
    return f", and so is {missing[0]}" if missing else ", and SentencePiece's own format cannot be read"
