"""Makes one small random model of each family, with a tokenizer of the family's class trained on a few texts.

Run as a program in the environment of `tests/models/families.py`, whose encoders and steps these are. For
each family a folder in the layout that models are published in.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from tests.matrix.texts import QUERY, TEXTS
from tests.models.families import CASES, randomize

PLACES = 80
"""Positions of the models."""

SIZE = 420
"""Tokens, but for the bytes where each is one."""

CORPUS = [*TEXTS, QUERY] * 3

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

OLD_NAMES = {
    "[PAD]": "pad_token",
    "[UNK]": "unk_token",
    "[CLS]": "cls_token",
    "[SEP]": "sep_token",
    "[MASK]": "mask_token",
}


def word_pieces(specials: list[str]) -> dict[str, int]:
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=False)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Letters of both cases, with and without accents.
    texts = [*CORPUS, *(normalizers.BertNormalizer(lowercase=True).normalize_str(text) for text in CORPUS)]
    trained.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=specials))
    return dict(trained.get_vocab())


def unigrams(specials: list[str], unknown: str) -> list[tuple[str, float]]:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=specials, unk_token=unknown)
    trained.train_from_iterator(CORPUS, trainer)
    return [(token, score) for token, score in json.loads(trained.to_str())["model"]["vocab"]]


def pairs(specials: list[str], *, of_bytes: bool = True) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of a byte-pair encoding."""
    trained = Tokenizer(models.BPE())
    alphabet = []
    if of_bytes:
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + 256, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def bert(**settings: Any) -> Any:
    return hf.BertTokenizer(vocab=word_pieces(BERT), model_max_length=PLACES, **settings)


def mpnet() -> Any:
    vocabulary = word_pieces(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    return hf.MPNetTokenizer(vocab=vocabulary, model_max_length=PLACES - 2)


def roberta() -> Any:
    vocabulary, merges = pairs(ROBERTA)
    return hf.RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=PLACES - 2)


def qwen() -> Any:
    vocabulary, merges = pairs(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = hf.Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=PLACES)
    return with_template(fast, "$A <|endoftext|>", "<|endoftext|>")


def modernbert() -> Any:
    """Of no class of its own."""
    vocabulary, merges = pairs(BERT)
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {name: token for token, name in OLD_NAMES.items()}
    made = hf.PreTrainedTokenizerFast(tokenizer_object=fast, model_max_length=PLACES, **names)
    return with_template(made, "[CLS] $A [SEP]", "[CLS]", "[SEP]")


def gemma() -> Any:
    vocabulary, merges = pairs(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTES], of_bytes=False)
    return hf.GemmaTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=PLACES, add_bos_token=True, add_eos_token=True
    )


def albert() -> Any:
    vocabulary = unigrams(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")
    return hf.AlbertTokenizer(vocab=vocabulary, model_max_length=PLACES)


def camembert() -> Any:
    vocabulary = unigrams(
        ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"], "<unk>"
    )
    return hf.CamembertTokenizer(vocab=vocabulary, model_max_length=PLACES - 2)


def xlm_roberta() -> Any:
    return hf.XLMRobertaTokenizer(vocab=unigrams(ROBERTA, "<unk>"), model_max_length=PLACES - 2)


def with_template(made: Any, template: str, *specials: str) -> Any:
    from tokenizers.processors import TemplateProcessing

    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[(token, made.convert_tokens_to_ids(token)) for token in specials]
    )
    return made


def as_version_4(name: str, **settings: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """tokenizer_config.json as transformers wrote it before its version 5."""

    def write(config: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in config.items() if key not in ("backend", "is_local")}
        return {**kept, "tokenizer_class": name, "clean_up_tokenization_spaces": True, **settings}

    return write


def as_saved(config: dict[str, Any]) -> dict[str, Any]:
    return config


class Kind(NamedTuple):
    """A tokenizer.

    Attributes:
        make: makes it.
        publish: its configuration in the form that models are published with.
    """

    make: Callable[[], Any]
    publish: Callable[[dict[str, Any]], dict[str, Any]] = as_saved


BERT_4 = Kind(
    bert,
    as_version_4(
        "BertTokenizer",
        do_basic_tokenize=True,
        never_split=None,
        tokenize_chinese_chars=True,
        strip_accents=None,
    ),
)
QWEN_4 = Kind(qwen, as_version_4("Qwen2Tokenizer", add_bos_token=False, add_prefix_space=False))

KINDS = {
    "albert": Kind(albert),
    "bert": BERT_4,
    "camembert": Kind(camembert),
    "distilbert": Kind(bert, as_version_4("DistilBertTokenizer")),
    "electra": Kind(lambda: bert(do_lower_case=False), as_version_4("ElectraTokenizer")),
    "gemma3": Kind(gemma),
    "gemma3-causal": Kind(gemma, as_version_4("GemmaTokenizer")),
    "gte": Kind(bert),
    "modernbert": Kind(modernbert),
    "modernbert-published": Kind(modernbert, as_version_4("PreTrainedTokenizerFast")),
    "mpnet": Kind(mpnet, as_version_4("MPNetTokenizer")),
    "nomic": BERT_4,
    "qwen3": QWEN_4,
    "qwen3-windows": Kind(qwen),
    "roberta": Kind(roberta, as_version_4("RobertaTokenizer", add_prefix_space=False, trim_offsets=True)),
    "xlm-roberta": Kind(xlm_roberta, as_version_4("XLMRobertaTokenizer")),
}
"""By the names of the families' cases, but for those whose published form needs code of its own there."""


def make(name: str, folder: Path, seed: int) -> None:
    case, kind = CASES[name], KINDS[name]
    random = torch.Generator().manual_seed(seed)
    tokenizer = kind.make()
    encoder = case.model().eval()
    encoder.resize_token_embeddings(max(tokenizer.get_vocab().values()) + 5)
    randomize(encoder, random)
    place = folder / "encoder"
    encoder.to(case.dtype).save_pretrained(place)
    tokenizer.save_pretrained(place)
    transformer = Transformer(str(place), model_kwargs={"dtype": torch.float32})
    steps = case.steps()
    for step in steps:
        randomize(step, random)
    prompts = {"query": "Query: ", "passage": "passage: "} if name in ("bert", "qwen3") else None
    model = SentenceTransformer(modules=[transformer, *steps], prompts=prompts, device="cpu")
    model.save(str(folder / "model"))
    for path in (folder / "model").glob("model*.safetensors*"):
        path.unlink()
    for path in [*place.glob("model*.safetensors*"), *place.glob("token*"), *place.glob("special*")]:
        shutil.copy(path, folder / "model" / path.name)
    rewrite(folder / "model/config.json", case.publish)
    rewrite(folder / "model/tokenizer_config.json", kind.publish)
    shutil.rmtree(place)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text())), ensure_ascii=False, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for number, name in enumerate(KINDS):
            if len(sys.argv) < 3 or name in sys.argv[2:]:
                make(name, Path(sys.argv[1]) / name, number)
