"""Every test that asks for `kernels` runs on each kernel variant; only what the CPU lacks is skipped."""

from __future__ import annotations

import pytest

from llmrs import _fast
from tests.wire.variants import EVERY_VARIANT, VARIANTS


@pytest.fixture(params=VARIANTS)
def kernels(request):
    if request.param not in EVERY_VARIANT:
        pytest.skip(f"this CPU or compiler has no {request.param}")
    before = _fast.kernel_name()
    _fast.use_kernels(request.param)
    yield request.param
    _fast.use_kernels(before)
