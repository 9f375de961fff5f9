"""A thread's stack for signal handlers, which libraries change.

OpenVINO's CPU plugin gives the thread that loads it a stack of its own for signal handlers, and unmaps that
stack when the last model of the plugin goes. Where another thread lets that model go, the first one keeps a
stack that is gone, and the next signal ends the process. One plugin for as long as the process lives is no
way out: after some dozens of models, loading one more ended the process (OpenVINO 2026.4).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """Linux's stack_t."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept() -> Iterator[None]:
    """Leave this thread with the stack for signal handlers that it had before."""
    if sys.platform != "linux":
        yield
        return
    library, before, after = ctypes.CDLL(None), _Stack(), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(None, ctypes.byref(after))
        if after.start != before.start:
            # Refused where the kernel finds it too small for what the CPU saves: then the new one stays.
            library.sigaltstack(ctypes.byref(before), None)
