"""The served models by name. Which they are may change while requests are answered, see `switch`."""

from __future__ import annotations

from collections.abc import Sequence

from llmrs.errors import ModelNotFound, UpstreamError
from llmrs.server.serving import ServedModel


class Registry:
    """The served models by name and alias.

    Attributes:
        models: the first is the default. Replaced as a whole, never changed.
        trouble: what could not be served as configured, by the name of the model, and why.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)
        self.trouble: dict[str, str] = {}

    def get(self, name: str | None) -> ServedModel:
        """The model of that name or alias; the default one for None.

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
