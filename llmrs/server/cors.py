"""What browsers are told about pages of other origins (CORS, in the Fetch standard): off by default.

Falcon's own CORSMiddleware is not used: it decides after the responder, so a preflight, which carries
no key, has its 401 by then; it repeats whatever header names a preflight asks for; and it says no
`Vary: Origin`, without which a cache may give one page the answer for another.

Credentials (cookies) are never allowed: a key travels in the Authorization header, which the page sets
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import falcon
from falcon.routing import CompiledRouter

ALLOWED_HEADERS = ("Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout")
"""Always listed. A `*` would not cover Authorization."""

ALLOWED_WHEN_ASKED = re.compile(
    r"x-stainless-[a-z-]{1,40}|openai-(organization|project|beta)|user-agent|accept|cache-control|"
    r"idempotency-key|traceparent|tracestate|x-requested-with"
)
"""What clients in browsers send besides, openai-node above all; listed if the preflight names it."""

MAX_ASKED = 32
"""Names looked at in one preflight. openai-node asks for about a dozen."""

EXPOSED_HEADERS = (
    "x-request-id, Retry-After, retry-after-ms, x-should-retry, x-truncated-inputs, x-chunked-inputs, "
    "x-output-dtype, Server-Timing"
)
MAX_AGE_SECONDS = 7200
"""How long a browser remembers a preflight: the longest that Chromium does."""


class Cors:
    """Answers preflights, and tells browsers which pages may read an answer.

    Args:
        origins: `https://app.example`, as browsers send it, or `*` for every page.
        router: knows which paths exist, and what OPTIONS says of them.
    """

    def __init__(self, origins: Iterable[str], router: CompiledRouter) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins
        self._router = router

    def answer_preflight(self, req: falcon.Request, resp: falcon.Response) -> bool:
        """Answer a preflight from an allowed origin to a path that exists; whether it was one.

        Anything else goes its usual way, which asks for a key.
        """
        if req.method != "OPTIONS" or not req.get_header("Access-Control-Request-Method"):
            return False
        found = self._router.find(req.path) if self._allowed(req) else None
        if found is None:
            return False
        _, responders, _, req.uri_template = found
        options: Any = responders["OPTIONS"]  # its type covers asynchronous ones, too
        options(req, resp)
        resp.status = falcon.HTTP_204
        resp.delete_header("Content-Length")
        resp.set_header("Access-Control-Allow-Methods", resp.get_header("Allow") or "")
        resp.set_header("Access-Control-Allow-Headers", ", ".join((*ALLOWED_HEADERS, *_asked(req))))
        resp.set_header("Access-Control-Max-Age", str(MAX_AGE_SECONDS))
        resp.complete = True
        return True

    def mark(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say who may read an answer, errors included: a browser hides them otherwise."""
        if not self._any:
            resp.append_header("Vary", "Origin")
        if self._allowed(req):
            resp.set_header(
                "Access-Control-Allow-Origin", "*" if self._any else req.get_header("Origin") or ""
            )
            resp.set_header("Access-Control-Expose-Headers", EXPOSED_HEADERS)

    def _allowed(self, req: falcon.Request) -> bool:
        origin = req.get_header("Origin")
        return origin is not None and (self._any or origin in self._origins)


def _asked(req: falcon.Request) -> list[str]:
    """The names that a preflight asks for and that may be sent, as it spells them."""
    names = (req.get_header("Access-Control-Request-Headers") or "").split(",")[:MAX_ASKED]
    return [name for each in names if ALLOWED_WHEN_ASKED.fullmatch((name := each.strip()).lower())]
