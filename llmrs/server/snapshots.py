"""The metrics of several processes as those of one service.

Each process writes what it counts into a file of their common folder, once a second; whichever is asked
for metrics adds them up. The files of processes that have ended stay: a counter that went down would
look like a restart of all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import gevent
import msgspec

from llmrs.server.series import Family, Histogram

log = logging.getLogger("llmrs.server")

SECONDS = 1.0
"""How often a process writes; Prometheus asks every 15 seconds or so."""

SUFFIX = ".metrics"

COMPUTING = frozenset(
    f"llmrs_{name}"
    for name in (
        "running_batches",
        "failed_batches",
        "computed_cells",
        "model_loaded",
        "loads",
        "failed_loads",
        "unloads",
        "batch_texts",
        "batch_tokens",
        "batch_seconds",
    )
) | {"te_batch_next_size", "te_batch_next_tokens", "te_request_input_length"}
"""What the engine counts of its models: gateways do not count the batches that they send there, which are
parts of its own."""

LEAST = frozenset(
    (
        "llmrs_ready",
        "llmrs_backend_up",
        "llmrs_model_loaded",
        "llmrs_build_info",
        "process_start_time_seconds",
        "process_max_fds",
    )
)
"""Gauges of which the service's is that of its worst process; other gauges add up."""

Value: TypeAlias = float | Histogram


class Record(msgspec.Struct):
    """A family in a file. A histogram is its bounds, its counts and its sum."""

    kind: str
    name: str
    text: str
    labels: tuple[str, ...]
    members: list[tuple[tuple[str, ...], float | tuple[list[float], list[int], float]]]


class Snapshots:
    """The files of all processes.

    Args:
        folder: where they are.
        families: what this process counts.
        role: what it is: `alone`, `gateway` or `engine`.
    """

    def __init__(self, folder: Path, families: Callable[[], Iterable[Family]], role: str) -> None:
        self._folder = folder
        self._families = families
        self._role = role
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(list[Record])
        self._writing = gevent.spawn(self._write_for_ever)

    def families(self) -> Iterator[Family]:
        """Those of the whole service."""
        self.write()
        merged: dict[str, tuple[Record, dict[tuple[str, ...], Value]]] = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            alive = os.path.exists(f"/proc/{path.stem}")
            for record in self._decoder.decode(path.read_bytes()):
                if alive or record.kind != "gauge":
                    _, members = merged.setdefault(record.name, (record, {}))
                    _merge(record, members)
        for record, members in merged.values():
            assert record.kind in ("counter", "gauge", "histogram")
            yield Family(record.kind, record.name, record.text, record.labels, members.items())  # type: ignore[arg-type]

    def write(self) -> None:
        """Write this process's file, in one piece."""
        records = [_record(family) for family in self._families() if self._counts(family.name)]
        draft = self._folder / f"{os.getpid()}.draft"
        try:
            draft.write_bytes(self._encoder.encode(records))
            draft.replace(self._folder / f"{os.getpid()}{SUFFIX}")
        except OSError as error:
            log.warning("the metrics could not be written: %s", error.strerror)

    def close(self) -> None:
        """Write for the last time."""
        self._writing.kill()
        if self._folder.exists():  # the master may have been faster
            self.write()

    def _counts(self, name: str) -> bool:
        """Whether a family is told of: the engine's requests are the gateways' own."""
        own = name in COMPUTING or name.startswith("process_") or name == "llmrs_hub_lag_seconds"
        return own or self._role != "engine"

    def _write_for_ever(self) -> None:
        while True:
            gevent.sleep(SECONDS)
            self.write()


def _record(family: Family) -> Record:
    members = [
        (tuple(labels), value.parts() if isinstance(value, Histogram) else float(value))
        for labels, value in family.members
    ]
    return Record(family.kind, family.name, family.text, family.labels, members)


def _merge(record: Record, members: dict[tuple[str, ...], Value]) -> None:
    """Add what one process counts to what the others do."""
    for labels, value in record.members:
        known = members.get(labels)
        if isinstance(value, tuple):
            histogram = known if isinstance(known, Histogram) else Histogram(value[0])
            histogram.add(*value[1:])
            members[labels] = histogram
        elif known is None:
            members[labels] = value
        else:
            assert not isinstance(known, Histogram)
            members[labels] = min(known, value) if record.name in LEAST else known + value
