"""Token ids against the tokenizers library itself, truncating by its own rules."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from llmrs.errors import ContextLengthExceeded, InvalidRequest, ModelError
from llmrs.models import tokenize
from llmrs.models.tokenize import ModelTokenizer
from tests.models.makers import VOCABULARY, make_tokenizer, write_json
from tests.models.tokenizer_cases import KINDS, tokenizer_json

MAX_TOKENS = 32

TEXTS = [
    "",
    " \n ",
    "hello",
    "A short text, with (punctuation)!",
    "[SEP] in the text [CLS] itself [PAD]",
    "word " * 29,
    "word " * 30,
    "word " * 31,
    "the quick brown fox jumps over the lazy dog " * 20,
    "自然语言处理" * 30,
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 cafe\u0301 " * 20,
    "x" * 150 + " end",
    "antidisestablishmentarianism " * 12,
]


@pytest.fixture(scope="module")
def path(default_folder):
    return default_folder / "tokenizer.json"


@pytest.fixture(scope="module")
def mine(path):
    return ModelTokenizer(path, max_tokens=MAX_TOKENS, vocabulary=30522)


def theirs(path, direction=None):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if direction:
        tokenizer.enable_truncation(MAX_TOKENS, direction=direction)
    return tokenizer


def ids_of(prepared):
    return [each.payload.tolist() for each in prepared]


@pytest.mark.parametrize(("truncate", "direction"), [("end", "right"), ("start", "left")])
def test_cut_texts_are_those_of_a_truncating_tokenizer(mine, path, truncate, direction):
    prepared = mine.prepare(TEXTS, truncate=truncate)
    expected = [encoding.ids for encoding in theirs(path, direction).encode_batch(TEXTS)]
    whole = [len(encoding.ids) for encoding in theirs(path).encode_batch(TEXTS)]
    assert ids_of(prepared) == expected
    assert [each.n_tokens for each in prepared] == [len(ids) for ids in expected]
    assert [each.truncated for each in prepared] == [length > MAX_TOKENS for length in whole]
    assert all(each.payload.dtype == np.int32 for each in prepared)


def test_too_long_texts_are_refused_with_index_and_length(mine):
    assert mine.prepare(["word " * 30], truncate="none")[0].n_tokens == MAX_TOKENS
    with pytest.raises(ContextLengthExceeded, match=rf"is {MAX_TOKENS} tokens, but input\[1\] has 33 tokens"):
        mine.prepare(["hello", "word " * 31, "word " * 40], truncate="none")


def test_references_have_the_token_ids_of_transformers(default_f32, references):
    texts, ids, _ = references
    assert ids_of(default_f32.prepare(texts, truncate="end")) == ids


def test_the_prompt_precedes_every_text(mine):
    assert ids_of(mine.prepare(["hello", "world"], truncate="none", prompt="query: ")) == ids_of(
        mine.prepare(["query: hello", "query: world"], truncate="none")
    )


# -- very long texts ------------------------------------------------------------------------------


@pytest.mark.parametrize(("truncate", "direction"), [("end", "right"), ("start", "left")])
@pytest.mark.parametrize("text", ["the quick brown fox ", "自然语言处理", "antidisestablishmentarianism-"])
def test_a_very_long_text_is_cut_as_if_all_of_it_had_been_read(mine, path, text, truncate, direction):
    long = "start " + text * (100_000 // len(text)) + " end"
    assert ids_of(mine.prepare([long], truncate=truncate)) == [theirs(path, direction).encode(long).ids]


def test_of_a_very_long_text_only_a_window_is_read(mine, monkeypatch):
    read = []
    encodings = mine._encodings
    monkeypatch.setattr(mine, "_encodings", lambda texts: read.extend(map(len, texts)) or encodings(texts))
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\] is longer"):
        mine.prepare(["hello", "word " * 1_000_000], truncate="none")
    assert sum(read) < 10_000


def test_a_long_text_of_few_tokens_is_read_whole(mine):
    blanks = " " * 100_000 + "hello"
    prepared = mine.prepare([blanks], truncate="none")[0]
    assert prepared.n_tokens == 3
    assert not prepared.truncated


SPARSE = {
    "blanks-before": " " * 300_000 + "hello",
    "blanks-after": "hello" + "\n" * 300_000,
    "blanks-between": "hello" + " \t\n" * 400_000 + "big   world",
    "controls": "\x01" * 300_000 + "hello",
    "controls-around": "hello " + "\x01" * 300_000 + " world " + "\x01" * 400_000,
    "accents": "hello" + "\u0301" * 150_000 + " " * 300_000 + "world",
    "no-break": "\u00a0" * 100_000 + " " * 300_000 + "hello",
    "specials": "[SEP]" + " " * 300_000 + "[MASK] [CLS]",
    "a-long-word": "x" * 200_000 + " " * 300_000 + "end",
}
"""Texts of few tokens."""


@pytest.mark.parametrize("text", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("truncate", ["none", "end", "start"])
def test_what_the_tokenizer_drops_counts_for_nothing(mine, path, text, truncate):
    [prepared] = mine.prepare([text], truncate=truncate)
    assert prepared.payload.tolist() == theirs(path).encode(text).ids
    assert not prepared.truncated


@pytest.mark.parametrize(("truncate", "direction"), [("end", "right"), ("start", "left")])
def test_a_sparse_text_of_many_tokens_is_cut_where_it_should_be(mine, path, truncate, direction):
    blanks = " " * 30_000
    text = blanks.join(f"word{number} and" for number in range(16))
    [prepared] = mine.prepare([text], truncate=truncate)
    assert prepared.payload.tolist() == theirs(path, direction).encode(text).ids
    assert prepared.truncated
    with pytest.raises(ContextLengthExceeded):
        mine.prepare([text], truncate="none")


@pytest.mark.parametrize(
    "text", ["x" * 300_000 + " end", "\u0301" * 4_000_000 + " end", "end " + "x" * 300_000]
)
def test_but_not_without_end(mine, text, monkeypatch):
    """A word that is longer than a part cannot be read, nor is what is dropped read for ever."""
    read = []
    encodings = mine._encodings
    monkeypatch.setattr(mine, "_encodings", lambda texts: read.extend(map(len, texts)) or encodings(texts))
    with pytest.raises(ContextLengthExceeded):
        mine.prepare([text], truncate="none")
    assert sum(read) < 7 * tokenize.CHUNK_CHARACTERS
    for truncate in ("end", "start"):
        with pytest.raises(
            InvalidRequest, match=r"input\[1\] has few tokens in more characters than are read"
        ):
            mine.prepare(["hello", text], truncate=truncate)


def test_blanks_are_not_read_one_by_one(mine, monkeypatch):
    read = []
    encodings = mine._encodings
    monkeypatch.setattr(mine, "_encodings", lambda texts: read.extend(map(len, texts)) or encodings(texts))
    assert mine.prepare([" " * 16_000_000 + "hello"], truncate="none")[0].n_tokens == 3
    assert sum(read) < 100


def test_blanks_that_are_tokens_are_not_dropped(tmp_path):
    kind = next(kind for kind in KINDS if kind.name == "Qwen2Tokenizer")
    write_json(tmp_path / "tokenizer.json", tokenizer_json(kind))
    tokenizer = ModelTokenizer(tmp_path / "tokenizer.json", max_tokens=MAX_TOKENS, vocabulary=1000)
    text = " " * 300_000 + "hello"
    assert len(theirs(tmp_path / "tokenizer.json").encode(text).ids) > MAX_TOKENS
    with pytest.raises(ContextLengthExceeded):
        tokenizer.prepare([text], truncate="none")


def test_many_texts_are_tokenized_in_chunks(mine, monkeypatch):
    monkeypatch.setattr(tokenize, "CHUNK_CHARACTERS", 100)
    sizes = []
    encodings = mine._encodings
    monkeypatch.setattr(mine, "_encodings", lambda texts: sizes.append(len(texts)) or encodings(texts))
    texts = [f"text number {number}" for number in range(50)]
    chunked = ids_of(mine.prepare(texts, truncate="none"))
    assert len(sizes) > 3
    assert chunked == [ids_of(mine.prepare([text], truncate="none"))[0] for text in texts]


# -- token ids ------------------------------------------------------------------------------------


def test_token_ids_get_the_special_tokens_of_a_text(mine, path):
    bare = theirs(path).encode("hello big world", add_special_tokens=False).ids
    prepared = mine.prepare([bare, "hello big world"], truncate="none")
    assert ids_of(prepared)[0] == ids_of(prepared)[1]
    assert prepared[0].n_tokens == len(bare) + 2


@pytest.mark.parametrize(("truncate", "kept"), [("end", slice(0, 30)), ("start", slice(-30, None))])
def test_too_many_token_ids(mine, truncate, kept):
    ids = list(range(1000, 1100))
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\] has 102 tokens"):
        mine.prepare([ids], truncate="none")
    assert ids_of(mine.prepare([ids], truncate=truncate)) == [[101, *ids[kept], 102]]


@pytest.mark.parametrize("ids", [[5, 30522], [-1], [2**31], [10**30, 0]])
def test_token_ids_outside_the_vocabulary(mine, ids):
    with pytest.raises(InvalidRequest, match=r"input\[1\].*vocabulary of 30522") as raised:
        mine.prepare([[5], ids], truncate="end")
    assert raised.value.param == "input"


def test_a_lone_surrogate_is_not_text(mine):
    with pytest.raises(InvalidRequest, match="surrogate"):
        mine.prepare(["fine", "not \ud800 fine"], truncate="end")
    with pytest.raises(InvalidRequest, match="surrogate"):
        mine.prepare([" " * 300_000 + "x" * 300_000 + "\ud800"], truncate="start")


# -- other tokenizers -----------------------------------------------------------------------------


def test_special_tokens_of_another_family(tmp_path):
    make_tokenizer(tmp_path / "tokenizer.json", "roberta")
    tokenizer = ModelTokenizer(tmp_path / "tokenizer.json", max_tokens=8, vocabulary=VOCABULARY)
    prepared = tokenizer.prepare([[10, 11], "hello " * 20], truncate="end")
    assert ids_of(prepared)[0] == [0, 10, 11, 2]
    assert ids_of(prepared)[1][0] == 0
    assert ids_of(prepared)[1][-1] == 2
    assert prepared[1].n_tokens == 8


def test_a_tokenizer_without_special_tokens(tmp_path):
    make_tokenizer(tmp_path / "tokenizer.json")
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain.post_processor = None
    plain.save(str(tmp_path / "tokenizer.json"))
    tokenizer = ModelTokenizer(tmp_path / "tokenizer.json", max_tokens=4, vocabulary=VOCABULARY)
    assert ids_of(tokenizer.prepare(["a b c", "a b c d e"], truncate="start")) == [[4, 5, 6], [5, 6, 7, 8]]
    with pytest.raises(InvalidRequest, match=r"input\[1\] holds no token"):
        tokenizer.prepare(["a", ""], truncate="none")


@pytest.mark.parametrize("template", ["$A $A", "[CLS] $A [SEP] $A", "[CLS]"])
def test_a_post_processor_that_does_more_than_put_tokens_around(tmp_path, template):
    make_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="post-processor"):
        ModelTokenizer(tmp_path / "tokenizer.json", max_tokens=8, vocabulary=VOCABULARY)


def test_lowercase(tmp_path):
    make_tokenizer(tmp_path / "tokenizer.json")
    arguments = {"max_tokens": 8, "vocabulary": VOCABULARY}
    as_is = ModelTokenizer(tmp_path / "tokenizer.json", **arguments)
    lowered = ModelTokenizer(tmp_path / "tokenizer.json", lowercase=True, **arguments)
    hello = ids_of(as_is.prepare(["hello"], truncate="none"))
    assert ids_of(as_is.prepare(["HELLO"], truncate="none")) != hello
    assert ids_of(lowered.prepare(["HELLO"], truncate="none")) == hello


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not JSON", b'{"model": {"type": "Nonsense"}}'])
def test_a_missing_or_broken_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json") as raised:
        ModelTokenizer(path, max_tokens=8, vocabulary=VOCABULARY)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("limits", "word"), [({"max_tokens": 2}, "no room"), ({"vocabulary": 20}, "another model")]
)
def test_a_tokenizer_that_does_not_fit(tmp_path, limits, word):
    make_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match=word):
        ModelTokenizer(tmp_path / "tokenizer.json", **{"max_tokens": 8, "vocabulary": VOCABULARY, **limits})


def test_an_added_token_beyond_the_word_table(tmp_path):
    """Such a tokenizer is fine, such a text is not."""
    path = tmp_path / "tokenizer.json"
    make_tokenizer(path)
    tokenizer = Tokenizer.from_file(str(path))
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(path))
    made = ModelTokenizer(path, max_tokens=8, vocabulary=size)
    assert len(made.prepare(["hello"], truncate="none")[0].payload) == 3
    with pytest.raises(InvalidRequest, match=r"input\[1\] holds a token"):
        made.prepare(["hello", "hello <image>"], truncate="none")


def test_threads_share_one_tokenizer(mine):
    """Changing a tokenizer in use raises "Already borrowed": nothing here may change it."""
    expected = ids_of(mine.prepare(TEXTS, truncate="start"))
    failures = []

    def work(truncate):
        for _ in range(20):
            if truncate == "start" and ids_of(mine.prepare(TEXTS, truncate=truncate)) != expected:
                failures.append("other ids")
            else:
                mine.prepare(TEXTS, truncate=truncate)

    def guarded(truncate):
        try:
            work(truncate)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(truncate,)) for truncate in ("start", "end") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# -- chunks ---------------------------------------------------------------------------------------


def own(path, text):
    """A text's tokens without special ones."""
    return theirs(path).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip()] + ["自然语言处理" * 100])
