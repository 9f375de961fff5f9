"""Small tokenizers of every class that transformers builds anew, and what a folder may say about them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llmrs.models.tokenizer_config import HARMLESS
from tests.models.makers import write_json

TEXTS = [
    "hello",
    "Hello, World! The Capital of FRANCE",
    " two  spaces \n and\ta tab ",
    "Crème Brûlée naïve",
    "自然语言处理 is 中文",
    "[MASK] <mask> [SEP] </s> <s> <pad> the<mask>end",
    "foo bar <extra_id_3> the foo",
    "``quoted'' it's 1234 İstanbul",
    "",
]

CORPUS = [
    "the capital of france is paris",
    "hello world it's a small world",
    "The Capital Of FRANCE",
    "crème brûlée naïve foo bar",
    "creme brulee naive 1234 two spaces and a tab",
    "自然语言处理 中文 is the end",
    "quoted mask sep pad",
]

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


class Kind(NamedTuple):
    """A class, and a folder of its making.

    Attributes:
        name: of the class.
        model_type: a family that has it.
        base: one of the functions below.
        specials: the tokens of the vocabulary's start, those around a text first and last by `around`.
        around: the tokens before and after a text.
    """

    name: str
    model_type: str
    base: str
    specials: list[str]
    around: tuple[str, str]


KINDS = (
    Kind("BertTokenizer", "bert", "WordPiece", BERT_SPECIALS, ("[CLS]", "[SEP]")),
    Kind("DistilBertTokenizer", "distilbert", "WordPiece", BERT_SPECIALS, ("[CLS]", "[SEP]")),
    Kind("MPNetTokenizer", "mpnet", "WordPiece", [*ROBERTA_SPECIALS, "[UNK]"], ("<s>", "</s>")),
    Kind(
        "FunnelTokenizer",
        "funnel",
        "WordPiece",
        ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<s>", "</s>"],
        ("<cls>", "<sep>"),
    ),
    Kind("RobertaTokenizer", "roberta", "BPE", ROBERTA_SPECIALS, ("<s>", "</s>")),
    Kind("DebertaTokenizer", "deberta", "BPE", BERT_SPECIALS, ("[CLS]", "[SEP]")),
    Kind("GPT2Tokenizer", "gpt2", "BPE", ["<|endoftext|>"], ("", "<|endoftext|>")),
    Kind("Qwen2Tokenizer", "qwen3", "BPE", ["<|endoftext|>", "<|im_end|>"], ("", "<|endoftext|>")),
    Kind("GemmaTokenizer", "gemma3_text", "BPE", ["<pad>", "<eos>", "<bos>", "<unk>"], ("<bos>", "<eos>")),
    Kind("LlamaTokenizer", "llama", "BPE", ["<unk>", "<s>", "</s>"], ("<s>", "</s>")),
    Kind("XLMRobertaTokenizer", "xlm-roberta", "Unigram", ROBERTA_SPECIALS, ("<s>", "</s>")),
    Kind("CamembertTokenizer", "camembert", "Unigram", ROBERTA_SPECIALS, ("<s>", "</s>")),
    Kind(
        "AlbertTokenizer",
        "albert",
        "Unigram",
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        ("[CLS]", "[SEP]"),
    ),
    Kind("T5Tokenizer", "t5", "Unigram", ["<pad>", "</s>", "<unk>"], ("", "</s>")),
    Kind("DebertaV2Tokenizer", "deberta-v2", "Unigram", BERT_SPECIALS, ("[CLS]", "[SEP]")),
    Kind("PreTrainedTokenizerFast", "modernbert", "WordPiece", BERT_SPECIALS, ("[CLS]", "[SEP]")),
)


def _word_piece(specials: list[str]) -> Tokenizer:
    """With settings that are not a class's own, so that it shows whose count."""
    unknown = "[UNK]" if "[UNK]" in specials else "<unk>"
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *map(str.lower, CORPUS)], trainer)
    return tokenizer


