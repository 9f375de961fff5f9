"""`POST /admin/reload`: serve what the configuration says now. For whoever has the admin key."""

from __future__ import annotations

import falcon

from llmrs import wire
from llmrs.errors import ConfigError, InvalidRequest
from llmrs.server.auth import ApiKeys
from llmrs.server.registry import Registry
from llmrs.server.switch import Switch

PATH = "/admin/reload"


class Reload:
    """The route. It asks for a key of its own, not for one of the clients'."""

    def __init__(self, switch: Switch, registry: Registry, key: str) -> None:
        self._switch = switch
        self._registry = registry
        self._keys = ApiKeys((key,))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._keys.check(PATH, req.get_header("Authorization"))
        try:
            failed = self._switch.reload()
        except ConfigError as error:
            raise InvalidRequest(str(error)) from None
        names = [model.name for model in self._registry.models]
        resp.data = wire.encode_json({"models": names, "failed": failed})
