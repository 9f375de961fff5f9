"""Everything that is changed in a model's folder, as data: which file, where in it, and to what.

What is changed follows from the folder itself: every key of every JSON file, at any depth, is removed, set
to null, to another type, to other values of its type, and to those of `values`; every object gets keys that
it did not have. A vocabulary is too long for that: of long lists and tables only the first few entries are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.matrix.extra import EXTRA
from tests.matrix.values import TYPES, VALUES

FEW = 2
"""Entries of a long list or table that are changed."""

LONG = 100
"""Entries of a list or table that is too long for all to be changed."""

UNKNOWN = "unknown_key"

GONE = "gone"


class Case(NamedTuple):
    """One change.

    Attributes:
        model: the name of the folder that is changed.
        file: relative to it.
        where: keys and indices that lead to the value.
        value: what it is set to; ignored where `gone`.
        gone: whether it is removed instead. Without `where` the whole file is.
    """

    model: str
    file: str
    where: tuple[str | int, ...]
    value: Any = None
    gone: bool = False

    @property
    def name(self) -> str:
        """What it is called everywhere: in the table of differences, in messages."""
        place = ".".join(map(str, self.where))
        value = (
            GONE
            if self.gone
            else self.value
            if isinstance(self.value, Raw)
            else json.dumps(self.value, ensure_ascii=False)
        )
        return f"{self.model} {self.file} {place}={value}"

    @property
    def draw(self) -> float:
        """A number from 0 to 1 that is as good as drawn at random, and always the same."""
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big") / 2**64


class Raw(str):
    """The bytes of a whole file, as text."""


# -- changing a folder ----------------------------------------------------------------------------


def apply(case: Case, source: Path, target: Path) -> None:
    """Make a folder with one change. Files that are not changed are linked."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=_link)
    path = target / case.file
    if not case.where:
        path.unlink(missing_ok=True)
        if not case.gone:
            path.parent.mkdir(exist_ok=True)
            path.write_text(case.value if isinstance(case.value, Raw) else json.dumps(case.value))
        return
    values = json.loads(path.read_bytes())
    path.unlink()
    path.write_text(json.dumps(changed(values, case), ensure_ascii=False))


def changed(values: Any, case: Case) -> Any:
    """The value of a JSON file with one change."""
    inner = values
    for step in case.where[:-1]:
        inner = inner[step]
    if case.gone:
        del inner[case.where[-1]]
    elif isinstance(inner, list) and case.where[-1] == len(inner):
        inner.append(case.value)
    else:
        inner[case.where[-1]] = case.value
    return values


def _link(source: str, target: str) -> None:
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:  # another file system
        os.symlink(real, target)


# -- what is changed ------------------------------------------------------------------------------


def cases(model: str, folder: Path, *, tokenizer: bool = True) -> list[Case]:
    """All changes of a folder, each once; those of its tokenizer.json only if they are asked for."""
    found: dict[str, Case] = {}
    for case in _all(model, folder):
        if tokenizer or case.file != "tokenizer.json":
            found.setdefault(case.name, case)
    return list(found.values())


def _all(model: str, folder: Path) -> Iterator[Case]:
    files = sorted(
        path for path in folder.rglob("*.json") if path.name not in ("vocab.json", "data_config.json")
    )
    for path in files:
        file = path.relative_to(folder).as_posix()
        values = json.loads(path.read_bytes())
        yield from _whole(model, file)
        yield from _extra(model, file, values, path)
        for where, value in _walk(values, ()):
            yield Case(model, file, where, gone=True)
            for other in _others(file, str(where[-1]), value):
                yield Case(model, file, where, other)
            if isinstance(value, dict):
                yield Case(model, file, (*where, UNKNOWN), 1)
        if isinstance(values, dict):
            yield Case(model, file, (UNKNOWN,), 1)
    yield from _added(model, folder)


