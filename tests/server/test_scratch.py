"""The folder for heartbeats and sockets: one in which files can be made, or a line that says what to do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from llmrs.config import Config
from llmrs.errors import ConfigError
from llmrs.server import scratch
from llmrs.server.process import gunicorn_settings
from llmrs.server.processes import Room
from llmrs.server.scratch import scratch_folder


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder takes a file: as on a root that is read-only, or with no inode left."""
    monkeypatch.setattr(scratch, "MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])


def test_memory_comes_first_for_what_must_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", str(tmp_path))
    assert scratch_folder(in_memory=True) == str(tmp_path)
    assert scratch_folder() == tempfile.gettempdir()


def test_the_other_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", str(tmp_path / "none"))
    assert scratch_folder(in_memory=True) == tempfile.gettempdir()
    monkeypatch.setattr(scratch, "MEMORY", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert scratch_folder() == str(tmp_path)


@pytest.mark.usefixtures("nowhere")
def test_without_any_the_start_ends_with_a_line() -> None:
    for attempt in (
        lambda: gunicorn_settings(Config()),
        lambda: Room().open(2, engine=True),
        scratch_folder,
    ):
        with pytest.raises(ConfigError, match=r"no writable folder.* TMPDIR"):
            attempt()
