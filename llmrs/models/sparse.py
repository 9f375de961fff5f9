"""Very long texts that are mostly blanks: in parts, each run of blanks made one.

For tokenizers to which a blank only parts words. Work grows with the text, at a nanosecond or two a blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

BLANKS = " \t\n\r"
"""Characters that part words; others may do so, too, and are left as they are."""

RUNS = re.compile(f"[{BLANKS}]{{2,}}")

SPARSE = 8
"""A part that is so many times shorter without its runs of blanks is mostly blanks."""


def squeeze(text: str) -> str:
    """The text with each run of blanks made one blank, and none at its ends."""
    return RUNS.sub(" ", text.strip(BLANKS))


def is_sparse(text: str) -> bool:
    """Whether a text is mostly runs of blanks."""
    return SPARSE * len(squeeze(text)) < len(text)


def parts_at_blanks(
    text: str, size: int, is_dropped: Callable[[str], bool], *, from_end: bool
) -> Iterator[str | None]:
    """Squeezed parts of a text from one of its ends, none empty, of at most `size` characters before that.

    They end at blanks, so that no word is torn, or are all such that a tokenizer drops them. Where neither
    can be, None is the last.
    """
    left, right = 0, len(text)
    while left < right:
        start, stop = (max(left, right - size), right) if from_end else (left, min(right, left + size))
        if stop - start < right - left:  # not the last part
            cut = _first_blank(text, start, stop) if from_end else _last_blank(text, start, stop)
            if cut is not None:
                start, stop = (cut, stop) if from_end else (start, cut)
            elif not is_dropped(text[start:stop]):
                yield None
                return
        left, right = (left, start) if from_end else (stop, right)
        squeezed = squeeze(text[start:stop])
        if squeezed:
            yield squeezed


def _first_blank(text: str, start: int, stop: int) -> int | None:
    """The first in a part."""
    found = [place for place in (text.find(blank, start, stop) for blank in BLANKS) if place >= 0]
    return min(found) if found else None


def _last_blank(text: str, start: int, stop: int) -> int | None:
    """The last in a part, which must leave something of it."""
    found = max(text.rfind(blank, start, stop) for blank in BLANKS)
    return found if found > start else None
