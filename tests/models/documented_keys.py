"""The tables of keys as docs/models.md shows them. Run as a program, it writes them there."""

from __future__ import annotations

import json
from collections.abc import Iterator

from llmrs.models import config_keys, module_keys
from llmrs.models.rules import Rule, Table
from tests.processes import ROOT

DOCUMENT = ROOT / "docs/models.md"
BEGIN, END = "<!-- keys: written by tests/models/documented_keys.py -->\n", "<!-- end of keys -->\n"

FILES: dict[str, Table] = {
    "`modules.json`, each entry": module_keys.MODULES,
    "`sentence_bert_config.json`": module_keys.TRANSFORMER,
    "`config_sentence_transformers.json`": module_keys.SENTENCE_TRANSFORMERS,
    "Pooling": module_keys.POOLING,
    "Dense": module_keys.DENSE,
    "LayerNorm": module_keys.LAYER_NORM,
    "Normalize": module_keys.NORMALIZE,
    "Dropout": module_keys.DROPOUT,
    "`config.json` of model2vec": module_keys.MODEL2VEC,
    "`config.json`, all families": config_keys.COMMON,
}


def leaves(table: Table, above: str = "") -> Iterator[tuple[str, Rule]]:
    """Every key of a table, those of objects inside it by their whole names."""
    for key, rule in table.items():
        if rule.table is None:
            yield above + key, rule
        else:
            yield from leaves(rule.table, f"{above}{key}.")


def row(name: str, table: Table) -> str:
    """What a table says of a file, in three columns."""
    obeyed, limited, ignored = [], [], []
    for key, rule in leaves(table):
        if rule.ignored:
            ignored.append(f"`{key}`")
        elif rule.values is None:
            obeyed.append(f"`{key}`")
        else:
            values = " or ".join(f"`{json.dumps(value)}`" for value in rule.values) or "`null`"
            limited.append(f"`{key}`: {values}")
    return f"| {name} | {', '.join(obeyed)} | {'; '.join(limited)} | {', '.join(ignored)} |\n"


def families() -> Iterator[tuple[str, Table]]:
    """Each family, and the keys that it has besides those of all."""
    names: dict[int, list[str]] = {}
    tables = {**config_keys.FAMILIES, "bert` with `alibi": config_keys.JINA}
    for kind, table in tables.items():
        names.setdefault(id(table), []).append(f"`{kind}`")
    for kind, table in tables.items():
        if f"`{kind}`" == names[id(table)][0]:
            own = {key: rule for key, rule in table.items() if config_keys.COMMON.get(key) != rule}
            yield ", ".join(names[id(table)]), own


def block() -> str:
    """The table, between its marks."""
    head = "| file | obeyed | with these values only | of no account |\n|---|---|---|---|\n"
    rows = [row(name, table) for name, table in (*FILES.items(), *families())]
    return BEGIN + head + "".join(rows) + END


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(before + block() + rest.partition(END)[2], encoding="utf-8")
