"""Which tokenizer class transformers has for each type of model, and which it builds in ways of their own.

Run as a program in the environment that has transformers; writes `classes.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS as STRICT,
)
from transformers.models.auto.tokenization_auto import (
    TOKENIZER_MAPPING_NAMES,
    tokenizer_class_from_name,
)


def is_built(name: str) -> bool:
    """Whether a class is there, and is not the one that takes tokenizer.json as it is."""
    try:
        found = tokenizer_class_from_name(name)
    except ImportError:
        return True
    return found is not None and getattr(found, "__name__", "") not in ("TokenizersBackend", "PythonBackend")


def main(place: Path) -> None:
    registered = {kind: name.removesuffix("Fast") for kind, name in TOKENIZER_MAPPING_NAMES.items() if name}
    classes = {
        "registered": registered,
        "strict": sorted(STRICT),
        "built": [name for name in sorted({*registered.values()}) if is_built(name)],
    }
    (place / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
