"""The values that travel between the rooms: inputs, what a backend makes of them, vectors.

Nothing here computes. Shapes and dtypes are stated once, here, and hold everywhere:
vectors are C-contiguous float32 of shape [n, dimensions], row i belongs to input i.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float32]
"""C-contiguous float32, [n, dimensions]."""

Input: TypeAlias = str | list[int]
"""One input as the client sent it: a text, or the ids of its tokens."""

Truncate: TypeAlias = Literal["none", "start", "end", "chunk_mean"]
"""Which end an over-long input loses; `none` refuses it, `chunk_mean` splits it, see `chunks`."""

AskedTruncate: TypeAlias = Truncate | Literal["cut"]
"""What a request may ask for: `cut` is either end, as the configuration or the model has it."""

Side: TypeAlias = Literal["start", "end"]
"""The end of a text that is cut off."""

OutputDtype: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""What the numbers of an answer are:

- `float16`: the nearest half-precision numbers, ties to even.
- `int8`: x * 127 of a unit vector as an integer from -127 to 127, ties to even (`numpy.rint(x * 127)`);
  `uint8` is 128 more, from 1 to 255.
- `ubinary`: a bit for each number, 1 where it is above zero, eight in a byte, the first one highest
  (`numpy.packbits(x > 0)`); `binary` is 128 less, as an int8.
"""


class CallOptions(NamedTuple):
    """What an HTTP backend is told about inputs: those of one call have the same.

    Attributes:
        truncate: what it shall do with inputs that are too long; None: what it does by itself.
        dimensions: how wide their vectors shall be; None: as wide as they are.
        input_type, prompt_name: which prompt of its model it shall put in front; None: its default.
    """

    truncate: Truncate | None = None
    dimensions: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None


class Prepared(NamedTuple):
    """One input, ready for its backend.

    Attributes:
        payload: what `Backend.embed` takes: int32 token ids for a local model, the text (or the
            ids as they came) for an HTTP backend.
        n_tokens: how many tokens the model will read, special tokens included. An estimate
            where only the backend can count; `Vectors.n_tokens` corrects it.
        truncated: whether the input was cut to the model's length.
        chunks: what it was split into because it is too long for the model; it has no payload then, and
            the tokens of all.
        weight: of a chunk, its tokens without special ones and the prompt's.
        owner: index of the input in its request, where that is not its own place among the texts computed.
        options: what an HTTP backend is told about it beside the input itself; None: nothing.
    """

    payload: Any
    n_tokens: int
    truncated: bool = False
    chunks: tuple[Prepared, ...] = ()
    weight: int = 0
    owner: int | None = None
    options: CallOptions | None = None

    @property
    def key(self) -> Hashable:
        """Equal for inputs that get the same vector: a text itself, the bytes of token ids."""
        payload = self.payload
        if isinstance(payload, np.ndarray):
            return payload.tobytes()
        told = tuple(payload) if isinstance(payload, list) else payload
        return told if self.options is None else (told, self.options)


class Vectors(NamedTuple):
    """A backend's answer to one batch: row i of `matrix` is input i's vector.

    `n_tokens` gives the tokens read per input where the backend counted them itself, `cells` the
    places for tokens that were computed, padding included, where it knows that. `cut` tells of each input
    whether the backend cut it, where it was the backend that did.
    """

    matrix: Matrix
    n_tokens: Sequence[int] | None = None
    cells: int | None = None
    cut: Sequence[bool] | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What a backend knows about its model. None means: not known (yet).

    Attributes:
        name: the model's own name at its source, for instance the last part of its folder.
        dimensions: width of its vectors.
        max_input_tokens: longest input in tokens, special tokens included.
        normalized: whether the model itself makes unit vectors.
        matryoshka: the smaller widths the model was trained for, if it declares them.
        prompts: prefixes by name, `query` and `document` being the ones `input_type` picks. The
            empty name, where there is one, is for texts that name none.
        truncation_side: which end an over-long text loses where nobody says otherwise.
        hub_id: its id on the Hugging Face hub, if it was named by that or lies in the hub's cache.
    """

    name: str | None = None
    dimensions: int | None = None
    max_input_tokens: int | None = None
    normalized: bool = False
    matryoshka: tuple[int, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    truncation_side: Side = "end"
    hub_id: str | None = None


@dataclass(frozen=True)
class Limits:
    """What one call of `Backend.embed` may carry, and how many may run at once.

    Attributes:
        batch_size: most texts.
        batch_tokens: most tokens, padding included.
        slots: calls at the same time.
        efficient_tokens: a batch of so many tokens costs no more per token than a larger one, so
            that it is not worth waiting for company; None where only a full batch is.
        inline_tokens: a batch of up to so many tokens is computed so soon, in half a millisecond at most,
            that handing it to a thread would cost more; 0 for none.
        spread: whether texts that do not fill all free slots are shared out among them: slots that
            are cores compute side by side, where a backend behind a network wants one large batch.
    """

    batch_size: int
    batch_tokens: int
    slots: int
    efficient_tokens: int | None = None
    spread: bool = False
    inline_tokens: int = 0
