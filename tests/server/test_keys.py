"""API keys: what a file of them may say, when it is read again, and that everything else is closed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import falcon.inspect
import pytest
from falcon import testing

from llmrs.config import load
from llmrs.errors import ConfigError, InvalidApiKey
from llmrs.server.app import create_app
from llmrs.server.auth import ApiKeys, load_keys
from llmrs.server.keys import MAX_FILE_BYTES, MAX_KEYS, KeyFile, digest, parse
from tests.engines import FakeBackend


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("alpha one\nbeta\n")
    return file


def name_of(keys: ApiKeys, key: str) -> str | None:
    """The name that a key opens the door with; None where it does not."""
    try:
        return keys.check("/v1/models", f"Bearer {key}")
    except InvalidApiKey:
        return None


# -- what a file says ---------------------------------------------------------------------------


def test_lines_of_a_file() -> None:
    text = "# comment\n\n  alpha   one  \nbeta\ngamma#x three # why\n\tdelta\t#none\r\nalpha two\n"
    assert [(key.name, key.digest) for key in parse(text)] == [
        ("one", digest("alpha")), ("file-2", digest("beta")), ("three", digest("gamma#x")),
        ("file-4", digest("delta")),
    ]  # fmt: skip


def test_two_keys_may_share_a_name() -> None:
    assert [key.name for key in parse("old team\nnew team\n")] == ["team", "team"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"# only a comment\n", b"a b c\n", b"good\nschl\xc3\xbcssel\n", b"good\nkey n\xc3\xa4me\n",
        b"\xff\xfe\n", b"good\n\0\n", b"key " + b"n" * 65, b"k" * 4097, b"k\n" * (MAX_FILE_BYTES // 2 + 1),
        b"".join(b"k%d\n" % i for i in range(MAX_KEYS + 1)),
    ],
)  # fmt: skip
def test_files_that_are_none_end_the_start_and_quote_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        KeyFile(str(tmp_path / "keys"))
    message = str(caught.value)
    assert message.startswith("api_key_file ")
    assert "good" not in message
    assert "kk" not in message


def test_a_missing_file_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        KeyFile(str(tmp_path / "keys"))


def test_keys_are_kept_as_digests_only(path: Path) -> None:
    keys = ApiKeys(["gamma"], file=KeyFile(str(path)))
    kept = f"{vars(keys)} {vars(keys._file)}"
    for secret in ("alpha", "beta", "gamma"):
        assert secret not in kept
    assert len(keys) == 3


def test_names(path: Path) -> None:
    keys = ApiKeys(["gamma", "delta"], file=KeyFile(str(path)))
    found = {
        key: name_of(keys, key) for key in ("gamma", "delta", "alpha", "beta", "alph", "alpha one", "one")
    }
    assert found == {
        "gamma": "key-1", "delta": "key-2", "alpha": "one", "beta": "file-2",
        "alph": None, "alpha one": None, "one": None,
    }  # fmt: skip


# -- when it is read again ----------------------------------------------------------------------


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    new = path.with_name("keys.new")
    new.write_text(text)
    os.replace(new, path)


@pytest.mark.parametrize("write", [in_place, by_rename])
def test_a_change_is_seen_at_the_next_look(
    path: Path, clock: Clock, write: Callable[[Path, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys((), file=KeyFile(str(path), clock))
    write(path, "gamma three\n")
    assert name_of(keys, "alpha") == "one", "it is not looked at again so soon"
    clock.now += 1.0
    with caplog.at_level(logging.INFO, "llmrs.server"):
        assert name_of(keys, "gamma") == "three"
        assert name_of(keys, "alpha") is None
    assert [record.getMessage() for record in caplog.records] == ["api_key_file was read again: 1 keys"]


def test_the_swap_of_a_symbolic_link(tmp_path: Path, clock: Clock) -> None:
    """As Kubernetes does it: keys -> ..data/keys, ..data -> a folder with a date."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(f"key{version} v{version}\n")
        os.utime(tmp_path / version / "keys", (1, 1))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = ApiKeys((), file=KeyFile(str(tmp_path / "keys"), clock))
    assert name_of(keys, "key1") == "v1"
    (tmp_path / "..new").symlink_to("2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    clock.now += 1.0
    assert (name_of(keys, "key1"), name_of(keys, "key2")) == (None, "v2")


def test_a_key_that_is_half_written_is_no_key(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("alpha one\nsecret-of-beta")
    keys = ApiKeys((), file=KeyFile(str(path), clock))
    assert name_of(keys, "secret-of-beta") == "file-2", "at the start nobody is writing it"
    path.write_text("alpha one\nsecret-of")
    clock.now += 1.0
    assert [name_of(keys, key) for key in ("alpha", "secret-of", "secret-of-beta")] == ["one", None, "file-2"]
    assert "its last line does not end" in caplog.text
    path.write_text("alpha one\nsecret-of-gamma\n")
    clock.now += 1.0
    assert [name_of(keys, key) for key in ("secret-of", "secret-of-gamma")] == [None, "file-2"]
    by_rename(path, "delta")
    clock.now += 1.0
    assert name_of(keys, "delta") == "file-1", "a file that takes the other's place is whole"


def emptied(path: Path) -> None:
    path.write_text("")


def removed(path: Path) -> None:
    path.unlink()


def malformed(path: Path) -> None:
    path.write_text("s3cret key with words\n")


def oversized(path: Path) -> None:
    path.write_text("s3cret\n" * MAX_FILE_BYTES)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [emptied, removed, malformed, oversized, a_pipe, a_folder])
def test_a_file_that_went_bad_keeps_the_old_keys_and_says_so_once(
    path: Path, clock: Clock, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys((), file=KeyFile(str(path), clock))
    damage(path)
    for _ in range(5):
        clock.now += 1.0
        assert name_of(keys, "alpha") == "one"
        assert name_of(keys, "s3cret") is None
        assert name_of(keys, "") is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "stay valid" in record.getMessage()
    assert "s3cret" not in record.getMessage()
    assert "alpha" not in record.getMessage()
    if path.is_dir():
        path.rmdir()
    elif path.exists():
        path.unlink()
    path.write_text("new\n")
    clock.now += 1.0
    assert name_of(keys, "new") == "file-1"
    assert name_of(keys, "alpha") is None
    removed(path)
    clock.now += 1.0
    assert name_of(keys, "new") == "file-1"
    assert len(caplog.records) == 2, "a second accident is told, too"


def test_a_bad_file_is_read_once_and_not_at_every_look(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeyFile(str(path), clock)
    malformed(path)
    reads: list[str] = []
    monkeypatch.setattr("llmrs.server.keys.parse", lambda text: reads.append(text) or parse(text))
    for _ in range(4):
        clock.now += 1.0
        assert not file.look()
    assert len(reads) == 1


def test_a_pipe_is_read_once(tmp_path: Path, clock: Clock) -> None:
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    if not (child := os.fork()):
        pipe.write_text("alpha one\n")
        os._exit(0)
    keys = ApiKeys((), file=KeyFile(str(pipe), clock))
    os.waitpid(child, 0)
    clock.now += 1000.0
    assert name_of(keys, "alpha") == "one"


def test_without_a_request_nothing_is_looked_at(path: Path) -> None:
    config = load({"api_key_file": str(path), "api_key": "gamma"}, environ={}, path=os.devnull)
    keys = load_keys(config)
    assert len(keys) == 3
    assert keys.check("/health", None) is None


# -- deny by default ----------------------------------------------------------------------------


@pytest.fixture
def closed() -> Iterator[testing.TestClient]:
    """An application with a key, every route there is, and a limit (which wraps routes)."""
    config = load({"api_key": "k", "key_rate": "1000"}, environ={}, path=os.devnull)
    app = create_app([FakeBackend()], config, load_keys(config))
    yield testing.TestClient(app)
    app.close()


OPEN = {"/health", "/livez", "/readyz", "/metrics"}


def test_every_route_but_the_open_ones_asks_for_a_key(closed: testing.TestClient) -> None:
    routes = [route.path for route in falcon.inspect.inspect_routes(closed.app._falcon)]
    assert len(routes) >= 9
    assert set(routes) >= OPEN
    for route in routes:
        path = route.replace("{name:path}", "some/model")
        for spelled in (path, path + "/"):
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW"):
                status = closed.simulate_request(method, spelled).status_code
                if route in OPEN:
                    assert status != 401, (method, spelled)
                else:
                    assert status == 401, (method, spelled)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/nothing", "/v1", "/v1/embeddings/x", "/openapi.json", "/docs", "/health/x", "/healthz",
        "/HEALTH", "//health/x", "//v1//models", "/health/../v1/models", "/livez/..", "/metrics/x",
        "/metrics;x", "/%68ealth/x", "/health%00",
    ],
)  # fmt: skip
def test_unknown_paths_ask_for_a_key(closed: testing.TestClient, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert closed.simulate_request(method, path).status_code == 401


def test_reloading_asks_for_its_own_key_alone() -> None:
    config = load({"api_key": "k", "admin_key": "a"}, environ={}, path=os.devnull)
    app = create_app([FakeBackend()], config, load_keys(config))
    client = testing.TestClient(app)
    for headers in ({}, {"Authorization": "Bearer k"}, {"Authorization": "Bearer "}):
        assert client.simulate_post("/admin/reload", headers=headers).status_code == 401
    for path in ("/v1/models", "/admin", "/admin/reload/x"):
        assert client.simulate_get(path, headers={"Authorization": "Bearer a"}).status_code == 401
    app.close()
