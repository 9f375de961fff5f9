"""The image, built once for all tests that look at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.deploy.container import Container
from tests.deploy.standin import Buildah, check_tools


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    check_tools()
    folder = tmp_path_factory.mktemp("images")
    buildah = Buildah(folder)
    try:
        buildah.make_base()
        buildah.build("llmrs")
        yield Container(buildah, "localhost/llmrs")
        buildah("umount", "--all")
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes
