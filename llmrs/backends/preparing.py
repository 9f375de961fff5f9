"""A request's inputs, made ready for an HTTP backend as far as it is known.

Only the backend can count tokens: a text's are estimated, a quarter of its UTF-8 bytes plus two special
tokens. That balances batches, and divides the total that the backend reports.
"""

from __future__ import annotations

from llmrs.backends.protocols import Protocol
from llmrs.backends.telling import check, surely_fits
from llmrs.embeddings import CallOptions, Input, Prepared
from llmrs.errors import ContextLengthExceeded, InvalidRequest

NOTHING = CallOptions()
"""What asks for nothing."""


def prepare_one(
    index: int,
    value: Input,
    prompt: str,
    options: CallOptions,
    protocol: Protocol | None,
    longest: int | None,
) -> Prepared:
    """One input, and what the backend is told of it.

    Args:
        index: its place in the request, for messages.
        prompt: stands in front of a text.
        protocol: None while that is not known: then whatever is asked goes on, to be judged later.
        longest: most tokens of an input, where that is known.

    Raises:
        InvalidRequest: the backend does not take such an input, or cannot be told that.
        ContextLengthExceeded: it is too long, and the backend could only refuse it.
    """
    if isinstance(value, list):
        return _prepare_ids(index, value, _told(None, options, protocol, longest), protocol, longest)
    text = prompt + value
    if not text and protocol is not None and not protocol.takes_empty:
        raise InvalidRequest(f"input[{index}] is empty: the backend takes no empty text", param="input")
    try:
        n_tokens = len(text.encode()) // 4 + 2
    except UnicodeEncodeError:
        raise InvalidRequest(f"input[{index}] is not valid Unicode", param="input") from None
    return Prepared(text, n_tokens, options=_told(text, options, protocol, longest))


def _prepare_ids(
    index: int, ids: list[int], told: CallOptions | None, protocol: Protocol | None, longest: int | None
) -> Prepared:
    if protocol is not None and not protocol.takes_ids:
        raise InvalidRequest(f"input[{index}]: the backend takes texts, not token ids", param="input")
    refuses = told is not None and told.truncate == "none"
    may_be_cut = protocol is not None and protocol.refuses_on_request and not refuses
    if longest is not None and len(ids) > longest and not may_be_cut:
        raise ContextLengthExceeded(longest, index=index, found=len(ids))
    return Prepared(ids, len(ids), options=told)


def _told(
    text: str | None, options: CallOptions, protocol: Protocol | None, longest: int | None
) -> CallOptions | None:
    """What a backend is told of an input: less than was asked where it makes no difference."""
    if options == NOTHING:
        return None
    if protocol is None:
        return options
    untold = options.truncate is not None and options.truncate not in protocol.truncates
    if untold and text is not None and surely_fits(text, longest):
        options = options._replace(truncate=None)
    check(protocol, options)
    return None if options == NOTHING else options
