"""Our worker with short timeouts, so that a test need not wait for the real ones."""

from __future__ import annotations

from llmrs.server.channel import Timeouts
from llmrs.server.worker import Worker


class QuickWorker(Worker):
    """Gives up heads, bodies and readers after a second, and looks for them more often."""

    timeouts = Timeouts(head=1.0, body=1.0, write=1.0, linger=1.0)
    sweep_seconds = 0.2
