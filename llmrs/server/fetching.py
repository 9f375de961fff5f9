"""Downloading a model before it is loaded. Imported by gunicorn's master: no gevent in here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from llmrs.backends import needs_download
from llmrs.config import OPTIONS, Config
from llmrs.errors import ModelError

STEP_SECONDS = 10.0


def fetch_model(config: Config, go_on: Callable[[], None] = lambda: None) -> None:
    """Bring a local model that is not on this machine yet; its progress goes to standard error.

    In a process of its own: downloading takes longer than gunicorn waits for a worker, and the
    HTTP client it loads must not be in a process that gevent patches. `go_on` is called every few seconds
    while it lasts.

    Raises:
        ModelError: it could not be fetched; the reason is on standard error.
    """
    if not needs_download(config):
        return
    command = [sys.executable, "-m", "llmrs", "fetch", "--config", os.devnull, "--engine", config.engine]
    if config.model_file is not None:
        command.append(f"--model-file={config.model_file}")
    if config.offline:
        command.append("--offline")
    own = {option.env for option in OPTIONS}
    environ = {name: value for name, value in os.environ.items() if name not in own}
    # The hub's token goes by the environment, which other users cannot read as they can a command line.
    with _stoppable():
        failed = _call([*command, "--", config.model_path], environ, go_on)
    if failed:
        raise ModelError(f"model_path = {config.model_path[:200]}: it could not be fetched, see the log")


def _call(command: Sequence[str], environ: Mapping[str, str], go_on: Callable[[], None]) -> int:
    """The exit code of a command, which does not outlive this call."""
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                go_on()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(STEP_SECONDS)
        except BaseException:
            process.kill()
            raise


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """A SIGTERM ends what is called in here, and this process, with the code of a server that was stopped.

    Before the port opens gunicorn does not handle it: the download would go on without us, or, where we are a
    container's first process, nothing would happen at all.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
