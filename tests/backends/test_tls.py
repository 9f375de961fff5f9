"""TLS: a certificate that is trusted, one that is not, and the same deadline and retry as without."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time

import pytest
import requests.adapters

from llmrs.backends.transport import Transport
from llmrs.errors import DeadlineExceeded, UpstreamError

from .services.misbehaving import closes, drips, once_per_connection
from .services.wire import Service, head, serve

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")


def ok(connection, request):
    connection.answer({"ok": True})


class TLSListener:
    """A listener whose connections are TLS after their handshake; enough of a socket for `serve`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._plain = socket.create_server(("127.0.0.1", 0))
        self._context = context

    def accept(self):
        while True:
            sock, peer = self._plain.accept()
            try:
                return self._context.wrap_socket(sock, server_side=True), peer
            except ssl.SSLError:  # the client did not trust it
                sock.close()

    def __getattr__(self, name):
        return getattr(self._plain, name)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def service(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve(ok, TLSListener(context)) as running:
        yield running


@pytest.fixture
def trusted(certificate, monkeypatch):
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(certificate[0]))


def post(service: Service, transport: Transport | None = None, seconds: float = 10.0):
    transport = transport or Transport(service.url.replace("http:", "https:"), connections=1)
    transport.post("/embed", b"{}", deadline=time.monotonic() + seconds, limit=1000)
    return transport


def test_a_certificate_nobody_vouches_for(service):
    with pytest.raises(UpstreamError, match="TLS failed"):
        post(service)
    assert service.requests == []


@pytest.mark.usefixtures("trusted")
def test_connections_are_kept_and_replaced_when_stale(service):
    transport = post(service)
    service.behave = once_per_connection(ok, closes)
    post(service, transport)
    assert [request.connection for request in service.requests] == [1, 1, 2]


@pytest.mark.usefixtures("trusted")
def test_the_deadline_holds(service):
    service.behave = drips(b" " * 100, at_once=head(200, 100))
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        post(service, seconds=0.4)
    assert time.monotonic() - start < 4


def test_a_handshake_that_does_not_end():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            Transport(f"https://127.0.0.1:{silent.getsockname()[1]}", connections=1).get(
                "/info", deadline=time.monotonic() + 0.4, limit=1000
            )
        assert time.monotonic() - start < 4
