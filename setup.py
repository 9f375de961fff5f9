"""Build the compiled kernels, `llmrs._fast`; everything else stands in pyproject.toml.

The extension is mandatory: there is no pure-Python twin to fall back to, so a build that cannot
compile it fails here and not later under load. Two environment variables change the build:

    LLMRS_SANITIZE=address,undefined   compile with these sanitisers (preload the runtime to use it)
    LLMRS_DEBUG=1                      no optimisation, with assertions and line numbers
"""

from __future__ import annotations

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

compile_args = ["-std=c++17", "-fno-exceptions", "-fvisibility=hidden"]
link_args: list[str] = []

if os.environ.get("LLMRS_DEBUG"):
    compile_args += ["-O0", "-g"]
else:
    # Not -ffast-math: the finite check and the sign of zero depend on IEEE arithmetic.
    compile_args += ["-O3", "-DNDEBUG"]

if sanitizers := os.environ.get("LLMRS_SANITIZE"):
    sanitize = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
    compile_args += sanitize
    link_args += sanitize

setup(
    ext_modules=cythonize(
        [
            Extension(
                "llmrs._fast",
                ["llmrs/_fast.pyx"],
                depends=glob("llmrs/_fast_*.hpp"),
                language="c++",
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
        ],
        compiler_directives={"language_level": "3"},
    )
)
