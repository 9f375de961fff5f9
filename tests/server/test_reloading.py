"""A reload is done when every process has done it, and is not said to be before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from llmrs.errors import ConfigError, NotReady
from llmrs.server import reloading
from llmrs.server.notices import Notices, Outcome
from llmrs.server.reloading import Reloading

OTHER_PID = os.getppid()


class FakeSwitch:
    """Serves models by a plan: a list of names, or an error, for each reload."""

    def __init__(self, *plan: Any) -> None:
        self._plan = list(plan)
        self.registry: Any = SimpleNamespace(models=())
        self.reloads = 0

    def reload(self) -> dict[str, str]:
        self.reloads += 1
        step = self._plan.pop(0)
        if isinstance(step, Exception):
            raise step
        names, failed = step
        self.registry.models = [SimpleNamespace(name=name) for name in names]
        return dict(failed)

    def mend(self) -> None:
        return


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reloading]]:
    monkeypatch.setattr(reloading, "LOOK_SECONDS", 0.02)

    opened = []

    def process(pid: int, switch: Any) -> Reloading:
        opened.append(Reloading(switch, switch.registry, Notices(tmp_path, pid)))
        return opened[-1]

    yield process
    for each in opened:
        each.close()


def test_all_processes_do_it_before_the_answer(process: Callable[..., Reloading]) -> None:
    here, there = FakeSwitch((["a", "b"], {})), FakeSwitch((["b", "a"], {}))
    first, second = process(os.getpid(), here), process(OTHER_PID, there)
    first.watch()
    second.watch()
    outcome = first.everywhere()
    assert (outcome.models, outcome.failed) == (["a", "b"], {})
    assert (here.reloads, there.reloads) == (1, 1)
    gevent.sleep(0.1)
    assert (here.reloads, there.reloads) == (1, 1), "once is enough"


def test_what_failed_in_one_process_is_told(process: Callable[..., Reloading]) -> None:
    first = process(os.getpid(), FakeSwitch((["a", "b"], {"c": "broken"})))
    second = process(OTHER_PID, FakeSwitch((["a"], {"b": "not here", "c": "broken, too"})))
    second.watch()
    outcome = first.everywhere()
    assert outcome.models == ["a"]
    assert outcome.failed == {"b": "not here", "c": "broken"}


def test_a_wrong_configuration_in_one_process_is_told(process: Callable[..., Reloading]) -> None:
    first = process(os.getpid(), FakeSwitch((["a"], {})))
    process(OTHER_PID, FakeSwitch(ConfigError("port = x"))).watch()
    assert first.everywhere().failed == {"configuration": "port = x"}


def test_a_wrong_configuration_is_not_passed_on(process: Callable[..., Reloading]) -> None:
    there = FakeSwitch()
    process(OTHER_PID, there).watch()
    with pytest.raises(ConfigError):
        process(os.getpid(), FakeSwitch(ConfigError("port = x"))).everywhere()
    gevent.sleep(0.1)
    assert there.reloads == 0


def test_a_process_that_does_not_do_it_in_time_is_told(
    process: Callable[..., Reloading], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "EVERYWHERE_SECONDS", 0.1)
    Notices(tmp_path, OTHER_PID).tell(Outcome(0, ["old"], {}))
    with pytest.raises(NotReady, match="not yet in 1 other"):
        process(os.getpid(), FakeSwitch((["a"], {}))).everywhere()


def test_a_dead_process_is_not_waited_for(process: Callable[..., Reloading], tmp_path: Path) -> None:
    Notices(tmp_path, 2**22 + 1).tell(Outcome(0, ["old"], {}))  # above the highest pid there is
    assert process(os.getpid(), FakeSwitch((["a"], {}))).everywhere().models == ["a"]


def test_what_was_left_does_not_grow_old(process: Callable[..., Reloading], tmp_path: Path) -> None:
    process(OTHER_PID, FakeSwitch()).watch()
    left = tmp_path / f"{OTHER_PID}.reloaded"
    os.utime(left, (1, 1))
    gevent.sleep(0.1)
    assert left.stat().st_mtime > 1


def test_one_that_has_ended_in_order_is_not_waited_for(process: Callable[..., Reloading]) -> None:
    ended = process(OTHER_PID, FakeSwitch())
    ended._note(0, {})
    ended.close()
    assert process(os.getpid(), FakeSwitch((["a"], {}))).everywhere().models == ["a"]


def test_a_process_that_starts_later_does_the_last_reload(process: Callable[..., Reloading]) -> None:
    process(os.getpid(), FakeSwitch((["a"], {}))).everywhere()
    late = FakeSwitch((["a"], {}))
    process(OTHER_PID, late).watch()
    gevent.sleep(0.1)
    assert late.reloads == 1


def test_two_reloads_at_a_time_are_both_answered(process: Callable[..., Reloading]) -> None:
    both = [(["a"], {})] * 3
    first, second = process(os.getpid(), FakeSwitch(*both)), process(OTHER_PID, FakeSwitch(*both))
    first.watch()
    second.watch()
    asking = [gevent.spawn(each.everywhere) for each in (first, second)]
    gevent.joinall(asking, timeout=10)
    assert [each.get(block=False).models for each in asking] == [["a"], ["a"]]
