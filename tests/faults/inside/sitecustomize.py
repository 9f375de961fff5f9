"""What a test can have a server process do, by signals that nobody else uses. Python imports this file
first where its folder is on PYTHONPATH.

SIGRTMIN writes how many greenlets there are; SIGRTMIN + 1 moves the wall clock, which only shows in
what asks Python for it, and so in all of our code.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import Any

_clock = time.time
_nanoseconds = time.time_ns


def _report(number: int, frame: Any) -> None:
    greenlet = sys.modules["gevent"].Greenlet
    alive = sum(isinstance(each, greenlet) and not each.dead for each in gc.get_objects())
    path = os.environ["GREENLETS_FILE"]
    with open(f"{path}.new", "w") as file:
        file.write(str(alive))
    os.replace(f"{path}.new", path)


def _step(number: int, frame: Any) -> None:
    seconds = float(os.environ["CLOCK_STEP"])
    time.time = lambda: _clock() + seconds
    time.time_ns = lambda: _nanoseconds() + int(seconds * 1e9)
    # Whoever has imported the function itself keeps what it was: that has to be found as well.
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is _clock and module is not sys.modules[__name__]:
                setattr(module, name, time.time)


if "GREENLETS_FILE" in os.environ:
    signal.signal(signal.SIGRTMIN, _report)
if "CLOCK_STEP" in os.environ:
    signal.signal(signal.SIGRTMIN + 1, _step)
