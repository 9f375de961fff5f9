"""Settings that hold for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The gate judges a change, so it tries the same examples every time; everybody else looks for new ones.
# Nobody is judged by the clock: the machine may have other work.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("local")
if os.environ.get("CI"):
    settings.load_profile("gate")
