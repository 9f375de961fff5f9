"""Local models: find a model's folder, read it, and turn it into something that embeds.

`resolve` finds the folder, `folder` reads it, `tokenize` turns texts into token ids, `graph` and
`engine` turn token ids into vectors. Each heavy library is imported by the one or two modules that
wrap it, and nothing here is imported before a local model is asked for. No code from a model's
folder is ever run.
"""

import sys

# Importing openvino sends usage data, from a process it forks for that: the fork of a server's
# worker goes on as a second worker. openvino does without the package where it is not importable.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
