"""Whose signature under a backend's certificate is believed.

A file of one's own, if `backend_ca_file` names one; else what Python's `ssl` believes, which SSL_CERT_FILE
and SSL_CERT_DIR replace; where neither is set, Mozilla's list too, because a small container has no other.
What is named and cannot be read ends the start: without it every call would fail, one by one.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from llmrs.errors import ConfigError


def tls_context(
    ca_file: str | None, mozillas: str, environ: Mapping[str, str] = os.environ
) -> ssl.SSLContext:
    """What TLS connections to a backend are made with.

    Args:
        ca_file: of certificates in PEM form, the only ones to be believed.
        mozillas: the same, for where nobody names any.

    Raises:
        ConfigError: a file or a folder cannot be read, or has no certificate.
    """
    if ca_file:
        return _believing(ca_file, "backend_ca_file")
    if named := environ.get("SSL_CERT_FILE"):
        _believing(named, "SSL_CERT_FILE (environment)")
    folders = [folder for folder in environ.get("SSL_CERT_DIR", "").split(os.pathsep) if folder]
    if folders and not any(map(os.path.isdir, folders)):
        raise ConfigError(f"SSL_CERT_DIR (environment): no folder at {os.pathsep.join(folders)}")
    context = ssl.create_default_context()
    if not named and not folders:
        context.load_verify_locations(mozillas)
    return context


def _believing(path: str, key: str) -> ssl.SSLContext:
    """A context that believes the certificates of a file and no others."""
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        reason = "no certificate in PEM form in"
    except (OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or 'cannot be read'}:"
    raise ConfigError(f"{key}: {reason} {path}")
