"""How fast batches go, measured as they end: what a prediction of waiting times rests on."""

from __future__ import annotations

FORGETTING = 0.9
"""Weight of what was measured before each batch: the speed is that of the last ten or so."""


class Speed:
    """Measured seconds per token of a batch.

    Sums are compared, not ratios: a text alone costs several times more per token than a full batch, and
    a flood comes after many of those.
    """

    def __init__(self) -> None:
        self._seconds = self._tokens = self._texts = self._batches = 0.0

    @property
    def seconds_per_token(self) -> float:
        """0 until something was measured."""
        return self._seconds / self._tokens if self._tokens else 0.0

    def at_best(self, texts: int, tokens: int) -> float:
        """Seconds per token in batches of so many texts or tokens, if those take no longer than the measured.

        Many do not: most of the time of a call over a network, or of a short text, does not grow with it.
        Where they do take longer, the first of them tell. Until then, too many wait rather than too few.
        """
        if not self._tokens:
            return 0.0
        room = min(texts * self._batches / self._texts, tokens * self._batches / self._tokens)
        return self.seconds_per_token / max(1.0, room)

    def measure(self, n_tokens: int, n_texts: int, seconds: float) -> None:
        """A batch of so much took so long. One of texts without any tokens counts as of one token.

        Else a flood of them would say that a token takes for ever, and nothing that has tokens be let in to
        say otherwise.
        """
        self._seconds = FORGETTING * self._seconds + seconds
        self._tokens = FORGETTING * self._tokens + max(1, n_tokens)
        self._texts = FORGETTING * self._texts + max(1, n_texts)
        self._batches = FORGETTING * self._batches + 1
