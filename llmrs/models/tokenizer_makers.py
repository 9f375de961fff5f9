"""How transformers 5 builds the tokenizers of its classes, without special tokens.

Each function is a class's constructor, as far as tokens depend on it: nothing of decoding, of offsets, or of
pairs of texts. Wraps Hugging Face tokenizers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from llmrs.errors import ModelError

PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen2Tokenizer takes for a piece of a text."""


class Vocabulary(NamedTuple):
    """What tokenizers of any class are made of.

    Attributes:
        tokens: ids by token, or for a Unigram model tokens and their scores.
        merges: of a BPE model.
        charsmap: SentencePiece's table of replacements, if there is one.
    """

    tokens: Any
    merges: list[tuple[str, str]]
    charsmap: bytes | None


class Arguments(NamedTuple):
    """What a class is made with, its own defaults included."""

    values: Mapping[str, Any]
    place: str

    def token(self, key: str) -> str:
        """The text of a special token that the class cannot do without. Raises ModelError."""
        value = self.values[key]
        if value is None:
            raise ModelError(f"{self.place}: {key} is null, and the tokenizer needs one")
        return str(value["content"] if isinstance(value, dict) else value)

    def flag(self, key: str, *, null: bool | None = None) -> bool:
        """A flag, `null` where it is null. Raises ModelError where it may not be."""
        value = null if self.values[key] is None else self.values[key]
        if value is None:
            raise ModelError(f"{self.place}: {key} is null, expected true or false")
        return bool(value)


def make_word_piece(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary.tokens, unk_token=given.token("unk_token")))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text="clean_text" not in given.values or given.flag("clean_text"),
        handle_chinese_chars=given.flag("tokenize_chinese_chars"),
        strip_accents=given.values["strip_accents"],
        lowercase=given.flag("do_lower_case"),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def make_byte_level(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    tokenizer = Tokenizer(_bpe(vocabulary, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=given.flag("add_prefix_space"))
    return tokenizer


def make_qwen2(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    tokenizer = Tokenizer(_bpe(vocabulary, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    space = given.flag("add_prefix_space", null=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
        ]
    )
    return tokenizer


def make_gemma(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    unknown = given.token("unk_token")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary.tokens,
            merges=vocabulary.merges,
            fuse_unk=True,
            unk_token=unknown,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    return tokenizer


def make_llama(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary.tokens, merges=vocabulary.merges, fuse_unk=True, byte_fallback=True)
    )
    scheme = "always" if given.flag("legacy", null=False) else "first"
    if not given.flag("add_prefix_space", null=True):
        scheme = "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return tokenizer


def _bpe(vocabulary: Vocabulary, *, fuse_unk: bool) -> models.BPE:
    return models.BPE(
        vocab=vocabulary.tokens,
        merges=vocabulary.merges,
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=fuse_unk,
    )


def _unigram(vocabulary: Vocabulary, given: Arguments, unknown: int) -> Tokenizer:
    """SentencePiece's words at blanks, with its own replacements."""
    tokenizer = Tokenizer(models.Unigram(vocabulary.tokens, unk_id=unknown, byte_fallback=False))
    if vocabulary.charsmap is not None:
        tokenizer.normalizer = normalizers.Precompiled(vocabulary.charsmap)
    scheme = "always" if given.flag("add_prefix_space", null=False) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    return tokenizer


def make_xlm_roberta(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    return _unigram(vocabulary, given, 3)


def make_t5(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    return _unigram(vocabulary, Arguments({"add_prefix_space": True}, given.place), 2)


def make_camembert(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    unknown = given.token("unk_token")
    index = next((index for index, (token, _) in enumerate(vocabulary.tokens) if token == unknown), 0)
    return _unigram(vocabulary, given, index)


def make_albert(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    tokenizer = _unigram(vocabulary, given, 1)
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not given.flag("keep_accents", null=False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if given.flag("do_lower_case", null=False):
        steps.append(normalizers.Lowercase())
    if vocabulary.charsmap is not None:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def make_deberta_v2(vocabulary: Vocabulary, given: Arguments) -> Tokenizer:
    unknown = (given.token("unk_token"), 0.0)
    index = vocabulary.tokens.index(unknown) if unknown in vocabulary.tokens else given.values["unk_id"]
    tokenizer = Tokenizer(models.Unigram(vocabulary.tokens, unk_id=index, byte_fallback=False))
    steps: list[Any] = [
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.NFC(),
        normalizers.Strip(left=False, right=True),
    ]
    if given.flag("do_lower_case", null=False):
        steps.insert(0, normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if given.flag("add_prefix_space", null=False) else "first"
    splits: list[Any] = [pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    if given.flag("split_by_punct", null=False):
        splits.insert(0, pre_tokenizers.Punctuation(behavior="isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return tokenizer


def charsmap_of(normalizer: Any) -> bytes | None:
    """SentencePiece's table in the normalizer of a tokenizer.json, as transformers finds it."""
    found = [normalizer] if normalizer else []
    if found and found[0].get("type") == "Sequence":
        found = normalizer["normalizers"]
    for each in found:
        if each.get("type") == "Precompiled" and "precompiled_charsmap" in each:
            return base64.b64decode(each["precompiled_charsmap"])
    return None
