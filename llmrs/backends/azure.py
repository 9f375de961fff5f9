"""Azure's OpenAI service: deployment and version of the API in the address, the key in its own header."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from llmrs.config import Config
from llmrs.errors import ConfigError

KEY_HEADER = "api-key"
"""Where Azure expects the key."""

DEPLOYMENT = re.compile(r"(?:/openai)?(?:/deployments/([^/]+))?(?:/embeddings)?/?$")
"""How much of the endpoint an address may have."""


class Deployment(NamedTuple):
    """A model on Azure.

    Attributes:
        base: what its URL starts with, without the query.
        name: the deployment's.
        version: of the API.
    """

    base: str
    name: str
    version: str

    @property
    def path(self) -> str:
        """Of the POST request, after `base`."""
        return f"/openai/deployments/{quote(self.name, safe='')}/embeddings?api-version={self.version}"


def find_deployment(config: Config, url: str) -> Deployment | None:
    """What an address names on Azure; None if it is no address of Azure's.

    It is one if `backend_protocol` says so, or the address has an `api-version`, as one that was copied from
    Azure's portal has.

    Raises:
        ConfigError: the version or the deployment is missing.
    """
    parts = urlsplit(url)
    version = parse_qs(parts.query).get("api-version", [config.backend_api_version])[0]
    if config.backend_protocol != "azure" and not (config.backend_protocol == "auto" and parts.query):
        return None
    end = DEPLOYMENT.search(parts.path)
    assert end is not None  # it matches nothing, too
    name = end[1] or config.model_name
    if version is None:
        raise ConfigError(
            "backend_protocol = azure needs backend_api_version, or a backend_url that ends in "
            "?api-version=..."
        )
    if name is None:
        raise ConfigError(
            "backend_protocol = azure needs model_name, which is the deployment's, or a backend_url with "
            "/openai/deployments/NAME in it"
        )
    return Deployment(f"{parts.scheme}://{parts.netloc}{parts.path[: end.start()]}", name, version)
