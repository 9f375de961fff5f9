"""Exit with 0 if the service of this container is ready, else with 1: for HEALTHCHECK.

Asks where the configuration says that it listens: environment, config.toml, defaults. Flags of the
command line cannot be seen from here; a port given as one has to be an environment variable, too.
"""

from __future__ import annotations

import http.client
import socket
import sys

from llmrs.config import load

SECONDS = 4.0
"""Less than HEALTHCHECK's own timeout, so that the reason is printed."""

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Who listens on all addresses is asked on the loopback one."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main() -> int:
    """Ask /readyz, say why it is not ready on stderr."""
    config = load()
    if config.host.startswith("unix:"):
        connection: http.client.HTTPConnection = _Unix(config.host.removeprefix("unix:"))
    else:
        connection = http.client.HTTPConnection(
            ANY.get(config.host, config.host), config.port, timeout=SECONDS
        )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}", file=sys.stderr)
        return 1
    if answer.status != 200:
        print(f"{answer.status}: {body.decode(errors='replace')}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
