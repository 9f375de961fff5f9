"""What backends speak, one file a protocol; `base` has the rules that all keep.

To add one: a file here, a line below, one in `discovery`, one in `options` of `config`, and its row in
the table of docs/backends.md, which the tests compare.
"""

from llmrs.backends.protocols.base import Protocol, Reply
from llmrs.backends.protocols.embed import Embed
from llmrs.backends.protocols.ollama import Ollama
from llmrs.backends.protocols.openai import Azure, OpenAI
from llmrs.backends.protocols.tei import TEI

__all__ = ["TEI", "Azure", "Embed", "Ollama", "OpenAI", "Protocol", "Reply"]
