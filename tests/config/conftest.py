"""Configuration tests read no file and no environment but their own."""

from __future__ import annotations

import pytest


@pytest.fixture
def load_from(tmp_path, monkeypatch):
    """`load` from a file's text, an environment and flags, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    from llmrs.config import load

    def run(file=None, environ=None, flags=None, path=None):
        if file is not None:
            (tmp_path / "config.toml").write_text(file, encoding="utf-8")
        return load(flags or {}, environ or {}, path)

    return run


@pytest.fixture
def refusal(load_from):
    """The one line with which `load` refuses, from the same arguments."""
    from llmrs.errors import ConfigError

    def run(*args, **kwargs):
        with pytest.raises(ConfigError) as caught:
            load_from(*args, **kwargs)
        message = str(caught.value)
        assert message.isprintable()
        assert caught.value.exit_code == 2
        return message

    return run