def _walk(value: Any, where: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each value inside, and where it is."""
    if isinstance(value, dict):
        entries: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    else:
        return
    for key, inner in entries if len(entries) <= LONG else entries[:FEW]:
        yield (*where, key), inner
        yield from _walk(inner, (*where, key))


def _others(file: str, key: str, value: Any) -> Iterator[Any]:
    """Other values than this one."""
    known = TYPES if key == "type" and file == "tokenizer.json" else VALUES.get(key, [])
    for other in [None, *_generic(value), *known]:
        if json.dumps(other) != json.dumps(value):
            yield other


def _generic(value: Any) -> list[Any]:
    """Of other types, and others of its own."""
    if isinstance(value, bool):
        return [not value, int(value), "other", str(value).lower()]
    if isinstance(value, int):
        return [value + 1, 0, -1, float(value), str(value), True, [value]]
    if isinstance(value, float):
        return [value * 10, 0.0, -1.0, str(value), True]
    if isinstance(value, str):
        return [
            "other",
            "",
            7,
            value.upper() if value != value.upper() else value.lower(),
            [value],
            {"content": value},
        ]
    if isinstance(value, list):
        return (
            [[], value[:1], value[::-1], [*value, "other"], {}, "other", 0]
            if len(value) <= LONG
            else [[], value[:FEW]]
        )
    if isinstance(value, dict):
        return [{}, [], "other", 0] if len(value) <= LONG else [{}]
    return [0, 1, 16, True, False, "other", [], {}]


def _whole(model: str, file: str) -> Iterator[Case]:
    yield Case(model, file, (), gone=True)
    for value in ({}, [], None, 7):
        yield Case(model, file, (), value)
    for text in ("", "{", "\ufeff{}", "[{}]", "NaN"):
        yield Case(model, file, (), Raw(text))


def _extra(model: str, file: str, values: Any, path: Path) -> Iterator[Case]:
    kind = path.parent.name.partition("_")[2] if path.name == "config.json" else ""
    for key, others in EXTRA.get(kind or path.name, {}).items():
        for other in others:
            if isinstance(values, dict):
                if json.dumps(values.get(key, UNKNOWN)) != json.dumps(other):
                    yield Case(model, file, (key,), other)
            elif isinstance(values, list):
                for index in range(len(values)):
                    yield Case(model, file, (index, key), other)


def _added(model: str, folder: Path) -> Iterator[Case]:
    """Files that were not there."""
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": "other/name",
        "r": 4,
        "target_modules": ["query"],
    }
    sentences = {"max_seq_length": 4, "do_lower_case": False}
    new = {
        "adapter_config.json": [adapter],
        "adapter_model.safetensors": [Raw("x")],
        "generation_config.json": [{"max_length": 4}, {}],
        "special_tokens_map.json": [{"unk_token": "the"}, {"cls_token": "the"}, {"sep_token": "the"}, {}],
        "added_tokens.json": [{"the": 5}, {"<new>": 9999}, {}],
        "tokenizer_config.json": [{}],
        "config_sentence_transformers.json": [{"prompts": {"query": "q: "}, "default_prompt_name": "query"}],
        "sentence_bert_config.json": [sentences],
        "sentence_roberta_config.json": [sentences],
        "sentence_distilbert_config.json": [sentences],
        "sentence_camembert_config.json": [sentences],
        "sentence_albert_config.json": [sentences],
        "sentence_xlm-roberta_config.json": [sentences],
        "sentence_xlnet_config.json": [sentences],
        "sentence_mpnet_config.json": [sentences],
        "preprocessor_config.json": [{"do_resize": True}],
        "processor_config.json": [{"processor_class": "Other"}],
        "video_preprocessor_config.json": [{}],
        "chat_template.json": [{"chat_template": "{{ messages }}"}],
        "chat_template.jinja": [Raw("{{ messages }}")],
        "vocab.txt": [Raw("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\na\n")],
        "vocab.json": [{"a": 0, "b": 1}],
        "merges.txt": [Raw("#version: 0.2\na b\n")],
        "spiece.model": [Raw("x")],
        "sentencepiece.bpe.model": [Raw("x")],
        "tokenizer.model": [Raw("x")],
        "router_config.json": [{"types": {}}],
        "quantize_config.json": [{"bits": 4}],
        "params.json": [{}],
        "tekken.json": [{}],
        "model.safetensors.index.json": [{"metadata": {}, "weight_map": {}}],
        "pytorch_model.bin": [Raw("x")],
        "modeling.py": [Raw("raise SystemExit\n")],
        "1_Pooling/model.safetensors": [Raw("x")],
        "1_Pooling/config.json": [{}],
        "2_Normalize/config.json": [{"module_input_name": "token_embeddings"}],
        "0_Transformer/config.json": [{"model_type": "roberta"}],
        "modules.json": [{}],
        "README.md": [Raw("---\nlibrary_name: transformers\n---\n")],
    }  # fmt: skip
    for file, values in new.items():
        for value in values:
            yield Case(model, file, (), value)
    for path in folder.rglob("*"):
        file = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.endswith((".json", ".safetensors", ".gitattributes")):
            yield Case(model, file, (), gone=True)
            yield Case(model, file, (), Raw(""))
