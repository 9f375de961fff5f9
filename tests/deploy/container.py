"""A container of the image, run in the two ways that need no daemon.

`run` is `buildah run`: a command to its end. `serve` is stricter than most runtimes' defaults: process 1
of a pid namespace, a read-only root file system, no capabilities, nothing writable but /dev/shm.
Both are on this machine's network, so services listen on free ports.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.deploy.standin import Buildah
from tests.processes import READY, Server, clean_environment, start

NAMESPACES = """
set -e
root=$1 user=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done; shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all -- env -i "$@"
"""
"""Run with the container's folder, its user, pairs of a file and its place, `--`, settings, command."""


class Container:
    """A container made of an image.

    Attributes:
        root: its file system.
        image: what the image says about how it is run, in docker's words.
    """

    def __init__(self, buildah: Buildah, image: str) -> None:
        self._buildah = buildah
        self._name = buildah("from", "--pull-never", image)
        self.root = Path(buildah("mount", self._name))
        self.image = json.loads(buildah("inspect", self._name))["Docker"]["config"]

    def run(
        self, *command: str, mounts: Mapping[Path, str] | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """A command in the container, in place of the image's own, to its end."""
        flags = [f"--env={name}={value}" for name, value in env.items()]
        flags += [f"--volume={path}:{inside}:ro" for path, inside in (mounts or {}).items()]
        return subprocess.run(
            [*self._buildah.command, "run", "--isolation", "chroot", *flags, self._name, "--", *command],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def docker_run(self, *arguments: str, **how: str) -> subprocess.CompletedProcess[str]:
        """What `docker run IMAGE ARGUMENTS` does."""
        return self.run(*self.image["Entrypoint"], *(arguments or self.image["Cmd"]), **how)

    @contextlib.contextmanager
    def serve(
        self, *arguments: str, mounts: Mapping[Path, str] | None = None, **env: str
    ) -> Iterator[Contained]:
        """The service with these arguments (or the image's own), settings and files, ready."""
        settings = dict(setting.split("=", 1) for setting in self.image["Env"]) | {"HOME": "/"} | env
        files = [part for path, inside in (mounts or {}).items() for part in (str(path), inside)]
        command = [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", NAMESPACES, "container",
            str(self.root), self.image["User"].partition(":")[0], *files, "--",
            f"--chdir={self.image['WorkingDir']}", *(f"{name}={value}" for name, value in settings.items()),
            *self.image["Entrypoint"], *(arguments or self.image["Cmd"]),
        ]  # fmt: skip

        def ready(server: Server) -> bool:
            found = READY.search(server.log)
            if found:
                server.url = found[2]
            return found is not None

        with self._places(mounts or {}), start(command, ready) as server:
            contained = Contained(server)
            try:
                yield contained
            finally:
                contained.signal(signal.SIGINT)
                contained.wait(20)

    @contextlib.contextmanager
    def _places(self, mounts: Mapping[Path, str]) -> Iterator[None]:
        """Empty files that others can be mounted over, as a runtime makes them. Folders are there."""
        files = [inside for path, inside in mounts.items() if path.is_file()]
        places = [self.root / inside.lstrip("/") for inside in files]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        try:
            yield
        finally:
            for place in places:
                place.unlink()


class Contained:
    """A service in a container; `pid` is that of its process 1, seen from outside."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.pid = server.worker_pid
        self.url = server.url
        self.port = server.port

    @property
    def log(self) -> str:
        return self._server.log

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code of process 1."""
        return self._server.wait(seconds)


def curl(url: str, *arguments: str) -> str:
    """What curl prints; fails the test if it fails."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30", *arguments, url]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
