"""Every error that llmrs raises on purpose, with the answer it becomes.

Two families. `ServiceError` is answered to a client: each class carries its HTTP status and
the `type` and `code` of the error body, and `llmrs.wire` turns any of them into bytes in one
place. `StartupError` ends the process before it serves, with one line and an exit code.

Messages never quote the caller's input, stay under 1 KiB, and only errors the caller can mend
say `invalid_request_error`: clients read that text before they read the status.
"""

from __future__ import annotations

from collections.abc import Mapping

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


class LlmrsError(Exception):
    """Base of all errors raised by llmrs."""


class ServiceError(LlmrsError):
    """An error that is answered to a client.

    Attributes:
        status: HTTP status.
        type, code, param: the fields of the error body beside `message`.
        headers: further response headers.
        poison: whether one input may have caused it, so that a batch that failed with it is
            split to find the culprit instead of failing all of its requests.
        rejection: why a request was turned away before any work was done for it, for the metrics;
            None for all other errors.
    """

    status = 500
    type = SERVER_ERROR
    code: str | None = "internal_error"
    poison = False
    rejection: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message[:1000]
        self.param = param
        self.headers = headers or {}

    def about(self, index: int | None) -> ServiceError:
        """A copy that says which input it is about.

        Every waiting request raises an exception of its own: one object raised by many greenlets
        would gather all of their tracebacks.
        """
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        if index is not None and self.param in (None, "input"):
            twin.message = f"{self.message} (input[{index}])"
            twin.param = "input"
        twin.args = (twin.message,)
        twin.__cause__ = self.__cause__
        return twin

    def in_field(self, field: str) -> ServiceError:
        """The same about inputs that stand in another field of the request than `input`."""
        if self.param == "input":
            self.param = field
            self.message = self.message.replace("input[", f"{field}[")
            self.args = (self.message,)
        return self

    def under(self, names: Mapping[str, str]) -> ServiceError:
        """The same about fields that the request has under other names."""
        if self.param is not None and self.param in names:
            name = names[self.param]
            self.message = self.message.replace(self.param, name, 1)
            self.args = (self.message,)
            self.param = name
        return self


class InvalidRequest(ServiceError):
    """A field of the request is missing, of the wrong type or out of range."""

    status = 400
    type = INVALID_REQUEST
    code: str | None = None


class InvalidArgument(InvalidRequest, ValueError):
    """An argument of a call in this process is wrong; the message says what is allowed."""


class InvalidJson(InvalidRequest):
    """The body is not a JSON object in UTF-8."""

    code = "invalid_json"


class TooManyInputs(InvalidRequest):
    """More inputs than `max_client_batch_size`."""

    code = "array_above_max_length"


class ContextLengthExceeded(InvalidRequest):
    """One input has more tokens than the model takes, and `truncate` is `none`."""

    code = "context_length_exceeded"

    def __init__(self, maximum: int, *, index: int, found: int | None, param: str = "input") -> None:
        # Gateways recognise this error by the words up to "tokens".
        length = f"has {found} tokens" if found is not None else "is longer"
        super().__init__(
            f"This model's maximum context length is {maximum} tokens, but {param}[{index}] "
            f"{length}. Shorten it, or let the server cut it with truncate.",
            param=param,
        )


class TooManyTokens(InvalidRequest):
    """All inputs of one request together have more than `max_request_tokens` tokens."""

    code = "max_tokens_per_request"


class ModelNotFound(InvalidRequest):
    """The request names a model that is not served."""

    status = 404
    code = "model_not_found"


class UnknownUrl(InvalidRequest):
    """No route at this path."""

    status = 404
    code = "unknown_url"


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class BodyTooLarge(InvalidRequest):
    """The body exceeds `payload_limit` bytes."""

    status = 413
    code = "request_too_large"
    rejection = "payload"


class RequestTimeout(ServiceError):
    """The request did not arrive completely in time. Clients send it again."""

    status = 408
    type = "timeout_error"
    code = "request_timeout"


class UnsupportedContentType(InvalidRequest):
    """The body is not declared as uncompressed JSON."""

    status = 415
    code = "unsupported_content_type"


class InvalidApiKey(ServiceError):
    """No key, or not one of ours."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class RetryableError(ServiceError):
    """An error that goes away by itself: it says when to come back.

    `retry_after` is in seconds, and in the headers clamped to 1..120: above 120 openai-python gives up.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        headers = {}
        if retry_after is not None:
            bounded = min(max(retry_after, 0.001), 120.0)
            headers["Retry-After"] = str(max(1, -int(-bounded // 1)))
            headers["retry-after-ms"] = str(-int(-bounded * 1000 // 1))
        super().__init__(message, headers=headers)


class QueueFull(RetryableError):
    """As many requests wait as `queue_capacity` allows."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"
    rejection: str | None = "queue_full"
    closes = False
    """Whether the client's connection is needed for others."""


class WaitTooLong(QueueFull):
    """What is waiting already takes longer than a request may wait, or than this one can."""

    rejection = "queue_wait"


class RateLimitExceeded(RetryableError):
    """The caller's API key has sent more requests than `key_rate` allows."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    rejection = "key_rate"


class ConcurrencyLimit(RetryableError):
    """The caller's API key has as many requests in progress as `key_concurrency` allows."""

    status = 429
    type = "rate_limit_error"
    code = "concurrency_limit"
    rejection = "key_concurrency"


class PayloadMemoryFull(RetryableError):
    """The bodies of all requests together take as many bytes as `payload_memory` allows.

    503 and not 429: the caller has kept its own limits, the server as a whole has no room.
    """

    status = 503
    code = "payload_memory_full"
    rejection = "payload_memory"


class NotReady(RetryableError):
    """The service is starting or draining."""

    status = 503
    code = "not_ready"
    rejection = "not_ready"


class DeadlineExceeded(ServiceError):
    """`request_timeout` seconds have passed since the request arrived."""

    status = 504
    code = "timeout"


class UpstreamError(ServiceError):
    """The backend cannot be reached, failed, or answered something that is not its vectors."""

    status = 502
    code = "upstream_error"


class UpstreamRejected(InvalidRequest):
    """The backend itself refused an input (400, 413 or 422), so the caller's input is at fault."""

    poison = True


class UpstreamTooLong(UpstreamRejected):
    """The backend says that an input is longer than its model takes."""

    code = "context_length_exceeded"

    def __init__(self, maximum: int | None) -> None:
        # Gateways recognise this error by the words "maximum context length".
        limit = "the model's maximum context length" + (f" of {maximum} tokens" if maximum else "")
        super().__init__(
            f"The backend says that the input exceeds {limit}. Shorten it, or let it be cut with truncate.",
            param="input",
        )


NO_VECTOR = "the model could not compute a vector"


class EngineError(ServiceError):
    """The local engine failed on a batch."""

    poison = True

    def __init__(self, message: str = NO_VECTOR) -> None:
        super().__init__(message)


class NonFiniteEmbedding(ServiceError):
    """A vector holds NaN or infinity. It is never handed out, and trying again gives the same."""

    code = "non_finite_embedding"

    def __init__(self, index: int) -> None:
        super().__init__(
            f"the model gave a non-finite vector for the input at index {index}",
            headers={"x-should-retry": "false"},
        )


class InternalError(ServiceError):
    """A bug of ours. The log has the details, the client does not."""


class StartupError(LlmrsError):
    """The service cannot start; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(StartupError, ValueError):
    """A configuration value is wrong. The message names the key, the value and its source."""

    exit_code = 2


class ModelError(StartupError):
    """A model cannot be loaded. The message names the file and the remedy."""

    exit_code = 3
