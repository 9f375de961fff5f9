"""Token ids that transformers gives to texts, for many folders in one process.

Run as a program in the environment that has transformers: `cases.json` lists folders, `texts.json` texts;
`ids.json` gets, for each folder, the ids of each text, or a word where transformers cannot load it or fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def ids_of(folder: str, texts: list[str]) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return [tokenizer(text, truncation=False)["input_ids"] for text in texts]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]


def main(place: Path) -> None:
    texts = json.loads((place / "texts.json").read_text(encoding="utf-8"))
    cases = json.loads((place / "cases.json").read_text(encoding="utf-8"))
    answers = {name: ids_of(str(place / name), texts) for name in cases}
    (place / "ids.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
