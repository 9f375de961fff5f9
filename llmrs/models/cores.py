"""How many cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(membership: Path = CGROUP_OF_PROCESS, root: Path = CGROUPS) -> int:
    """The cores in the affinity mask, or what the container's CPU quota allows if that is less.

    More threads than the quota covers make every one of them wait: the kernel stops the whole
    group for the rest of each period once the quota is used up.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(membership, root)
    return max(1, min(allowed, int(quota))) if quota is not None else allowed


def _quota(membership: Path, root: Path) -> float | None:
    """The smallest `cpu.max` (cgroup v2) from this process's group up to the root, in cores."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    own = next((line[len("0::") :] for line in lines if line.startswith("0::")), None)
    if own is None:
        return None
    group = root / own.strip("/")
    quotas = [
        _cpu_max(folder / "cpu.max") for folder in (group, *group.parents) if folder.is_relative_to(root)
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _cpu_max(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # absent, or "max": no limit here
        return None
