"""Settings that hold for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The gate judges a change, so it tries the same examples every time; everybody else looks for new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")
