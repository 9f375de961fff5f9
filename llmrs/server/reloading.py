"""A reload in all processes that answer, whichever of them was asked for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import gevent

from llmrs.errors import ConfigError, NotReady
from llmrs.server.notices import Notices, Outcome
from llmrs.server.registry import Registry
from llmrs.server.switch import Switch

log = logging.getLogger("llmrs.server")

LOOK_SECONDS = 1.0
STEP = 0.05
MEND_SECONDS = 5.0

EVERYWHERE_SECONDS = 30.0
"""For so long the others may take after the first: the engine has loaded the models for it already."""


class Reloading:
    """Reloads here, and elsewhere.

    Args:
        notices: None where there is only this process.
    """

    def __init__(self, switch: Switch, registry: Registry, notices: Notices | None) -> None:
        self._switch = switch
        self._registry = registry
        self._notices = notices
        self._watching: gevent.Greenlet[[Notices], None] | None = None
        self._done = 0  # so a process that starts after a reload does it once more

    def watch(self) -> None:
        """Reload when another process was asked to, from now on, in a greenlet of its own."""
        if self._notices is not None:
            self._note(0, {})
            self._watching = gevent.spawn(self._watch, self._notices)

    def everywhere(self) -> Outcome:
        """Serve what the configuration says now, in all processes.

        Returns:
            What all of them serve, and why one does not serve others.

        Raises:
            ConfigError: the configuration is wrong, and all is as it was.
            NotReady: some have not done it in time; they will.
        """
        number = Notices.number()
        own = self._note(number, self._switch.reload())
        if self._notices is None:
            return own
        self._notices.ask(number)
        until = time.monotonic() + EVERYWHERE_SECONDS
        while late := [each for each in self._notices.others() if each.number < number]:
            if time.monotonic() > until:
                raise NotReady(f"reloaded here, but not yet in {len(late)} other processes", retry_after=5)
            gevent.sleep(STEP)
        return _together([own, *self._notices.others()])

    def close(self) -> None:
        """Nobody has to wait for this process any more."""
        if self._watching is not None:
            self._watching.kill(block=False)
        if self._notices is not None:
            self._notices.close()

    def _note(self, number: int, failed: dict[str, str]) -> Outcome:
        """Let the others know what has come of a reload here."""
        self._done = max(self._done, number)  # two at a time: the second has read what the first has
        outcome = Outcome(self._done, [model.name for model in self._registry.models], failed)
        if self._notices is not None:
            self._notices.tell(outcome)
        return outcome

    def _watch(self, notices: Notices) -> None:
        mend_at = 0.0
        while True:
            notices.keep()
            number = notices.latest()
            if number > self._done:
                self._note(number, self._try())
            if time.monotonic() >= mend_at:
                self._switch.mend()
                mend_at = time.monotonic() + MEND_SECONDS
            gevent.sleep(LOOK_SECONDS)

    def _try(self) -> dict[str, str]:
        """Reload for another process. Returns what has failed."""
        try:
            return self._switch.reload()
        except ConfigError as error:
            return {"configuration": str(error)}
        except Exception:
            log.exception("the configuration could not be applied")
            return {"configuration": "it could not be applied, see the log"}


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """What all processes serve, in the first one's order, and what has failed in any."""
    own, *others = outcomes
    everywhere = [name for name in own.models if all(name in each.models for each in others)]
    failed = {name: reason for each in reversed(outcomes) for name, reason in each.failed.items()}
    return Outcome(own.number, everywhere, failed)
