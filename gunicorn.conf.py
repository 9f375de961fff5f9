"""Settings for plain `gunicorn`, without arguments, in this folder: the same server as `llmrs serve`.

They are made in llmrs/server/process.py from config.toml and the environment. Names here begin
with an underscore unless they are gunicorn's own: gunicorn takes every public name in this file
for a setting and says nothing about those it does not know.
"""

import sys as _sys

from llmrs.config import load as _load
from llmrs.errors import StartupError as _StartupError
from llmrs.server.process import gunicorn_settings as _gunicorn_settings

try:
    globals().update(_gunicorn_settings(_load()))
except _StartupError as _error:
    print(f"llmrs: error: {_error}", file=_sys.stderr)
    _sys.exit(_error.exit_code)

wsgi_app = "llmrs.server.app:get_app()"
