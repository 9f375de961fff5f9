"""SECURITY.md is true: its numbers are the code's, its bounds name what sets them."""

from __future__ import annotations

import importlib
import re

import gunicorn.config
import pytest

from llmrs.config import BY_NAME
from llmrs.server.auth import OPEN_PATHS
from llmrs.server.body import BODY_SECONDS
from llmrs.server.channel import RECEIVE_BYTES, Timeouts
from llmrs.server.memory import FREE_BYTES
from llmrs.server.request import Limits
from tests.processes import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| (\d+) \| `([\w.]+)` \|$", TEXT, re.MULTILINE)


def value_of(name: str) -> float:
    """The default of a setting, or what a dotted name stands for; of a named tuple's field, its default."""
    if name in BY_NAME:
        default = BY_NAME[name].default
        assert isinstance(default, (int, float))
        return default
    path, _, last = name.rpartition(".")
    try:
        holder: object = importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, cls = path.rpartition(".")
        holder = getattr(importlib.import_module(module), cls)()
    found = getattr(holder, last)
    assert isinstance(found, (int, float))
    return found


def test_the_table_is_read() -> None:
    table = TEXT.partition("| what | most |")[2].partition("\n\n")[0].splitlines()
    assert len(ROWS) == len(table) - 2 >= 20, "every row has the form that is compared"


@pytest.mark.parametrize(("what", "most", "name"), ROWS, ids=[name for _, _, name in ROWS])
def test_every_bound_is_the_codes(what: str, most: str, name: str) -> None:
    assert value_of(name) == int(most), what


def test_the_limits_of_heads_are_those_that_the_worker_gets() -> None:
    limits = Limits()
    assert limits.line == gunicorn.config.LimitRequestLine.default
    assert limits.fields == gunicorn.config.LimitRequestFields.default
    assert limits.field == gunicorn.config.LimitRequestFieldSize.default


def test_every_bound_among_the_settings_is_listed() -> None:
    """An option that says `most` bounds something; whatever clients can drive up has to be here."""
    listed = {name for _, _, name in ROWS}
    ours = {"batch_size", "max_batch_tokens"}  # of batches, which are formed from what was admitted
    for option in BY_NAME.values():
        if option.meaning.startswith("most ") and option.name not in ours:
            assert option.name in listed or f"`{option.name}`" in TEXT, option.name


def test_timeouts_are_listed() -> None:
    listed = {name for _, _, name in ROWS}
    for field in ("head", "body", "write"):
        assert f"llmrs.server.channel.Timeouts.{field}" in listed
    assert BY_NAME["keepalive"].default == Timeouts().idle
    assert f"{BODY_SECONDS:.0f} seconds in" in TEXT


def test_numbers_in_the_prose() -> None:
    connections = BY_NAME["worker_connections"].default
    assert isinstance(connections, int)
    assert f"{connections:,} connections" in TEXT
    assert f"{connections * (FREE_BYTES + RECEIVE_BYTES) >> 20} MiB more" in TEXT
    assert f"Bodies of {FREE_BYTES // 1024} KiB or less" in TEXT


def test_open_paths_are_listed() -> None:
    paragraph = TEXT.partition("**Deny by default.**")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(/\w+)`", paragraph)) == OPEN_PATHS | {"/metrics"}


def test_settings_it_names_exist() -> None:
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", TEXT):
        assert name in BY_NAME, name
