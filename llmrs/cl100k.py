"""OpenAI's cl100k vocabulary, which clients such as LangChain send token ids of, whatever the model.

Only decoding is done here, and that needs no more than the bytes of each token. They are in a file of this
package (375 KB, MIT licence, see cl100k.LICENSE), because the library that has them fetches them from a
network. `scripts/make_cl100k.py` makes the file from the published one.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from llmrs.errors import ConfigError

FILE = Path(__file__).with_name("cl100k.xz")
SHA256 = "18288f996f452d44e0e65996176591a4b712a3eb1b42afd6f0511e735c099480"
"""Of what the file holds: a byte with the length of each token, then the bytes of all tokens."""

TOKENS = 100_256

SPECIAL_TOKENS = {
    100_257: b"<|endoftext|>",
    100_258: b"<|fim_prefix|>",
    100_259: b"<|fim_middle|>",
    100_260: b"<|fim_suffix|>",
    100_276: b"<|endofprompt|>",
}


class UnknownTokenId(ValueError):
    """An id that no token has.

    Attributes:
        index: of the first input that holds one.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index} holds an id that is not in the vocabulary")
        self.index = index


class Cl100k:
    """The vocabulary, for decoding. Immutable; takes 3 MB of memory, and 0.1 s to load.

    Raises:
        ConfigError: the file is missing, or is not the one that belongs to this package.
    """

    def __init__(self, file: Path = FILE) -> None:
        try:
            data = lzma.decompress(file.read_bytes())
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise ConfigError(f"{file} cannot be read ({error}): install llmrs again") from None
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise ConfigError(f"{file} is not the file that belongs to llmrs: install llmrs again")
        lengths = np.zeros(max(SPECIAL_TOKENS) + 1, np.int64)  # an id without a token keeps 0
        lengths[:TOKENS] = np.frombuffer(data, np.uint8, TOKENS)
        for number, token in SPECIAL_TOKENS.items():
            lengths[number] = len(token)
        self._lengths = lengths
        self._starts = np.cumsum(lengths) - lengths
        self._bytes = np.frombuffer(data[TOKENS:] + b"".join(SPECIAL_TOKENS.values()), np.uint8)

    def decode(self, inputs: Sequence[Sequence[int]]) -> list[str]:
        """The text of each input, a non-empty list of ids from 0 on.

        What is no UTF-8 becomes U+FFFD: a text that was cut between tokens may end inside a character.

        Raises:
            UnknownTokenId: an id is not in the vocabulary.
        """
        stops = np.cumsum([len(ids) for ids in inputs])
        ids = np.fromiter(chain.from_iterable(inputs), np.int64, int(stops[-1]))
        lengths = self._lengths[np.minimum(ids, len(self._lengths) - 1)]
        unknown = (ids >= len(self._lengths)) | (lengths == 0)
        if unknown.any():
            raise UnknownTokenId(int(np.searchsorted(stops, unknown.argmax(), "right")))
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1]) + np.repeat(self._starts[ids] - (ends - lengths), lengths)
        data = self._bytes[places].tobytes()
        borders = [0, *ends[stops - 1].tolist()]
        return [data[start:stop].decode("utf-8", "replace") for start, stop in pairwise(borders)]
