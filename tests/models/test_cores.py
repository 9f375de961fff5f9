"""The cores this process may use: affinity, and the quota of its container."""

from __future__ import annotations

import os

import pytest

from llmrs.models.cores import usable_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A process in the group /outer/inner, on 8 cores; returns a function that sets a quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "membership").write_text("1:name=systemd:/x\n0::/outer/inner\n")
    (tmp_path / "root" / "outer" / "inner").mkdir(parents=True)

    def set_quota(group, text):
        (tmp_path / "root" / group / "cpu.max").write_text(text)
        return usable_cores(tmp_path / "membership", tmp_path / "root")

    return set_quota


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("400000 100000\n", 4),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("nonsense", 8),
        ("1 0", 8),
    ],
)
def test_the_quota_of_the_own_group(cgroup, text, expected):
    assert cgroup("outer/inner", text) == expected


def test_the_smallest_quota_on_the_way_up_counts(cgroup):
    cgroup("outer/inner", "600000 100000")
    assert cgroup("outer", "300000 100000") == 3


def test_no_cgroups(tmp_path):
    assert usable_cores(tmp_path / "none", tmp_path) == len(os.sched_getaffinity(0))


def test_this_machine():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
