"""Downloading a model before it is loaded. Imported by gunicorn's master: no gevent in here."""

from __future__ import annotations

import os
import subprocess
import sys

from llmrs.backends import needs_download
from llmrs.config import OPTIONS, Config
from llmrs.errors import ModelError


def fetch_model(config: Config) -> None:
    """Bring a local model that is not on this machine yet; its progress goes to standard error.

    In a process of its own: downloading takes longer than gunicorn waits for a worker, and the
    HTTP client it loads must not be in a process that gevent patches.

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
    if subprocess.call([*command, "--", config.model_path], env=environ, stdout=subprocess.DEVNULL):
        raise ModelError(f"model_path = {config.model_path[:200]}: it could not be fetched, see the log")
