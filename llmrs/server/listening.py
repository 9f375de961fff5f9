"""Whether the service can listen where it is told to, found out before gunicorn tries for five seconds.

Imported by gunicorn's master: no gevent in here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from llmrs.config import Config
from llmrs.errors import ConfigError

INHERITED = ("GUNICORN_FD", "LISTEN_FDS")
"""Variables that say that a socket is there already: gunicorn's, after USR2, and systemd's."""

PRIVILEGED = 1024
"""Ports below it are for the superuser, usually."""


def check_address(config: Config) -> None:
    """Raise ConfigError if nothing can listen at the configured address now."""
    if any(name in os.environ for name in INHERITED):
        return
    if config.host.startswith("unix:"):
        _check_unix(config, config.host.removeprefix("unix:"))
    else:
        _check_tcp(config)


def _check_tcp(config: Config) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((config.host, config.port))
            trial.listen(1)
        except (socket.gaierror, UnicodeError) as error:
            raise _refused(
                config, "host",
                f"the name cannot be resolved ({getattr(error, 'strerror', None) or 'not a host name'}); "
                "set it to an address of this machine, such as 127.0.0.1 or 0.0.0.0",
            ) from None  # fmt: skip
        except OSError as error:
            raise _refused(config, *_reason(config, error)) from None


def _reason(config: Config, error: OSError) -> tuple[str, str]:
    """The key that is at fault, and why."""
    if error.errno == errno.EADDRINUSE:
        return "port", "another program listens there; choose another port, or end that program"
    if error.errno in (errno.EACCES, errno.EPERM):
        below = f"; ports below {PRIVILEGED} need rights" if config.port < PRIVILEGED else ""
        return "port", f"no permission to listen there{below}"
    if error.errno == errno.EADDRNOTAVAIL:
        return "host", "this machine has no such address; 0.0.0.0 stands for all that it has"
    return "host", f"nothing can listen there: {error.strerror}"


def _check_unix(config: Config, path: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise _refused(config, "host", "there is no such folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(config, "host", "no permission to make a socket in that folder")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(config, "host", f"it cannot be used: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise _refused(config, "host", "something else is there that is no socket")
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1)
        if trial.connect_ex(path) == 0:
            raise _refused(config, "host", "another program listens there; end it, or choose another path")


def _refused(config: Config, key: str, reason: str) -> ConfigError:
    return ConfigError(f"{key} = {config.shown(key)} ({config.sources[key]}): {reason}")
