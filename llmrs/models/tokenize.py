"""Texts to token ids, as the model's own tokenizer has it, see `tokenizer_build`.

Wraps Hugging Face tokenizers. The tokenizer is set up once and never changed afterwards: changing
it while another thread encodes raises "Already borrowed". So it never truncates; over-long inputs
are cut or split here, between the special tokens that the tokenizer puts around every input. Token ids
from a client get the same special tokens and the same cut. A static model's inputs have no special tokens,
so they may have no token at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from llmrs.embeddings import Input, Prepared, Truncate
from llmrs.errors import ContextLengthExceeded, InvalidRequest, ModelError
from llmrs.models.sparse import BLANKS, is_sparse, parts_at_blanks
from llmrs.models.tokenizer_build import load_plain, load_tokenizer
from llmrs.models.wordtable import Static

CHUNK_CHARACTERS = 1 << 18
"""Characters tokenized together. An encoding takes about 150 bytes a token until its ids are taken."""

MOST_CHARACTERS = 4 * CHUNK_CHARACTERS
"""Most of a text is read of which the tokenizer drops characters: combining marks, say, take long to drop."""

WINDOW_CHARACTERS_PER_TOKEN = 64
"""A longer text is looked at through a window first: its far end cannot matter if the window alone
has more tokens than the model takes. English has 4 to 5 characters a token."""

MARGIN_TOKENS = 64
"""Tokens next to the window's edge may not be the text's own: the edge may lie inside a word."""

PROBES = ("a", "the b", "1 . e")
"""Texts that show which tokens are put around all."""

NO_TEXT = "input holds a lone surrogate, which is not text"

Ids = NDArray[np.int32]

NO_IDS: Ids = np.empty(0, np.int32)


class ModelTokenizer:
    """The tokenizer of a model folder, for inputs of 1 to `max_tokens` tokens. Thread-safe.

    Args:
        path: tokenizer.json. Where it is missing or not all that counts, what is beside it is read.
        max_tokens: the model's longest input, special tokens included.
        vocabulary: rows of the model's word table; ids are below it.
        lowercase: lowercase texts before anything else.
        static: the model, if it is a static one.

    Raises:
        ModelError: the file is missing or broken, or does not fit the model.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int,
        vocabulary: int,
        lowercase: bool = False,
        static: Static | None = None,
    ) -> None:
        # A static model's library reads tokenizer.json and nothing else.
        load = load_plain if static else load_tokenizer
        self._tokenizer = load(path, lowercase=lowercase)
        self._max_tokens = max_tokens
        self._static = static
        self._limited = static is not None and static.max_characters is not None
        self._vocabulary = vocabulary
        # EmbeddingGemma's tokenizer knows a token for images that its word table does not have.
        self._may_exceed = self._tokenizer.get_vocab_size() > vocabulary
        self._before, self._after = ([], []) if static else _special_tokens(self._tokenizer, path)
        if any(token >= vocabulary for token in (*self._before, *self._after)):
            raise ModelError(f"{path}: the model's word table has no row for a special token around texts")
        self._drops_blanks = not self._limited and self._probe_blanks()
        if len(self._before) + len(self._after) >= max_tokens:
            raise ModelError(f"{path}: its special tokens leave no room in the model's {max_tokens} tokens")
        if self._tokenizer.get_vocab_size(with_added_tokens=False) > vocabulary:
            raise ModelError(f"{path} has more tokens than the model's word table: it is another model's")

    def prepare(self, inputs: Sequence[Input], *, truncate: Truncate, prompt: str = "") -> list[Prepared]:
        """Token ids of inputs, int32 with special tokens, in order; `prompt` precedes every text.

        Token ids are a text's tokens without special tokens, which are added.

        Raises:
            ContextLengthExceeded: an input is too long and `truncate` is `none`.
            InvalidRequest: an id is outside the vocabulary, a text holds a lone surrogate, an input has no
                token at all and the model is no static one, or more characters than are read hold too few.
        """
        texts = [prompt + each for each in inputs if isinstance(each, str)]
        encoded = self._encode(texts, truncate)
        repeated = self._own_tokens(prompt) if prompt and truncate == "chunk_mean" else NO_IDS
        return [
            self._fit(next(encoded), index, truncate, repeated)
            if isinstance(each, str)
            else self._fit(self._check(each, index), index, truncate)
            for index, each in enumerate(inputs)
        ]

    def _encode(self, texts: Sequence[str], truncate: Truncate) -> Iterator[tuple[Ids, bool]]:
        """Ids of each text with special tokens, and whether they are all of them."""
        window = self._max_tokens * WINDOW_CHARACTERS_PER_TOKEN
        if self._static and self._static.max_characters:
            window = self._static.max_characters
        if truncate == "chunk_mean":  # all of a text counts
            window = CHUNK_CHARACTERS
        chunk: list[str] = []
        characters = 0
        for text in texts:
            if len(text) > window:
                yield from self._encode_chunk(chunk)
                chunk, characters = [], 0
                if truncate == "chunk_mean":
                    yield self._encode_parts(text), True
                else:
                    yield self._encode_long(text, window, from_end=truncate == "start")
                continue
            chunk.append(text)
            characters += len(text)
            if characters > CHUNK_CHARACTERS:
                yield from self._encode_chunk(chunk)
                chunk, characters = [], 0
        yield from self._encode_chunk(chunk)

    def _encode_chunk(self, texts: list[str]) -> list[tuple[Ids, bool]]:
        return [(np.array(encoding.ids, np.int32), True) for encoding in self._encodings(texts)]

    def _encode_long(self, text: str, window: int, *, from_end: bool) -> tuple[Ids, bool]:
        """Ids of the end of a very long text that counts, or of the whole text if that is short.

        A text of which even CHUNK_CHARACTERS are few tokens is not read on, because that has no bound. Not
        counted are characters that the tokenizer drops, see `_encode_sparse`.
        """
        for size in [window] if self._limited else sorted({window, max(window, CHUNK_CHARACTERS)}):
            part = text[-size:] if from_end else text[:size]
            if self._drops_blanks and len(part) < len(text) and is_sparse(part):
                return self._encode_sparse(text, from_end=from_end)
            ids = np.array(self._encodings([part])[0].ids, np.int32)
            if len(part) == len(text):
                return ids, True
            if len(ids) > self._max_tokens + MARGIN_TOKENS:
                return ids, False
        return self._encode_sparse(text, from_end=from_end) if self._drops_blanks else (ids, False)

    def _encode_sparse(self, text: str, *, from_end: bool) -> tuple[Ids, bool]:
        """Ids of a very long text of few tokens, read in parts from one end until there are enough.

        Read are at most MOST_CHARACTERS, a run of blanks counted as one; the normalizer may leave at most
        CHUNK_CHARACTERS of them.
        """
        found: list[Ids] = []
        tokens = read = kept = 0
        whole = True
        for part in parts_at_blanks(text, CHUNK_CHARACTERS, self._is_dropped, from_end=from_end):
            whole = part is not None and kept <= CHUNK_CHARACTERS and read <= MOST_CHARACTERS
            if part is None or not whole or tokens > self._max_tokens + MARGIN_TOKENS:
                whole = False
                break
            found.append(self._own_tokens(part))
            tokens += len(found[-1])
            read += len(part)
            kept += len(self._normalized(part))
        if from_end and not whole and tokens <= self._max_tokens:  # from its start it may have an end
            ids, whole = self._encode_sparse(text, from_end=False)
            if whole:
                return ids, True
        own = np.concatenate(found[::-1] if from_end else found) if found else NO_IDS
        return np.array([*self._before, *own, *self._after], np.int32), whole

    def _is_dropped(self, text: str) -> bool:
        return not self._normalized(text).strip()

    def _normalized(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        try:
            return text if normalizer is None else normalizer.normalize_str(text)
        except (TypeError, UnicodeEncodeError):
            raise InvalidRequest(NO_TEXT, param="input") from None

    def _encode_parts(self, text: str) -> Ids:
        """Ids of all of a very long text, tokenized in parts: at once they would take too much memory.

        A part ends at a blank, if there is one near its end, so that no word is torn.
        """
        parts = []
        start = 0
        while start < len(text):
            stop = start + CHUNK_CHARACTERS
            if stop < len(text):
                stop = max(text.rfind(" ", stop - CHUNK_CHARACTERS // 8, stop), 0) or stop
            parts.append(self._own_tokens(text[start:stop]))
            start = stop
        return np.array([*self._before, *np.concatenate(parts), *self._after], np.int32)

    def _probe_blanks(self) -> bool:
        """Whether blanks only part words, and each word's tokens are its own."""
        if any(
            re.search(r"\s", token.content) for token in self._tokenizer.get_added_tokens_decoder().values()
        ):
            return False
        words = [self._own_tokens(word).tolist() for word in ("a", "bc")]
        parted = [
            self._own_tokens(f"{blank}a{blank}bc{blank}").tolist() for blank in (" ", *BLANKS, BLANKS * 2)
        ]
        return all(each == words[0] + words[1] for each in parted)

    def _own_tokens(self, text: str) -> Ids:
        """Ids of a text without special tokens."""
        ids = np.array(self._encodings([text])[0].ids, np.int32)
        return ids[len(self._before) : len(ids) - len(self._after)]

    def _encodings(self, texts: list[str]) -> list[Encoding]:
        try:
            special = self._static is None
            return self._tokenizer.encode_batch_fast(texts, add_special_tokens=special) if texts else []
        except (TypeError, UnicodeEncodeError):
            raise InvalidRequest(NO_TEXT, param="input") from None

    def _check(self, ids: list[int], index: int) -> tuple[Ids, bool]:
        """Token ids from a client, with special tokens around them."""
        if ids and not 0 <= min(ids) <= max(ids) < self._vocabulary:
            raise InvalidRequest(
                f"input[{index}] holds a token id outside the model's vocabulary of {self._vocabulary}",
                param="input",
            )
        return np.array([*self._before, *ids, *self._after], np.int32), True

    def _fit(
        self, encoded: tuple[Ids, bool], index: int, truncate: Truncate, repeated: Ids = NO_IDS
    ) -> Prepared:
        """The input as the model takes it, cut or split if it must be and may be.

        `repeated` are the ids of the prompt, which every chunk gets.
        """
        ids, whole = encoded
        if not len(ids) and self._static is None:  # only without special tokens
            raise InvalidRequest(f"input[{index}] holds no token", param="input")
        if self._may_exceed and (ids >= self._vocabulary).any():
            raise InvalidRequest(f"input[{index}] holds a token that the model does not have", param="input")
        if truncate == "chunk_mean":  # no chunk may be left without a token
            ids = self._counting(ids)
        if whole and len(ids) <= self._max_tokens:
            ids = self._counting(ids)
            return Prepared(ids, len(ids))
        if truncate == "none":
            found = len(ids) if whole else None
            raise ContextLengthExceeded(self._max_tokens, index=index, found=found)
        if not whole and len(ids) <= self._max_tokens + MARGIN_TOKENS and not self._limited:
            reason = f"input[{index}] has few tokens in more characters than are read; shorten it"
            raise InvalidRequest(reason, param="input")
        before, after = len(self._before), len(self._after)
        text = ids[before : len(ids) - after]
        room = self._max_tokens - before - after
        if truncate == "chunk_mean":
            return self._split(text, room, index, repeated)
        kept = text[:room] if truncate == "end" else text[-room:]
        cut = self._counting(np.concatenate([ids[:before], kept, ids[len(ids) - after :]]))
        return Prepared(cut, len(cut), truncated=True)

    def _counting(self, ids: Ids) -> Ids:
        """Those of an input's ids that the model reads; a static one may leave out the unknown token's."""
        if self._static is None or self._static.unknown is None:
            return ids
        counting: Ids = ids[ids != self._static.unknown]
        return counting

    def _split(self, ids: Ids, room: int, index: int, repeated: Ids) -> Prepared:
        """Chunks of an input's own tokens that fill the room, all but the last.

        Tokens at the end of a prompt may have become one with the text's first: what is repeated are
        those that have not.
        """
        shared = min(len(repeated), len(ids))
        differing = np.flatnonzero(repeated[:shared] != ids[:shared])
        prompt, text = np.split(ids, [differing[0] if len(differing) else shared])
        if 2 * len(prompt) > room:  # else a few tokens of text could cost a whole chunk each
            reason = f"the prompt leaves too little room for chunks of input[{index}]"
            raise InvalidRequest(reason, param="truncate")
        step = room - len(prompt)
        chunks = []
        for start in range(0, len(text), step):
            part = text[start : start + step]
            payload = np.concatenate([self._before, prompt, part, self._after]).astype(np.int32)
            chunks.append(Prepared(payload, len(payload), weight=len(part)))
        return Prepared(None, sum(chunk.n_tokens for chunk in chunks), chunks=tuple(chunks))


def _special_tokens(tokenizer: Tokenizer, path: Path) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after an input. Raises ModelError: not always the same."""
    around = []
    whole = [tokenizer.encode(text).ids for text in PROBES]
    processor, tokenizer.post_processor = tokenizer.post_processor, None  # nobody else has the tokenizer yet
    own = [tokenizer.encode(text).ids for text in PROBES]
    tokenizer.post_processor = processor
    for bare, full in zip(own, whole, strict=True):
        places = [place for place in range(len(full)) if full[place : place + len(bare)] == bare]
        if bare and places:
            around.append([(full[:place], full[place + len(bare) :]) for place in places])
        elif bare:
            raise ModelError(f"{path}: its post-processor changes tokens, which is not supported")
    common = [each for each in around[0] if all(each in others for others in around)] if around else []
    if not common:
        raise ModelError(
            f"{path}: its post-processor does more than put tokens around texts, or it has no tokens"
        )
    return common[0]
