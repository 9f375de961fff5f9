"""Makes variants of small model folders, and their vectors with sentence-transformers. See test_variants.py.

Run as a program, like `families`. For each variant a folder `NAME/model`, and beside it `alone.npy`, the
vectors of `texts.json` of the folder above, each text encoded alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from tests.models.families import CASES, WORDS, make
from tests.models.makers import change_json, write_json

LENGTHS = (1, 3, 8, 20, 60)
"""Words of the texts."""


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **changes)


def sentence(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "sentence_bert_config.json", settings)


def bare(**changes: Any) -> Callable[[Path], None]:
    """What `AutoModel` leaves, with changes of config.json."""

    def change(folder: Path) -> None:
        for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
            (folder / name).unlink()
        for place in folder.glob("[0-9]_*"):
            shutil.rmtree(place)
        change_json(folder / "config.json", **changes)

    return change


def with_tensors(prefix: str = "", *others: str) -> Callable[[Path], None]:
    """The weights in one file, with a prefix before each name, and with others beside them."""

    def change(folder: Path) -> None:
        tensors = {}
        for file in sorted(folder.glob("model*.safetensors*")):
            if file.suffix == ".safetensors":
                tensors |= load_file(file)
            file.unlink()
        named = {prefix + name: tensor for name, tensor in tensors.items()}
        heads = {name: torch.ones(3, 3) for name in others}
        save_file({**named, **heads}, folder / "model.safetensors", metadata={"format": "pt"})

    return change


class Variant(NamedTuple):
    """A folder of `families`, changed."""

    case: str
    change: Callable[[Path], None]


VARIANTS = {
    "bare-bert": Variant("bert", bare()),
    "bare-masked": Variant("bert", bare(architectures=["BertForMaskedLM"])),
    "bare-causal": Variant("qwen3", bare(architectures=["Qwen3ForCausalLM"])),
    "bare-causal-both-ways": Variant("qwen3", bare(architectures=["Qwen3ForCausalLM"], is_causal=False)),
    "bare-qwen3": Variant("qwen3", bare(architectures=["Qwen3Model"])),
    "both-ways": Variant("qwen3", config(is_causal=False)),
    "head-of-keys": Variant("qwen3-windows", config(sliding_window=None, layer_types=None)),
    "call-length": Variant(
        "bert", sentence(max_seq_length=40, processing_kwargs={"text": {"max_length": 7}})
    ),
    "loading-length": Variant("bert", sentence(max_seq_length=40, processor_kwargs={"model_max_length": 9})),
    "as-written-by-6.2": Variant(
        "bert",
        sentence(
            transformer_task="feature-extraction",
            modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            module_output_name="token_embeddings",
        ),
    ),
    "settings-of-another-name": Variant(
        "bert",
        lambda folder: (
            write_json(folder / "sentence_bert_config.json", {}),
            write_json(folder / "sentence_roberta_config.json", {"max_seq_length": 11}),
        ),
    ),
    "negative-padding": Variant("bert", config(pad_token_id=-1)),
    "negative-padding-roberta": Variant("roberta", config(pad_token_id=-1)),
    "gelu-python": Variant("bert", config(hidden_act="gelu_python")),
    "fewer-layers": Variant("bert", config(num_hidden_layers=2)),
    "own-prefix": Variant("bert", with_tensors("bert.", "cls.predictions.transform.dense.weight")),
    "own-prefix-qwen3": Variant("qwen3", with_tensors("model.", "lm_head.weight")),
    "heads": Variant("bert", with_tensors("", "pooler.dense.extra", "classifier.weight")),
    "linear-scaling": Variant("qwen3", config(rope_scaling={"rope_type": "linear", "factor": 3.0})),
    "theta-in-scaling": Variant("qwen3", config(rope_scaling={"type": "default", "rope_theta": 77.0})),
    "gemma-scaling": Variant("gemma3-causal", config(rope_scaling={"rope_type": "linear", "factor": 3.0})),
    "modernbert-scaling": Variant(
        "modernbert-published", config(rope_scaling={"rope_type": "linear", "factor": 3.0})
    ),
    "no-prompt": Variant(
        "bert",
        lambda folder: change_json(
            folder / "config_sentence_transformers.json", prompts={"query": None}, default_prompt_name="query"
        ),
    ),
}


def main(folder: Path) -> None:
    """Make all variants."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, length)) for length in LENGTHS]
    (folder / "texts.json").write_text(json.dumps(texts))
    for number, name in enumerate(sorted({variant.case for variant in VARIANTS.values()})):
        make(CASES[name], folder / "cases" / name, number)
    for name, variant in VARIANTS.items():
        place = folder / name / "model"
        shutil.copytree(folder / "cases" / variant.case / "model", place)
        variant.change(place)
        model = SentenceTransformer(
            str(place), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
        )
        np.save(folder / name / "alone.npy", np.stack([model.encode(text) for text in texts]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main(Path(sys.argv[1]))
