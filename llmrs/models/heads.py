"""Tensors that a file of weights may hold besides those that are computed with.

Published encoders carry the heads that they were trained with, and buffers that older versions stored. No
vector depends on these. Any other tensor may be a projection, an adapter, the scales of quantized weights or
a layer of another architecture, so it ends the start: a model computed without it would be another one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

BUFFERS = r"(.*\.)?(position_ids|token_type_ids|inv_freq|original_inv_freq)"
"""What older versions stored, and can be made anew."""

POOLER = r"pooler\..*"
"""A layer above the first token, whose result is asked for by no Pooling."""

HEADS = (
    r"(cls|classifier|decoder|discriminator_predictions|generator_lm_head|generator_predictions|head|lm_head"
    r"|lm_loss|lm_predictions|logits_proj|mask_predictions|mlm_head|pre_classifier|predictions|qa_outputs|score"
    r"|seq_relationship|sop_classifier|sequence_summary|vocab_layer_norm|vocab_projector|vocab_transform)\..*"
)
"""Of masked words, next words, classes and answers; they are beside the encoder."""


def unknown_tensors(names: Iterable[str], used: Collection[str], prefix: str) -> list[str]:
    """Those of a file's tensors that are neither used nor known to be of no account, in their order.

    A configuration may use fewer layers than there are: the further ones are known by the others' names.

    Args:
        names: of all tensors.
        used: of those that are computed with.
        prefix: what stands before the encoder's own.
    """
    patterns = {_without_number(name) for name in used}
    return [
        name
        for name in names
        if name not in used and not is_head(name, prefix) and _without_number(name) not in patterns
    ]


def is_head(name: str, prefix: str = "") -> bool:
    """Whether no vector depends on the tensor of that name."""
    if re.fullmatch(f"{BUFFERS}|{HEADS}|{POOLER}", name):
        return True
    return name.startswith(prefix) and re.fullmatch(f"{BUFFERS}|{POOLER}", name[len(prefix) :]) is not None


def _without_number(name: str) -> str:
    """A tensor's name without that of its layer."""
    return re.sub(r"\.\d+\.", ".N.", name, count=1)
