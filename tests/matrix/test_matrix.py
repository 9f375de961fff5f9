"""Every change of every file of a model's folder: the vectors of sentence-transformers, or a refusal.

MATRIX_SHARE says how many of the changes are tried, from 0 to 1; the same ones every time. What was once
found wrong is always tried, and so is what differs on purpose.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from llmrs.models.resolve import DEFAULT_MODEL, resolve
from tests.matrix.compare import Matrix, Oracle, Ours, Verdict, difference, judge, oracle, summary
from tests.matrix.mutations import Case, cases
from tests.models.oracles import PYTHON
from tests.processes import ROOT, missing

PLACE = Path(__file__).parent
SHARE = float(os.environ.get("MATRIX_SHARE", "0.002"))

INTENDED: list[dict[str, str]] = json.loads((PLACE / "intended.json").read_text(encoding="utf-8"))
"""What differs on purpose: `case` matches names of cases, of which `example` is one, and `words` those of the
verdict."""

FOUND = frozenset((PLACE / "found.txt").read_text(encoding="utf-8").splitlines())
"""What was wrong once."""

FIRST_OF_CLASS = (
    "default",
    "bert",
    "albert",
    "camembert",
    "gemma3",
    "modernbert",
    "mpnet",
    "qwen3",
    "roberta",
    "xlm-roberta",
)
"""Models whose tokenizer.json is changed: others' are of the same classes."""

MODELS = (
    *FIRST_OF_CLASS,
    "distilbert",
    "electra",
    "gemma3-causal",
    "gte",
    "modernbert-published",
    "nomic",
    "qwen3-windows",
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of all models. Without the oracle's environment: a failure under CI, else a skip."""
    if not PYTHON.exists():
        missing("the environment of transformers is missing: make .venv-oracles/installed")
    place = tmp_path_factory.mktemp("matrix")
    done = subprocess.run(
        [PYTHON, "-m", "tests.matrix.models", place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    made = {folder.name: folder / "model" for folder in place.iterdir()}
    return {"default": resolve(DEFAULT_MODEL, offline=True), **made}


@pytest.fixture(scope="session")
def theirs() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_a_changed_folder_has_its_vectors_or_is_refused(
    model: str, folders: dict[str, Path], theirs: Oracle, tmp_path: Path
) -> None:
    folder, ours = folders[model], Ours()
    unchanged = same_as_theirs(folder, ours, theirs)
    verdicts = []
    for case in chosen(model, folder):
        verdict = judge(case, folder, tmp_path / "changed", ours, theirs, unchanged)
        verdicts.append(verdict)
    print(f"{model}: {len(verdicts)} changes, {summary(verdicts)}")
    wrong = [each for each in verdicts if not each.is_good and not intended(each)]
    assert not wrong, "\n" + "\n".join(f"{each.kind}: {each.case.name}: {each.words}" for each in wrong)
    stale = [each.case.name for each in verdicts if each.kind == "equal" and is_example(each.case)]
    assert not stale, f"no difference any more, take them from intended.json: {stale}"


def same_as_theirs(folder: Path, ours: Ours, theirs: Oracle) -> Matrix:
    mine, expected = ours(folder), theirs(folder)
    assert mine.matrix is not None, mine.error
    assert expected.matrix is not None, expected.error
    assert difference(mine.matrix, expected.matrix) == ""
    return mine.matrix


def chosen(model: str, folder: Path) -> list[Case]:
    """The changes that are tried. Those of the tables must be among all that there are."""
    every = cases(model, folder, tokenizer=model in FIRST_OF_CLASS)
    always = {name for name in FOUND | {each["example"] for each in INTENDED} if name.startswith(f"{model} ")}
    assert always <= {case.name for case in every}, sorted(always - {case.name for case in every})
    return [case for case in every if case.name in always or case.draw < SHARE]


def intended(verdict: Verdict) -> bool:
    return any(
        fnmatchcase(verdict.case.name, pattern(each["case"]))
        and fnmatchcase(verdict.words, pattern(each.get("words", "*")))
        for each in INTENDED
    )


def is_example(case: Case) -> bool:
    return any(case.name == each["example"] for each in INTENDED)


def pattern(case: str) -> str:
    """Only `*` has a meaning."""
    return case.replace("[", "[[]").replace("?", "[?]")


def test_the_table_of_differences_gives_reasons() -> None:
    for each in INTENDED:
        assert fnmatchcase(each["example"], pattern(each["case"]))
        assert len(each["reason"]) > len("The same.") - 1


def test_a_difference_is_seen(folders: dict[str, Path], theirs: Oracle, tmp_path: Path) -> None:
    """The comparison itself: llmrs is given another folder than sentence-transformers."""

    class Blind(Ours):
        def __call__(self, folder: Path, *, weights_changed: bool = False) -> object:  # type: ignore[override]
            return super().__call__(folders["bert"])

    ours = Blind()
    unchanged = same_as_theirs(folders["bert"], Ours(), theirs)
    kinds = {}
    for where, value in (
        ("layer_norm_eps", 0.1),
        ("hidden_act", "relu"),
        ("num_hidden_layers", 2),
        ("vocab_size", 7),
    ):
        case = Case("bert", "config.json", (where,), value)
        verdict: Verdict = judge(case, folders["bert"], tmp_path / "changed", ours, theirs, unchanged)
        kinds[where] = verdict.kind
    assert kinds == {
        "layer_norm_eps": "different",
        "hidden_act": "different",
        "num_hidden_layers": "different",
        "vocab_size": "lenient",
    }