@pytest.mark.parametrize("prompt", ["", "query: ", "search "])
def test_chunks_hold_all_of_a_text_in_order(mine, path, text, prompt):
    """Each with special tokens and the prompt around it, and all but the last full."""
    [prepared] = mine.prepare([text], truncate="chunk_mean", prompt=prompt)
    whole, head = own(path, prompt + text), own(path, prompt)
    assert not prepared.truncated
    if len(whole) + 2 <= MAX_TOKENS:
        assert prepared.payload.tolist() == [101, *whole, 102]
        assert prepared.chunks == ()
        return
    step = MAX_TOKENS - 2 - len(head)
    parts = [whole[start : start + step] for start in range(len(head), len(whole), step)]
    assert ids_of(prepared.chunks) == [[101, *head, *part, 102] for part in parts]
    assert [chunk.weight for chunk in prepared.chunks] == [len(part) for part in parts]
    assert [chunk.n_tokens for chunk in prepared.chunks] == [len(head) + len(part) + 2 for part in parts]
    assert all(chunk.payload.dtype == np.int32 for chunk in prepared.chunks)
    assert prepared.n_tokens == sum(chunk.n_tokens for chunk in prepared.chunks)


@pytest.mark.parametrize("count", [30, 31, 60, 61, 100])
def test_chunks_of_token_ids(mine, count):
    """Which get no prompt."""
    ids = [1000 + i for i in range(count)]
    [prepared] = mine.prepare([ids], truncate="chunk_mean", prompt="query: ")
    if count == 30:
        assert prepared.payload.tolist() == [101, *ids, 102]
        return
    room = MAX_TOKENS - 2
    expected = [[101, *ids[start : start + room], 102] for start in range(0, count, room)]
    assert ids_of(prepared.chunks) == expected
    assert sum(chunk.weight for chunk in prepared.chunks) == count


