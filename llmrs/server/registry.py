"""The served models by name. Which they are may change while requests are answered, see `switch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmrs.errors import ModelNotFound, UpstreamError
from llmrs.server.names import Names, derive
from llmrs.server.serving import ServedModel


class Registry:
    """The served models by name and alias.

    Attributes:
        models: the first is the default. Replaced as a whole, never changed.
        trouble: what could not be served as configured, by the name of the model, and why.

    Args:
        answers_any: whether the default model answers for names that nobody has.
    """

    def __init__(self, models: Sequence[ServedModel], *, answers_any: bool = False) -> None:
        self.models = tuple(models)
        self.trouble: dict[str, str] = {}
        self._answers_any = answers_any
        self._known: Sequence[Names] = ()
        self._derived: Mapping[str, int] = {}

    def get(self, name: str | None) -> ServedModel:
        """The model of that name or alias, or the one that the name stands for; the default one for None.

        Raises:
            ModelNotFound: the message lists what is served.
            UpstreamError: a backend that was never reached may serve it. Clients try again after
                that, but not after a 404.
        """
        if name is None:
            return self.models[0]
        for model in self.models:
            if name in model.names:
                return model
        position = self._derived_names().get(name)
        if position is not None:
            return self.models[position]
        if self._answers_any:
            return self.models[0]
        for model in self.models:
            if model.info.name is None and model.reason:
                raise UpstreamError(model.reason)
        served = ", ".join(model.name for model in self.models)
        raise ModelNotFound(f"that model is not served here; served: {served}", param="model")

    @property
    def reason(self) -> str | None:
        """Why no model can be used now; None while one can, and none hangs, for which the process ends."""
        if hanging := next((model.watchdog.reason for model in self.models if model.watchdog.reason), None):
            return hanging
        reasons = [model.reason for model in self.models]
        return None if None in reasons else next(iter(reasons), "no model is served")

    def _derived_names(self) -> Mapping[str, int]:
        """The further names, as long as nobody has learnt another name of its own."""
        known = [Names(model.names, model.origins) for model in self.models]
        if known != self._known:
            self._known, self._derived = known, derive(known)
        return self._derived
