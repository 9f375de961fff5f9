"""TLS: a certificate that is trusted, one that is not, and the same deadline and retry as without."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time

import pytest
import requests.adapters

from llmrs.backends.pool import open_http
from llmrs.backends.transport import Transport
from llmrs.config import Config
from llmrs.errors import ConfigError, DeadlineExceeded, UpstreamError

from .services import shapes
from .services.misbehaving import closes, drips, once_per_connection
from .services.vectors import vector
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


@pytest.fixture(autouse=True)
def nobody_vouches(monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trusted(certificate, monkeypatch):
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(certificate[0]))


def https(service: Service) -> str:
    return service.url.replace("http:", "https:")


def post(service: Service, transport: Transport | None = None, seconds: float = 10.0, **options):
    transport = transport or Transport(https(service), connections=1, **options)
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


# Whose signature is believed. The service's certificate stands for a private authority's.


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_authority_of_ones_own_as_python_takes_it(service, certificate, tmp_path, monkeypatch, variable):
    folder = tmp_path / "certificates"
    folder.mkdir()
    shutil.copy(certificate[0], folder / "own.pem")
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True, timeout=60)
    monkeypatch.setenv(variable, str(certificate[0] if variable == "SSL_CERT_FILE" else folder))
    post(service)
    assert len(service.requests) == 1


def test_an_authority_of_ones_own_by_configuration(service, certificate, monkeypatch):
    post(service, ca_file=str(certificate[0]))
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at.all")
    post(service, ca_file=str(certificate[0]))
    assert len(service.requests) == 2


@pytest.mark.usefixtures("trusted")
def test_a_named_authority_is_the_only_one(service, monkeypatch):
    post(service)
    ours = ssl.get_default_verify_paths().cafile or requests.certs.where()
    with pytest.raises(UpstreamError, match="TLS failed"):
        post(service, ca_file=ours)
    monkeypatch.setenv("SSL_CERT_FILE", ours)
    with pytest.raises(UpstreamError, match="TLS failed"):
        post(service)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_variables_of_other_programs_have_no_effect(service, certificate, monkeypatch, variable):
    monkeypatch.setenv(variable, str(certificate[0]))
    with pytest.raises(UpstreamError, match="TLS failed"):
        post(service)


def test_what_cannot_be_read_ends_the_start(certificate, tmp_path, monkeypatch):
    key = str(certificate[1])
    missing = str(tmp_path / "none.pem")
    for path, reason in (
        (missing, f"No such file or directory: {missing}"),
        (str(tmp_path), f"Is a directory: {tmp_path}"),
        (key, f"no certificate in PEM form in {key}"),
    ):
        config = Config(backend_url=("https://localhost:1",), backend_ca_file=path)
        with pytest.raises(ConfigError) as caught:
            open_http(config)
        assert str(caught.value) == f"backend_ca_file: {reason}"
        monkeypatch.setenv("SSL_CERT_FILE", path)
        with pytest.raises(ConfigError) as caught:
            open_http(Config(backend_url=("https://localhost:1",)))
        assert str(caught.value) == f"SSL_CERT_FILE (environment): {reason}"
        open_http(Config(backend_url=("http://localhost:1",), backend_ca_file=path))  # speaks no TLS
        monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", missing)
    with pytest.raises(ConfigError, match=r"^SSL_CERT_DIR .environment.: no folder at"):
        open_http(Config(backend_url=("https://localhost:1",)))


def test_the_whole_service_trusts_the_file(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve(shapes.openai(), TLSListener(context)) as running:
        backend = open_http(Config(backend_url=(https(running),), backend_ca_file=str(certificate[0])))
        backend.check(timeout=10)
        assert backend.embed(backend.prepare(["a"]), timeout=10).matrix.tolist() == [vector("a")]
        backend.close()


# Proxies are not used, and that is said.


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:1"}, "HTTPS_PROXY"),
        ({"https_proxy": "http://proxy:1"}, "https_proxy"),
        ({"ALL_PROXY": "http://proxy:1"}, "ALL_PROXY"),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": ".example.com"}, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "10.0.0.0/8,other"}, "HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_is_not_used_is_told(monkeypatch, caplog, variables, told):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    open_http(Config(backend_url=("https://api.example.com", "http://api.example.com")))
    messages = [record.getMessage() for record in caplog.records]
    asked = "backend https://api.example.com is asked directly"
    expected = f"{asked}: backends are not reached through a proxy, and {told} has no effect"
    assert messages == ([expected] if told else [])
