"""OpenAI's vocabulary against the published file and OpenAI's own library."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import lzma
import os
import random
from pathlib import Path
from typing import Any

import pytest

from llmrs.cl100k import FILE, SPECIAL_TOKENS, TOKENS, Cl100k, UnknownTokenId
from llmrs.errors import ConfigError

PUBLISHED_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""Of cl100k_base.tiktoken, as tiktoken itself checks it."""


@pytest.fixture(scope="module")
def mine() -> Cl100k:
    return Cl100k()


@pytest.fixture(scope="module")
def theirs() -> Any:
    """tiktoken's, which finds its vocabulary in a package of the test requirements."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        message = "the vocabulary is not installed (tests/requirements-data.txt)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    folder = Path(next(iter(spec.submodule_search_locations))) / "litellm_core_utils" / "tokenizers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return importlib.import_module("tiktoken").get_encoding("cl100k_base")


def test_the_file_is_the_published_one() -> None:
    data = lzma.decompress(FILE.read_bytes())
    lengths, rest = data[:TOKENS], data[TOKENS:]
    assert sum(lengths) == len(rest)
    lines, start = [], 0
    for number, length in enumerate(lengths):
        lines.append(base64.b64encode(rest[start : start + length]) + b" %d\n" % number)
        start += length
    assert hashlib.sha256(b"".join(lines)).hexdigest() == PUBLISHED_SHA256


def test_its_licence_lies_beside_it() -> None:
    assert "Copyright (c) 2022 OpenAI" in FILE.with_name("cl100k.LICENSE").read_text()


def test_every_token_and_no_other(mine: Cl100k, theirs: Any) -> None:
    ids = [*range(TOKENS), *SPECIAL_TOKENS]
    assert {*theirs._special_tokens.values()} == SPECIAL_TOKENS.keys()
    assert mine.decode([[number] for number in ids]) == [theirs.decode([number]) for number in ids]
    for number in (100_256, 100_261, 100_275, 100_277, 2**31 - 1):
        with pytest.raises(UnknownTokenId) as caught:
            mine.decode([[1], [2, 3], [4, number, number], [number]])
        assert caught.value.index == 2


TEXTS = [
    "hello world",
    "你好，世界 😀",
    "naïve café\n\n\ttabs",
    " ",
    "def f(x):\n    return x ** 2",
    "ß" * 50,
]


@pytest.mark.parametrize("seed", range(5))
def test_texts_come_back(mine: Cl100k, theirs: Any, seed: int) -> None:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(TEXTS, k=rng.randint(1, 30))) for _ in range(50)]
    assert mine.decode([theirs.encode(text) for text in texts]) == texts


def test_what_was_cut_inside_a_character_gets_the_replacement(mine: Cl100k, theirs: Any) -> None:
    ids = theirs.encode("a😀𓀀")[:-1]
    [text] = mine.decode([ids])
    assert text.endswith("\ufffd")
    assert text == theirs.decode(ids, errors="replace")


@pytest.mark.parametrize("content", [None, b"", b"no xz at all", lzma.compress(b"another vocabulary")])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "cl100k.xz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cl100k\.xz.*install llmrs again"):
        Cl100k(file)
