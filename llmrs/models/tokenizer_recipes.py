"""How transformers 5 builds a tokenizer of each class: a vocabulary from the files, all else from the class.

A recipe is a class's defaults as data; `tokenizer_makers` does the building.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from llmrs.models.tokenizer_makers import (
    Arguments,
    Vocabulary,
    make_albert,
    make_byte_level,
    make_camembert,
    make_deberta_v2,
    make_gemma,
    make_llama,
    make_qwen2,
    make_t5,
    make_word_piece,
    make_xlm_roberta,
)

Model: TypeAlias = Literal["BPE", "Unigram", "WordPiece"]


class Recipe(NamedTuple):
    """A class.

    Attributes:
        model: what kind its vocabulary is of.
        make: builds it, without special tokens.
        tokens: its special tokens by name, where the files name no others.
        flags: its other arguments.
        around: names of the tokens before and after a text; None for those that tokenizer.json adds.
        extra: its further special tokens.
        fields: how the class makes AddedTokens of strings, by the tokens' names.
        yields: whether tokenizer.json's own special tokens count rather than `around`, where it has any.
    """

    model: Model
    make: Callable[[Vocabulary, Arguments], Any]
    tokens: Mapping[str, str | None]
    flags: Mapping[str, Any]
    around: tuple[str | None, str] | None
    extra: tuple[str, ...] = ()
    fields: Mapping[str, Mapping[str, bool]] = {}
    yields: bool = False


BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
WORDS = {"tokenize_chinese_chars": True, "strip_accents": None, "do_lower_case": True}
SPACE, NO_SPACE = {"add_prefix_space": True}, {"add_prefix_space": False}

BERT = Recipe("WordPiece", make_word_piece, BERT_TOKENS, WORDS, ("cls_token", "sep_token"))

RECIPES: dict[str, Recipe] = {
    "AlbertTokenizer": Recipe(
        "Unigram",
        make_albert,
        {
            **BERT_TOKENS,
            "bos_token": "[CLS]",
            "eos_token": "[SEP]",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        },
        {**SPACE, "do_lower_case": True, "keep_accents": False},
        ("cls_token", "sep_token"),
        yields=True,
    ),
    "BertTokenizer": BERT,
    "CamembertTokenizer": Recipe(
        "Unigram",
        make_camembert,
        ROBERTA_TOKENS,
        SPACE,
        ("bos_token", "eos_token"),
        ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
        {"mask_token": {"lstrip": True, "special": True}},
    ),
    "DebertaTokenizer": Recipe(
        "BPE",
        make_byte_level,
        {**BERT_TOKENS, "bos_token": "[CLS]", "eos_token": "[SEP]"},
        NO_SPACE,
        ("cls_token", "sep_token"),
    ),
    "DebertaV2Tokenizer": Recipe(
        "Unigram",
        make_deberta_v2,
        {**BERT_TOKENS, "bos_token": "[CLS]", "eos_token": "[SEP]"},
        {**SPACE, "do_lower_case": False, "split_by_punct": False, "unk_id": 1},
        ("cls_token", "sep_token"),
    ),
    "DistilBertTokenizer": BERT,
    "FunnelTokenizer": Recipe(
        "WordPiece",
        make_word_piece,
        {
            "unk_token": "<unk>",
            "sep_token": "<sep>",
            "pad_token": "<pad>",
            "cls_token": "<cls>",
            "mask_token": "<mask>",
            "bos_token": "<s>",
            "eos_token": "</s>",
        },
        {**WORDS, "clean_text": True},
        ("cls_token", "sep_token"),
    ),
    "GPT2Tokenizer": Recipe(
        "BPE",
        make_byte_level,
        {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        NO_SPACE,
        None,
    ),
    "GemmaTokenizer": Recipe(
        "BPE",
        make_gemma,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        {},
        None,
    ),
    "LlamaTokenizer": Recipe(
        "BPE",
        make_llama,
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        {"add_prefix_space": None, "legacy": False},
        None,
    ),
    "MPNetTokenizer": Recipe(
        "WordPiece",
        make_word_piece,
        {**ROBERTA_TOKENS, "unk_token": "[UNK]"},
        WORDS,
        ("cls_token", "sep_token"),
        fields={**{key: {} for key in ROBERTA_TOKENS}, "mask_token": {"lstrip": True}},
    ),
    "Qwen2Tokenizer": Recipe(
        "BPE",
        make_qwen2,
        {
            "unk_token": "<|endoftext|>",
            "bos_token": None,
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        {"add_prefix_space": None},
        None,
    ),
    "RobertaTokenizer": Recipe("BPE", make_byte_level, ROBERTA_TOKENS, NO_SPACE, ("cls_token", "sep_token")),
    "T5Tokenizer": Recipe(
        "Unigram",
        make_t5,
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        {},
        (None, "eos_token"),
        tuple(f"<extra_id_{number}>" for number in range(100)),
    ),
    "XLMRobertaTokenizer": Recipe(
        "Unigram",
        make_xlm_roberta,
        ROBERTA_TOKENS,
        SPACE,
        ("bos_token", "eos_token"),
    ),
}
