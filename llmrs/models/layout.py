"""Which files of a folder belong together, and what is refused because of a file that is there.

A folder without `modules.json` is a bare Hugging Face encoder, to which sentence-transformers adds its
default modules, whatever else the folder has. Where that would leave out something that the folder says, it
is refused.
"""

from __future__ import annotations

from pathlib import Path

from llmrs.errors import ModelError
from llmrs.models.code import read_classes
from llmrs.models.settings import Settings, read_settings
from llmrs.models.transformer import TRANSFORMER_SETTINGS

MODULES = "modules.json"
SENTENCES = "config_sentence_transformers.json"

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def is_bare(root: Path) -> bool:
    """Whether the folder is of an encoder alone."""
    return not (root / MODULES).exists()


def check_layout(root: Path, place: Path) -> None:
    """Check the names of the files in a model's folder and in its encoder's.

    Raises:
        ModelError: there is an adapter, or the list of modules is missing.
    """
    for folder in (place, root):
        for name in ADAPTERS:
            if (folder / name).exists():
                raise ModelError(
                    f"{folder / name}: adapters are not supported, merge it into its model's weights"
                )
    if is_bare(root):
        _check_bare(root)


def default_pooling(config: Settings) -> str:
    """How sentence-transformers pools the encoder of a bare folder.

    Models that were made to write text are pooled by their last token, unless they see both ways.
    """
    classes = read_classes(config)
    writes = bool(classes) and classes[0].endswith("ForCausalLM")
    causal = config.flag("is_causal", default=not config.is_null("is_causal"))
    return "lasttoken" if writes and causal else "mean"


def _check_bare(root: Path) -> None:
    left = [name for name in (SENTENCES, *TRANSFORMER_SETTINGS) if (root / name).exists()]
    left += sorted(f"{path.parent.name}/{path.name}" for path in root.glob("[0-9]_*/config.json"))
    if left:
        raise ModelError(
            f"{root / MODULES} is missing, although {left[0]} is there: download the model again"
        )
    tokenizer = read_settings(root / "tokenizer_config.json", optional=True)
    named = [name for name in CHAT_TEMPLATES if (root / name).exists()]
    if named or tokenizer.raw("chat_template"):
        where = named[0] if named else "tokenizer_config.json"
        raise ModelError(
            f"{root / where}: chat_template would make a chat of every text, since {MODULES} is missing; add "
            "that file, or remove the template"
        )
