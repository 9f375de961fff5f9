"""The image, built as an operator would build it, on a machine that reaches no image registry.

The base image is a stand-in: a Debian tree made by debootstrap, imported under the base image's name,
with `python` and `pip` as there. All else is real: the Dockerfile, its stages, its secrets. What this
machine says of its package mirrors is passed in at build time, as an operator's settings would be.
Images lie in a folder of the test session, not in the machine's own storage.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, tool

BASE_IMAGE = "docker.io/library/python:3.12-slim"
PACKAGES = "python3,python3-pip,python3-dev,ca-certificates"
"""What the base image has and Debian's smallest system has not. The headers, but no compiler."""

SECONDS = 600
"""More than ten times what a step takes."""


def check_tools() -> None:
    """Fails under CI where images cannot be built, and skips elsewhere."""
    for name in ("buildah", "debootstrap", "unshare", "apt-get"):
        tool(name)
    check_root("building an image without a daemon")


def check_root(purpose: str) -> None:
    """Fails under CI where the test is not run by root, and skips elsewhere."""
    if os.geteuid() != 0:
        message = f"{purpose} needs root"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


class Buildah:
    """buildah with an image storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage = ["--root", f"{folder}/storage", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        self.command = ["buildah", *storage]

    def __call__(self, *arguments: str) -> str:
        """Its standard output; fails the test with all that it said if it fails."""
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"buildah {arguments[0]}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """Import the stand-in under the base image's name."""
        container = self("from", "scratch")
        tree = Path(self("mount", container))
        address, suite = mirror()
        # What it mounts into the tree ends with its namespace, whatever becomes of it.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={PACKAGES}"]
        command += [suite, str(tree), address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for marker in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # Debian's alone
            marker.unlink()
        self("config", "--cmd", "python", container)
        self("commit", "--quiet", "--format", "docker", container, BASE_IMAGE)
        self("rm", container)

    def build(self, name: str) -> None:
        """Build the repository's Dockerfile; with docker's format, as OCI's has no HEALTHCHECK."""
        pip, apt, authority = self._folder / "pip.conf", self._folder / "apt.conf", self._folder / "ca.crt"
        settings = pip_settings()
        if certificates := settings.pop("cert", ""):
            authority.write_bytes(Path(certificates).read_bytes())
            settings["cert"] = "/run/secrets/ca.crt"
        pip.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        pip.chmod(0o600)
        apt.write_text(apt_settings())
        secrets = [("pip.conf", pip), ("ca.crt", authority)]
        given = [f"--secret=id={key},src={path}" for key, path in secrets if path.exists()]
        volume = f"--volume={apt}:/etc/apt/apt.conf.d/90host:ro"
        how = ["--isolation", "chroot", "--pull-never", "--format", "docker", volume, *given]
        self("build", "--quiet", *how, "--tag", name, str(ROOT))


def mirror() -> tuple[str, str]:
    """The address and the suite of the Debian mirror that this machine's apt is set to."""
    fields = "$(REPO_URI) $(RELEASE)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages", "Component: main"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    suite = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert suite is not None
    found = [line.split()[0] for line in out.splitlines() if line.split()[1:] == [suite[1]]]
    assert found, f"apt knows no mirror of {suite[1]}:\n{out}"
    return found[0], suite[1]


def pip_settings() -> dict[str, str]:
    """What reaches a package index from this machine. Its folders mean nothing inside of a build."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = {}
    for line in out.splitlines():
        key, _, value = line.partition("=")
        name, addresses = key.rsplit(".", 1)[-1], value.strip("'\"").replace("\\n", " ").split()
        kept = " ".join(address for address in addresses if not address.startswith("file:"))
        if name in ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout") and kept:
            settings[name] = kept
    return settings


def apt_settings() -> str:
    """How this machine's apt fetches and what it accepts, as a configuration file of apt."""
    out = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    kept = re.compile(r"Acquire::(Check-|https?::|Retries|AllowInsecure)", re.IGNORECASE)
    return "".join(f"{line}\n" for line in out.splitlines() if kept.match(line))
