"""The kernel variants that can be tested on this machine.

Where the CPU has no AVX-512, its algorithms run without the instructions, as `avx512_emulated`: their
source is the same. Those of AVX2 are written in its instructions, which x86-64 servers have.
"""

from __future__ import annotations

import platform

from llmrs import _fast

X86 = platform.machine() == "x86_64"

VARIANTS = ["avx512" if "avx512" in _fast.kernel_names() else "avx512_emulated", "avx2", "baseline"]
if not X86:
    VARIANTS = ["baseline"]

EVERY_VARIANT = [*_fast.kernel_names(), *(["avx512_emulated"] if X86 else [])]
"""For tests that compare them: the emulated one also beside the real one."""
