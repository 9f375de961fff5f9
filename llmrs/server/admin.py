"""`POST /admin/reload`: serve what the configuration says now. For whoever has the admin key."""

from __future__ import annotations

import falcon

from llmrs import wire
from llmrs.errors import ConfigError, InvalidRequest
from llmrs.server.auth import ApiKeys
from llmrs.server.reloading import Reloading

PATH = "/admin/reload"


class Reload:
    """The route. It asks for a key of its own, not for one of the clients'."""

    def __init__(self, reloading: Reloading, key: str) -> None:
        self._reloading = reloading
        self._keys = ApiKeys((key,))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._keys.check(PATH, req.get_header("Authorization"))
        try:
            outcome = self._reloading.everywhere()
        except ConfigError as error:
            raise InvalidRequest(str(error)) from None
        resp.data = wire.encode_json({"models": outcome.models, "failed": outcome.failed})
