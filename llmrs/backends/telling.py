"""What an HTTP backend can be told, against what a request asks of it.

What it cannot be told is done here where that is possible (a prompt stands in front of its text, vectors
are scaled, and shortened where that is allowed); what is left is refused, by the field's name.
"""

from __future__ import annotations

from llmrs.backends.protocols import Protocol
from llmrs.embeddings import CallOptions
from llmrs.errors import InvalidRequest, UpstreamRejected

SPECIAL_TOKENS = 16
"""More than any model adds to a text."""

UNSHORTENED = (
    "dimensions must be the model's own: the backend does not shorten its vectors "
    "(allow_any_dimensions lets this server shorten them)"
)


def find_fault(protocol: Protocol, options: CallOptions) -> tuple[str, str] | None:
    """Why a backend of this protocol cannot be asked for that, and the request's field; None if it can."""
    if options.truncate is not None and options.truncate not in protocol.truncates:
        wish = "refuse texts that are too long" if options.truncate == "none" else "cut a text's start"
        told = f"the backend ({protocol.name}) cannot be told to {wish}"
        return f"truncate must not be {options.truncate}: {told}", "truncate"
    if options.dimensions is not None and not protocol.shortens:
        return UNSHORTENED, "dimensions"
    asked = "input_type" if options.input_type is not None else "prompt_name"
    if getattr(options, asked) is not None and not protocol.prompts:
        return (
            f"{asked} is not supported: which prompts the backend ({protocol.name}) has is not known here; "
            "leave it out, or write the prompt before the texts"
        ), asked
    return None


def check(protocol: Protocol, options: CallOptions) -> None:
    """Raise InvalidRequest if a backend of this protocol cannot be asked for that."""
    if (fault := find_fault(protocol, options)) is not None:
        raise InvalidRequest(fault[0], param=fault[1])


def check_late(protocol: Protocol, options: CallOptions) -> None:
    """The same of an input in a batch, whose request came before the protocol was known."""
    if (fault := find_fault(protocol, options)) is not None:
        raise UpstreamRejected(fault[0], param=fault[1])


def surely_fits(text: str, longest: int | None) -> bool:
    """Whether a text has at most `longest` tokens in any vocabulary: a token is a byte at least.

    Normalizing may make several characters of one, but not of ASCII's.
    """
    return longest is not None and text.isascii() and len(text) + SPECIAL_TOKENS <= longest
