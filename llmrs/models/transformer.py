"""What a folder says of its Transformer module: how texts are cut and lowercased, and nothing else.

sentence-transformers writes these settings to `sentence_bert_config.json`, older versions to files named
after other encoders. The first that says anything counts. A bare encoder, without `modules.json`, has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmrs.models.module_keys import TRANSFORMER
from llmrs.models.rules import check_keys
from llmrs.models.settings import Settings, read_settings

TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class TransformerSettings:
    """What happens to a text before the encoder.

    Attributes:
        longest: the most tokens, special tokens included; None where the tokenizer's own limit counts.
        lowercase: whether texts are lowercased before anything else.
    """

    longest: int | None = None
    lowercase: bool = False


def read_transformer(folder: Path) -> TransformerSettings:
    """The settings in the folder of an encoder.

    Raises:
        ModelError: a key is not known or cannot be obeyed; names the file, the key and the value.
    """
    settings = _first_that_says_anything(folder)
    check_keys(settings, TRANSFORMER)
    return TransformerSettings(_longest(settings), settings.flag("do_lower_case", default=False))


def _first_that_says_anything(folder: Path) -> Settings:
    for name in TRANSFORMER_SETTINGS:
        settings = read_settings(folder / name, optional=True)
        if settings.values:
            return settings
    return Settings(folder / TRANSFORMER_SETTINGS[0], {})


def _longest(settings: Settings) -> int | None:
    """What is said where a text is tokenized counts before what is said where the tokenizer is loaded."""
    call = settings.object("processing_kwargs").object("text")
    if "max_length" in call:
        return call.integer("max_length")
    for name in ("processor_kwargs", "tokenizer_args"):
        loading = settings.object(name)
        if "model_max_length" in loading:
            return loading.integer("model_max_length")
    return settings.integer("max_seq_length") if "max_seq_length" in settings else None
