"""A well-behaved backend as a process of its own, to be killed: `python -m tests.faults.service PORT`."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

from tests.backends.services import shapes
from tests.backends.services.wire import serve
from tests.processes import ROOT, Server, listens, start


@contextlib.contextmanager
def service(port: int) -> Iterator[Server]:
    """One that runs until the block ends, or until it is killed."""
    command = [sys.executable, "-m", "tests.faults.service", str(port)]
    with start(command, lambda server: listens(port), cwd=ROOT) as running:
        yield running


if __name__ == "__main__":
    with serve(shapes.openai(), socket.create_server(("127.0.0.1", int(sys.argv[1])))):
        threading.Event().wait()
