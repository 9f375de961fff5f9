"""Makes small random static models, and their vectors with sentence-transformers and with model2vec.

Run as a program, in the environment of `families.py`; `test_static_oracles` reads what it writes. For each
case of `CASES` a folder `model/`, and beside it `texts.json` and `vectors.npy`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH = 48
WORDS = [f"w{number}" for number in range(60)]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LONG = "incomprehensibilities"


def texts() -> list[str]:
    """Empty ones, unknown words, and more than 512 tokens, whose words are long or short."""
    random = np.random.default_rng(1)
    some = [
        " ".join(random.choice(WORDS, length)) for length in (1, 2, 3, 5, 8, 13, 21, 40, 511, 512, 513, 700)
    ]
    odd = ["", "   ", "unheard", "[CLS] w1 [SEP]", "w1 unheard w2", "unheard " * 600 + "w7", f"{LONG} " * 600]
    return [*some, *odd, f"{LONG} w3 unheard " * 200]


# -- tokenizers -----------------------------------------------------------------------------------


def finished(model: Any) -> Tokenizer:
    """With special tokens around a text, which static models leave out, and padding and no truncation."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.enable_padding(length=8)
    return tokenizer


def words() -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *WORDS, LONG])}
    return finished(models.WordLevel(vocabulary, unk_token="[UNK]"))


def pieces() -> Tokenizer:
    parts = [*SPECIALS, "w", *(f"##{digit}" for digit in range(10)), "in", "##comprehensi", "##bilities"]
    return finished(models.WordPiece({part: index for index, part in enumerate(parts)}, unk_token="[UNK]"))


def unigram() -> Tokenizer:
    parts = [(token, 0.0) for token in SPECIALS] + [
        (token, -2.0) for token in (*WORDS, "compre", "hensi", "b")
    ]
    return finished(models.Unigram(parts, unk_id=1))


def cutting(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.enable_truncation(16)
    return tokenizer


# -- models ---------------------------------------------------------------------------------------


def table(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(0, 0.5, (rows, WIDTH)).astype(np.float32)


def sentence_model(
    folder: Path, tokenizer: Tokenizer, *steps: Any, dtype: Any = np.float32, cut: int | None = None
) -> None:
    weights = table(tokenizer.get_vocab_size() + 3).astype(dtype)  # rows more than tokens
    modules = [StaticEmbedding(tokenizer, embedding_weights=weights), *steps]
    prompts = {"query": "w5 w6 ", "document": "w7 "}
    SentenceTransformer(modules=modules, truncate_dim=cut, prompts=prompts, device="cpu").save(str(folder))


def nested(folder: Path) -> None:
    """As versions before 5 wrote it: the table in a folder of its own, classes at their old places."""
    sentence_model(folder, words(), Normalize())
    place = folder / "0_StaticEmbedding"
    place.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).rename(place / name)
    kinds = [("StaticEmbedding", "0_StaticEmbedding"), ("Normalize", "1_Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def model2vec(
    folder: Path, tokenizer: Tokenizer, *, mapped: bool = False, dtype: Any = np.float32, **config: Any
) -> None:
    """As model2vec saves it, with `modules.json`."""
    random = np.random.default_rng(2)
    tokens = tokenizer.get_vocab_size()
    vectors = table(20 if mapped else tokens)
    vectors = (vectors * 30).astype(np.int8) if dtype is np.int8 else vectors.astype(dtype)
    shared = (
        {"token_mapping": random.integers(0, 20, tokens), "weights": random.random(tokens)} if mapped else {}
    )
    StaticModel(vectors, tokenizer, {"model_type": "model2vec"}, **shared, **config).save_pretrained(folder)


class Case(NamedTuple):
    """One model.

    Attributes:
        make: writes its folder.
        bare: whether it is read as model2vec reads it, without `modules.json`.
    """

    make: Callable[[Path], None]
    bare: bool = False


CASES = {
    "sentence": Case(lambda folder: sentence_model(folder, words())),
    "sentence-normalized": Case(lambda folder: sentence_model(folder, pieces(), Normalize(), cut=32)),
    "sentence-nested": Case(nested),
    "sentence-half": Case(lambda folder: sentence_model(folder, unigram(), dtype=np.float16)),
    "sentence-cutting": Case(lambda folder: sentence_model(folder, cutting(words()))),
    "sentence-model2vec": Case(lambda folder: model2vec(folder, words(), mapped=True, normalize=True)),
    "model2vec": Case(lambda folder: model2vec(folder, words()), bare=True),
    "model2vec-normalized": Case(lambda folder: model2vec(folder, pieces(), normalize=True), bare=True),
    "model2vec-mapped": Case(lambda folder: model2vec(folder, unigram(), mapped=True), bare=True),
    "model2vec-endless": Case(lambda folder: model2vec(folder, words(), max_length=None), bare=True),
    "model2vec-bytes": Case(
        lambda folder: model2vec(folder, words(), dtype=np.int8, max_length=30), bare=True
    ),
    "model2vec-half": Case(lambda folder: model2vec(folder, words(), dtype=np.float16), bare=True),
}


def make(case: Case, folder: Path) -> None:
    case.make(folder / "model")
    (folder / "texts.json").write_text(json.dumps(texts()))
    if case.bare:
        (folder / "model" / "modules.json").unlink()
        shutil.rmtree(folder / "model" / "1_Normalize", ignore_errors=True)
        vectors = StaticModel.from_pretrained(folder / "model").encode(texts())
    else:
        vectors = SentenceTransformer(str(folder / "model"), device="cpu").encode(texts())
    np.save(folder / "vectors.npy", vectors.astype(np.float32))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, case in CASES.items():
            make(case, Path(sys.argv[1]) / name)
