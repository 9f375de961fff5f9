"""`llmrs fetch` and the start of a server, as processes, with a hub of our own: kills, terminals, secrets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.models.hub_server import COMMIT, HubServer
from tests.models.makers import make_model
from tests.processes import clean_environment, llmrs, run, wait_until

MODEL = "someone/tiny-model"
SECRET = "hf_averysecrettoken"
WEIGHTS = "model.safetensors"
CHUNK = 10 << 20
"""What the hub's client receives before it writes."""

SIZE = 2 * CHUNK + 1234
STALL = CHUNK + CHUNK // 2

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "repository"
    make_model(folder)
    with HubServer(folder, MODEL) as server:
        yield server


@pytest.fixture
def env(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address}


@pytest.fixture
def large(hub: HubServer) -> bytes:
    """Weights of which the hub sends a part and then waits."""
    body = os.urandom(SIZE)
    (hub.folder / WEIGHTS).write_bytes(body)
    hub.stall = (WEIGHTS, STALL)
    return body


def as_in_a_terminal() -> None:
    """Hear interrupts: what a shell has started in the background ignores them, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(env: dict[str, str]) -> Iterator[Start]:
    """Starts `llmrs fetch`; whatever still runs at the end is killed."""
    started = []

    def begin(*arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmrs", "fetch", MODEL, *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(**env, **more),
            preexec_fn=as_in_a_terminal,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def storage(env: dict[str, str]) -> Path:
    return Path(env["HF_HOME"]) / "hub" / "models--someone--tiny-model"


def has_begun(env: dict[str, str]) -> bool:
    """Whether the large file's first chunk is on the disk."""
    return any(size >= CHUNK for size in sizes(storage(env).glob("blobs/*.incomplete")))


def sizes(paths: Iterable[Path]) -> Iterator[int]:
    """Of the files that are still there: a small one is complete, and has another name, in no time."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def sent(hub: HubServer) -> list[tuple[int, int]]:
    return [(start, length) for name, start, length in hub.ranges if name == WEIGHTS]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_goes_on(
    hub: HubServer, env: dict[str, str], large: bytes, start: Start, number: signal.Signals
) -> None:
    process = start()
    wait_until(lambda: has_begun(env))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130 if number == signal.SIGINT else -number, "")
    assert "Traceback" not in err
    assert run("fetch", MODEL, "--offline", **env).returncode == 3, "half a model is none"

    hub.stall = None
    hub.go_on.set()
    done = run("fetch", MODEL, **env)
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.rstrip("\n"))
    assert folder == storage(env) / "snapshots" / COMMIT
    assert (folder / WEIGHTS).read_bytes() == large
    assert sent(hub)[1:] == [(CHUNK, SIZE - CHUNK)]
    assert not list(storage(env).rglob("*.incomplete"))


def test_two_at_a_time_fetch_once(hub: HubServer, env: dict[str, str], large: bytes, start: Start) -> None:
    both = [start(), start()]
    wait_until(lambda: has_begun(env))
    wait_until(lambda: sum("/revision/" in line for line in hub.requests) == 2)
    hub.go_on.set()
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert results[0] == results[1]
    assert (Path(results[0][0].rstrip("\n")) / WEIGHTS).read_bytes() == large
    assert sent(hub) == [(0, SIZE)]


def test_a_file_that_cannot_grow(hub: HubServer, env: dict[str, str], large: bytes) -> None:
    """As on a disk that is full: a line that says why, and what is there is gone on with."""
    hub.go_on.set()
    limit = (1 << 20, 1 << 20)
    done = subprocess.run(
        [sys.executable, "-m", "llmrs", "fetch", MODEL], capture_output=True, text=True, timeout=60,
        env=clean_environment(**env), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "cannot be downloaded: File too large" in done.stderr
    assert run("fetch", MODEL, **env).returncode == 0


def test_progress_is_for_terminals(hub: HubServer, env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "llmrs", "fetch", MODEL], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=theirs, env=clean_environment(**env, TERM="xterm"),
    )  # fmt: skip
    out, _ = process.communicate(timeout=60)
    shown = os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out.decode()) == (0, f"{storage(env)}/snapshots/{COMMIT}\n")
    assert b"someone/tiny-model: 100%" in shown
    assert shown.count(b"\n") == 1
    assert run("fetch", MODEL, **env).stderr == ""


def test_the_home_of_the_hubs_client(hub: HubServer, env: dict[str, str], tmp_path: Path) -> None:
    """Its variables, as other programs read them: the token's file, the cache, being offline."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(f"{SECRET}\n")
    other = env | {"HF_HUB_CACHE": str(tmp_path / "elsewhere")}
    denied = run("fetch", MODEL, **other, HF_HUB_OFFLINE="1")
    assert (denied.returncode, denied.stdout) == (3, "")
    assert "HF_HUB_OFFLINE is set" in denied.stderr
    assert not hub.requests
    done = run("fetch", f"{MODEL}@v1", **other)
    assert done.stdout.startswith(str(tmp_path / "elsewhere"))
    assert hub.tokens == {f"Bearer {SECRET}"}, hub.requests
    again = run("fetch", MODEL, "--revision", "v1", **other, HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_a_server_starts_from_the_cache(hub: HubServer, env: dict[str, str]) -> None:
    """A hub that fails or hangs delays nothing, because it is not asked."""
    assert run("fetch", MODEL, **env).returncode == 0
    asked = len(hub.requests)
    hub.refuse = (500, "")
    with llmrs(MODEL_PATH=MODEL, **env):
        assert len(hub.requests) == asked


def test_a_server_fetches_without_showing_the_token(
    hub: HubServer, env: dict[str, str], tmp_path: Path
) -> None:
    body = (hub.folder / WEIGHTS).read_bytes()
    hub.stall = (WEIGHTS, len(body) // 2)
    lines = set()

    def look() -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                lines.add(process.read_bytes())

    def watch(*_: object) -> bool:
        look()
        if any(WEIGHTS in line for line in hub.requests):
            hub.go_on.set()
        return hub.go_on.is_set()

    command = [sys.executable, "-m", "llmrs", "serve", "--port", "0", "--model-path", MODEL]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=clean_environment(**env, HF_TOKEN=SECRET)
        )
    try:
        wait_until(watch, 60)
        wait_until(lambda: "; try: curl" in log.read_text(), 60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert hub.tokens == {f"Bearer {SECRET}"}, hub.requests
    fetching = [line for line in lines if b"fetch\0" in line and MODEL.encode() in line]
    assert fetching
    assert not any(SECRET.encode() in line for line in lines)
    assert SECRET not in log.read_text()


def test_a_server_that_cannot_fetch_does_not_start(env: dict[str, str], hub: HubServer) -> None:
    hub.refuse = (404, "RepoNotFound")
    done = run("serve", "--port", "0", "--model-path", MODEL, **env, HF_TOKEN=SECRET)
    assert done.returncode == 3
    assert "the hub has no such model" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_model_is_fetched(
    hub: HubServer, env: dict[str, str], large: bytes, number: signal.Signals
) -> None:
    """Nobody goes on fetching, and the next start goes on from there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmrs", "serve", "--port", "0", "--model-path", MODEL], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean_environment(**env), preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    try:
        wait_until(lambda: has_begun(env))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (0 if number == signal.SIGTERM else 130)
    assert "Traceback" not in err
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert has_begun(env)