@pytest.mark.parametrize("text", ["the quick brown fox ", "自然语言处理", "x" * 90 + " "])
def test_a_very_long_text_is_tokenized_in_parts(path, monkeypatch, text):
    """The parts end between words, so that the tokens are those of the whole text."""
    tokenizer = ModelTokenizer(path, max_tokens=MAX_TOKENS, vocabulary=30522)
    seen = []
    encodings = tokenizer._encodings
    monkeypatch.setattr(tokenizer, "_encodings", lambda texts: seen.extend(texts) or encodings(texts))
    monkeypatch.setattr(tokenize, "CHUNK_CHARACTERS", 1000)
    long = text * (5000 // len(text))
    [prepared] = tokenizer.prepare([long], truncate="chunk_mean")
    assert max(map(len, seen)) <= 1000
    assert "".join(seen) == long
    found = [token for chunk in prepared.chunks for token in chunk.payload[1:-1].tolist()]
    assert found == own(path, long)


def test_a_prompt_that_leaves_no_room_for_chunks(mine):
    with pytest.raises(InvalidRequest, match=r"too little room for chunks of input\[1\]"):
        mine.prepare(["short", "word " * 40], truncate="chunk_mean", prompt="so many words " * 6)


def test_short_inputs_among_long_ones(mine):
    prepared = mine.prepare(["hello", "word " * 40, [7592]], truncate="chunk_mean")
    assert [len(each.chunks) for each in prepared] == [0, 2, 0]
