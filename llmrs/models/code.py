"""What a folder says of code that its model was published with, and which such models are built all the same.

No code of a folder is run. A model whose code computes something else than the class that transformers has
would get other vectors than its authors mean, so `auto_map` is refused but for the families that are built
after their published code. The names of classes in `architectures` are looked at for the same reason.
"""

from __future__ import annotations

import re

from llmrs.errors import ModelError
from llmrs.models.settings import Settings

PUBLISHED_CODE = {
    "bert": r"(jinaai/jina-bert-implementation--)?(configuration|modeling)_bert\.JinaBert\w+",
    "gte": r"(configuration|modeling)_hf_alibaba_nlp_gte\.Gte\w+",
    "new": r"(Alibaba-NLP/new-impl--)?(configuration|modeling)\.New\w+",
    "nomic_bert": r"(nomic-ai/[\w.-]+--)?(configuration|modeling)_hf_nomic_bert\.NomicBert\w+",
}
"""By `model_type`, the values of `auto_map` of models that are built as that code computes them."""

HEADS = r"(Model|LMHeadModel|For[A-Z]\w*)"
"""How the name of a class goes on after its family's: what is on top of the encoder is never computed."""

CLASSES = {
    "gemma3_text": r"Gemma3(Text)?",
    "gte": r"(Gte|New)",
    "modernbert": r"ModernBert",
    "new": r"(Gte|New)",
    "nomic_bert": r"NomicBert",
    "qwen3": r"Qwen3",
}
"""How the names of a family's classes begin."""

BERT_CLASSES = r"(Bert|JinaBert|Roberta|XLMRoberta|Camembert|DistilBert|MPNet|Albert|Electra)"
"""Of the others, which are saved under each other's names."""


def check_code(config: Settings) -> None:
    """Check `auto_map`.

    Raises:
        ModelError: it names code that is not known to compute what is built here.
    """
    named = config.object("auto_map").values
    pattern = PUBLISHED_CODE.get(str(config.raw("model_type")), "")
    for key, value in named.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not re.fullmatch(pattern, str(each)):
                raise ModelError(
                    f"{config.path}: auto_map.{key[:40]} = {str(each)[:80]!r} is code of the model's own, "
                    "which is never run; serve this model elsewhere and set BACKEND_URL"
                )


def check_classes(config: Settings) -> None:
    """Check `architectures`. Raises ModelError: a class is none of the family's."""
    kind = str(config.raw("model_type"))
    for name in read_classes(config):
        if not re.fullmatch(CLASSES.get(kind, BERT_CLASSES) + HEADS, name):
            raise ModelError(
                f"{config.path}: architectures = {name[:60]!r} is no class of transformers for {kind[:40]!r}"
                ", so what it computes is not known"
            )


def read_classes(config: Settings) -> list[str]:
    """The classes that `architectures` names. Raises ModelError: it is no list of names."""
    names = config.raw("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{config.path}: architectures is not a list of names")
    return names