def _bpe(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFD()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _words_of_pieces(specials: list[str]) -> Tokenizer:
    """A BPE model of SentencePiece's kind, with bytes for what it does not know."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _unigram(specials: list[str]) -> Tokenizer:
    unknown = "[UNK]" if "[UNK]" in specials else "<unk>"
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("foo", "bar")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=specials, unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def tokenizer_json(kind: Kind) -> dict[str, Any]:
    """A tokenizer.json for a class."""
    if kind.name in ("GemmaTokenizer", "LlamaTokenizer"):
        tokenizer = _words_of_pieces(kind.specials)
    else:
        tokenizer = {"WordPiece": _word_piece, "BPE": _bpe, "Unigram": _unigram}[kind.base](kind.specials)
    before, after = kind.around
    named = [token for token in kind.around if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(named)],
    )
    tokenizer.decoder = (
        decoders.ByteLevel() if kind.base == "BPE" and "▁" not in tokenizer.get_vocab() else None
    )
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return value


CHARSMAP = base64.b64encode(struct.pack("<I", 1024) + bytes(1024)).decode("ascii")
"""SentencePiece's table of replacements, an empty one."""

ADDED = {"content": "foo", "lstrip": False, "normalized": False, "rstrip": True, "single_word": False}

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cased": {"do_lower_case": False},
    "uncased": {"do_lower_case": True},
    "accents-kept": {"strip_accents": False},
    "accents-stripped": {"strip_accents": True},
    "accents-null": {"strip_accents": None, "do_lower_case": False},
    "keep-accents": {"keep_accents": True},
    "chinese-together": {"tokenize_chinese_chars": False},
    "dirty": {"clean_text": False},
    "space": {"add_prefix_space": True},
    "no-space": {"add_prefix_space": False},
    "space-null": {"add_prefix_space": None},
    "legacy": {"legacy": True},
    "punctuation": {"split_by_punct": True},
    "bos-eos": {"add_bos_token": True, "add_eos_token": True},
    "no-bos-eos": {"add_bos_token": False, "add_eos_token": False},
    "split-specials": {"split_special_tokens": True},
    "extra": {"additional_special_tokens": ["foo", "the"]},
    "extra-new": {"extra_special_tokens": ["bar"]},
    "extra-null": {"additional_special_tokens": None},
    "extra-named": {"extra_special_tokens": {"image_token": "foo"}},
    "own-token": {"query_token": "the"},
    "mask-a-word": {"mask_token": "the"},
    "mask-null": {"mask_token": None},
    "pad-a-word": {"pad_token": {"__type": "AddedToken", **ADDED}},
    "decoder": {"added_tokens_decoder": {"1": {**ADDED, "special": True}}},
    "decoder-empty": {"added_tokens_decoder": {}},
    "padding-left": {"padding_side": "left"},
    "lengths": {"model_max_length": 8, "truncation_side": "left", "max_length": 4, "stride": 2},
    "chat": {
        "chat_template": "x",
        "clean_up_tokenization_spaces": True,
        "use_fast": False,
        "errors": "ignore",
    },
    "of-no-account": {
        **dict.fromkeys(sorted(HARMLESS - {"chat_template", "verbose"})),
        "sp_model_kwargs": {},
        "image_token_id": 7,
    },
    "downloaded": {
        "trust_remote_code": False,
        "use_auth_token": True,
        "token": "the",
        "cache_dir": "foo",
        "torch_dtype": "float16",
        "max_seq_length": 4,
        "add_dummy_prefix_space": True,
        "unsloth_version": "2025.9.1",
    },
    "trusting": {"trust_remote_code": True},
    "token-of-a-download": {"use_auth_token": "the"},
    "class-empty": {"tokenizer_class": ""},
    "unk-a-word": {"unk_token": "the"},
    "unk-null": {"unk_token": None},
    "cls-a-word": {"cls_token": "the", "bos_token": "the"},
    "sep-a-word": {"sep_token": "foo", "eos_token": "foo"},
    "unk-id": {"unk_id": 0},
    "number": {"do_lower_case": 1},
    "generic": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "unheard-of": {"tokenizer_class": "NobodysTokenizer"},
    "other-class": {"tokenizer_class": "BertTokenizer"},
}
"""What tokenizer_config.json says besides."""


def write_folders(place: Path, kinds: tuple[Kind, ...] = KINDS) -> Iterator[str]:
    """A folder for each class and configuration; yields their names."""
    for kind in kinds:
        value = tokenizer_json(kind)
        for word, config in CONFIGS.items():
            name = f"{kind.name}-{word}"
            write_json(place / name / "tokenizer.json", value)
            write_json(place / name / "config.json", {"model_type": kind.model_type})
            write_json(place / name / "tokenizer_config.json", {"tokenizer_class": kind.name, **config})
            yield name
        yield from _without_json(place, kind, value)
        for word, files in FILES.items():
            name = f"{kind.name}-{word}"
            write_json(place / name / "config.json", {"model_type": kind.model_type})
            changes = files.get("tokenizer.json", {})
            write_json(place / name / "tokenizer.json", {**value, **changes})
            for file, content in files.items():
                if file != "tokenizer.json":
                    write_json(place / name / file, content)
            yield name


def _without_json(place: Path, kind: Kind, value: dict[str, Any]) -> Iterator[str]:
    """Folders as they were before there was a tokenizer.json."""
    vocabulary = value["model"]["vocab"]
    if kind.base == "Unigram":
        return
    for word in VOCABULARY_ONLY:
        name = f"{kind.name}-vocabulary-{word}"
        folder = place / name
        write_json(folder / "config.json", {"model_type": kind.model_type})
        if word != "bare":
            config = {"tokenizer_class": kind.name, **CONFIGS[word]}
            write_json(folder / "tokenizer_config.json", config)
        lines = sorted(vocabulary, key=vocabulary.__getitem__)
        if kind.base == "WordPiece":
            (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            write_json(folder / "vocab.json", vocabulary)
            merges = [" ".join(pair) for pair in value["model"]["merges"]]
            (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        yield name


VOCABULARY_ONLY = (
    "bare",
    "plain",
    "cased",
    "space",
    "bos-eos",
    "extra",
    "mask-a-word",
    "decoder",
    "cls-a-word",
)


FILES: dict[str, dict[str, Any]] = {
    "bare": {},
    "by-config": {"config.json": {"model_type": "bert", "tokenizer_class": "RobertaTokenizer"}},
    "no-post-processor": {"tokenizer.json": {"post_processor": None}},
    "no-added": {"tokenizer.json": {"added_tokens": []}},
    "cut-and-padded": {
        "tokenizer.json": {
            "truncation": {"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": {
                "strategy": {"Fixed": 9},
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        }
    },
    "charsmap": {"tokenizer.json": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}}},
    "charsmap-in-a-sequence": {
        "tokenizer.json": {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
                    {"type": "Replace", "pattern": {"String": "foo"}, "content": "bar"},
                ],
            }
        }
    },
    "map": {"special_tokens_map.json": {"mask_token": "the", "additional_special_tokens": ["foo"]}},
    "map-object": {"special_tokens_map.json": {"mask_token": {**ADDED, "content": "bar"}}},
    "map-and-decoder": {
        "special_tokens_map.json": {"mask_token": "the"},
        "tokenizer_config.json": {"added_tokens_decoder": {}},
    },
    "added": {"added_tokens.json": {"the": 5, "foobar": 600}},
}
"""Other files of a folder."""
