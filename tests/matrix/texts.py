"""Texts that reveal what was read otherwise: case, accents, scripts, blanks, special tokens, length."""

from __future__ import annotations

LONG = " ".join(
    f"{word}{number}" if number % 3 else word.title()
    for number in range(60)
    for word in ("river", "stone", "the", "quick", "lamp,", "under", "naïve", "bridge.")
)
"""Longer than any limit of the models here, and nowhere the same twice."""

TEXTS = (
    "The Capital of FRANCE is Paris.",
    "Ünïcödé café, naïve ÅNGSTRÖM; Straße, ﬁne",
    "今天天气很好,我们去公园。",
    "smile 😀👍🏽 and 🇫🇷",
    "   leading blanks,\ttabs and\n\nnew  lines   ",
    "[SEP] in [MASK] the <s> middle </s> <pad> [CLS] <mask> <|endoftext|>",
    "don't e-mail 12345 at x@example.com ... it's ``quoted''",
    "soft\u00adhyphen zero\u200bwidth nul\x00 bom\ufeff non\u00a0breaking",
    "a",
    LONG,
)

QUERY = "Where is the Capital?"
"""Also embedded as a query and as a document, which may have prompts."""
