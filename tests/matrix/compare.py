"""One changed folder in both, and what is to be said about it."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmrs.backends.local import LocalBackend
from llmrs.errors import ConfigError, InvalidRequest, ModelError
from llmrs.prompts import choose_prompt
from tests.matrix.mutations import Case, apply
from tests.matrix.texts import QUERY, TEXTS
from tests.models.oracles import PYTHON
from tests.processes import ROOT

SECONDS = 120.0
"""What the oracle may take for a folder."""

LEAST_COSINE = 0.99999
GREATEST_DIFFERENCE = 2e-5
"""As a share of the largest number."""

Matrix = np.ndarray[Any, Any]


class Answer(NamedTuple):
    """Vectors of all texts, a query and a document, one a row; or why there are none.

    Attributes:
        crashed: the error is none that says what is wrong with the folder.
    """

    matrix: Matrix | None
    error: str = ""
    crashed: bool = False


class Verdict(NamedTuple):
    """What both made of a folder.

    Attributes:
        kind: `equal`; `refused`, by llmrs; `lenient`: sentence-transformers refuses, and the vectors are
            those of the unchanged folder; `made up`: it refuses, and they are others; `different`; `crashed`.
        words: details for a person.
    """

    case: Case
    kind: str
    words: str = ""

    @property
    def is_good(self) -> bool:
        return self.kind in ("equal", "refused", "lenient")


class Oracle:
    """sentence-transformers in a process of its own, which is started again when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, folder: Path) -> Answer:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.close()
            return Answer(None, "it died" if ready else "it hung", crashed=True)
        answer = json.loads(line)
        if "error" in answer:
            return Answer(None, answer["error"])
        return Answer(np.array([*answer["texts"], *answer["query"], *answer["document"]], np.float64))

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [PYTHON, "-m", "tests.matrix.oracle"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "OMP_NUM_THREADS": "1",
            },
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def oracle() -> Iterator[Oracle]:
    made = Oracle()
    try:
        yield made
    finally:
        made.close()


class Ours:
    """llmrs. Computes nothing twice: what a folder means and its texts' tokens decide the vectors."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Matrix] = {}

    def __call__(self, folder: Path, *, weights_changed: bool = False) -> Answer:
        try:
            return Answer(self._matrix(folder, weights_changed))
        except (ModelError, ConfigError, InvalidRequest) as error:
            return Answer(None, str(error))
        except BaseException as error:  # panics of tokenizers are no Exceptions
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return Answer(None, f"{type(error).__name__}: {error}"[:500], crashed=True)

    def _matrix(self, folder: Path, weights_changed: bool) -> Matrix:
        backend = LocalBackend(str(folder), dtype="f32", threads=1, offline=True, on_demand=True)
        prepared = []
        for texts, kind in ((TEXTS, None), ((QUERY,), "query"), ((QUERY,), "document")):
            prompt = choose_prompt(backend.info.prompts, None, kind)
            prepared += backend.prepare(texts, truncate=backend.info.truncation_side, prompt=prompt)
        meaning = repr(backend.folder).replace(str(folder.resolve()), "").replace(str(folder), "")
        key = (meaning, repr([each.payload.tolist() for each in prepared]))
        if key not in self._known or weights_changed:
            backend.load()
            found = backend.embed(prepared, timeout=SECONDS).matrix.astype(np.float64)
            if weights_changed:
                return found
            self._known[key] = found
        return self._known[key]


def judge(case: Case, folder: Path, work: Path, ours: Ours, theirs: Oracle, unchanged: Matrix) -> Verdict:
    """Make the changed folder at `work`, and compare. What is refused here needs no oracle."""
    apply(case, folder, work)
    mine = ours(work, weights_changed=".safetensors" in case.file)
    if mine.matrix is None:
        return Verdict(case, "crashed" if mine.crashed else "refused", mine.error)
    expected = theirs(work)
    if expected.matrix is None:
        kind = "lenient" if difference(mine.matrix, unchanged) == "" else "made up"
        return Verdict(case, kind, expected.error)
    words = difference(mine.matrix, expected.matrix)
    return Verdict(case, "different" if words else "equal", words)


def difference(found: Matrix, expected: Matrix) -> str:
    """How far two matrices are apart; empty if they are the same."""
    if found.shape != expected.shape:
        return f"shape {found.shape} for {expected.shape}"
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return "not finite"
    finite = np.isfinite(expected).all(axis=1)
    a, b = found[finite], expected[finite]
    if not len(a):
        return ""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(lengths, lengths, 1)
    far = np.abs(a - b).max() > GREATEST_DIFFERENCE * np.abs(b).max()
    if cosines.min() >= LEAST_COSINE and not far:
        return ""
    rows = [index for index, cosine in enumerate(cosines) if cosine < LEAST_COSINE]
    return f"cosine {cosines.min():.4f} in rows {rows}, difference {np.abs(a - b).max():.2g}"


def summary(verdicts: list[Verdict]) -> str:
    return ", ".join(
        f"{count} {kind}" for kind, count in Counter(each.kind for each in verdicts).most_common()
    )
