"""text-embeddings-inference's names for what happens here, for dashboards and scaling rules made for it.

Names, labels, units and bounds of the buckets are TEI's (router/src/prometheus.rs, core/src/infer.rs and
core/src/queue.rs of its sources). Its counters have no `_total`, and nothing has a label for the model.
Counted only where the option asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from llmrs.batch import Batch
from llmrs.server.series import Answered, Family, Histogram

DURATIONS = tuple(1e-5 * 1.5**n for n in range(1, 36))
INPUT_LENGTHS = tuple(2**n for n in range(20))
BATCH_SIZES = tuple(2**n for n in range(13))
BATCH_TOKENS = tuple(2**n for n in range(21))

STAGES = ("duration", "tokenization_duration", "queue_duration", "inference_duration")

FAILURES = {
    "queue_full": "overloaded",
    "not_ready": "overloaded",
    "client_gone": "dropped",
    "array_above_max_length": "batch_size",
    "context_length_exceeded": "tokenization",
    "max_tokens_per_request": "tokenization",
    "invalid_request_error": "validation",
    "timeout": "inference",
    "upstream_error": "inference",
    "internal_error": "inference",
    "non_finite_embedding": "inference",
}
"""TEI's `err` for our error codes. What it does not count (keys, paths, malformed JSON) is not here."""

PREFIX = "te_"


class TeiMetrics:
    """Counts as TEI does: a request of several texts is one request and several embeds."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter(single=0, batch=0)
        self._successes: Counter[str] = Counter(single=0, batch=0)
        self._embeds = self._embedded = 0
        self._request_stages = [Histogram(DURATIONS) for _ in STAGES]
        self._embed_stages = [Histogram(DURATIONS) for _ in STAGES]
        self._input_length = Histogram(INPUT_LENGTHS)
        self._batch_size = Histogram(BATCH_SIZES)
        self._batch_tokens = Histogram(BATCH_TOKENS)

    def count_request(self, n_inputs: int) -> None:
        """A request could be read."""
        self._requests[_method(n_inputs)] += 1
        self._embeds += n_inputs

    def count_answer(self, answer: Answered, seconds: float) -> None:
        """A request got its vectors, so many seconds after its head."""
        n_inputs = len(answer.matrix)
        self._successes[_method(n_inputs)] += 1
        self._embedded += n_inputs
        stages = (seconds, answer.tokenize_seconds, answer.queue_seconds, answer.inference_seconds)
        for value, request, embed in zip(stages, self._request_stages, self._embed_stages, strict=True):
            request.observe(value)
            embed.observe(value, n_inputs)

    def count_batch(self, batch: Batch) -> None:
        """A batch was computed."""
        self._batch_size.observe(len(batch))
        self._batch_tokens.observe(batch.n_tokens)
        for text in batch.prepared:
            self._input_length.observe(text.n_tokens)

    def families(self, errors: Mapping[tuple[str, str], int], waiting_texts: int) -> Iterator[Family]:
        """All of it; `errors` are answers by status and code."""
        failures = Counter(dict.fromkeys(FAILURES.values(), 0))
        for (_, code), count in errors.items():
            if code in FAILURES:
                failures[FAILURES[code]] += count
        for name, label, counts in (
            ("request_count", "method", self._requests),
            ("request_success", "method", self._successes),
            ("request_failure", "err", failures),
        ):
            members = [((value,), count) for value, count in counts.items()]
            yield Family("counter", PREFIX + name, "As in TEI.", (label,), members)
        for name, count in (("embed_count", self._embeds), ("embed_success", self._embedded)):
            yield Family("counter", PREFIX + name, "As in TEI.", (), [((), count)])
        yield Family("gauge", "te_queue_size", "As in TEI.", (), [((), waiting_texts)])
        histograms = [
            *zip((f"request_{stage}" for stage in STAGES), self._request_stages, strict=True),
            *zip((f"embed_{stage}" for stage in STAGES), self._embed_stages, strict=True),
            ("request_input_length", self._input_length),
            ("batch_next_size", self._batch_size),
            ("batch_next_tokens", self._batch_tokens),
        ]
        for name, histogram in histograms:
            yield Family("histogram", PREFIX + name, "As in TEI.", (), [((), histogram)])


def _method(n_inputs: int) -> str:
    return "single" if n_inputs == 1 else "batch"
