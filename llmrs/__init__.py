"""llmrs: an OpenAI-compatible text embedding service.

`from llmrs import Embedder` embeds in this process; `llmrs serve` does so over HTTP. Importing the
package imports neither an engine nor a server: `Embedder` is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmrs.embedder import Embedder

__all__ = ["Embedder", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "Embedder":
        from llmrs.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
