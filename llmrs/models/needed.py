"""Which files of a model have to be fetched: what is read afterwards, and nothing else.

In two steps, because the second depends on what the first brings: the settings and the tokenizer, then the
weights, of which `config.json` says whether they can be built. Never code, and no pickles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from llmrs.errors import ModelError
from llmrs.models.families import read_encoder
from llmrs.models.files import FILE, INDEX, matches, needed_weights
from llmrs.models.settings import read_json, read_settings
from llmrs.models.tokenizer_config import vocabulary_files
from llmrs.models.wordtable import MODEL2VEC, STATIC_MODULE

SETTINGS: tuple[str, ...] = (
    "*config*.json",
    "modules.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    INDEX,
    # What says that the folder is not what it seems.
    "adapter_config.json",
    "chat_template.*",
    # The modules' own folders: 0_Transformer, 1_Pooling, 2_Dense.
    "[0-9]*/*.json",
)

MODULES = ("[1-9]*/model*.safetensors",)
"""Weights of the modules after the encoder."""

FOREIGN = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "[0-9]*/*.txt",
    "[0-9]*/*.model",
    "[0-9]*/model*.safetensors",
)
"""What sentence-transformers may read besides: tokenizers in the formats of their libraries."""

TOKENIZER = "tokenizer.json"

NEVER = (".py", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".msgpack", ".gguf")


def settings_of(names: Iterable[str]) -> list[str]:
    """The files that say what a model is, among the names of all of its files."""
    return _matching(names, SETTINGS)


def needed_files(names: Collection[str], folder: Path, *, engine: str, model_file: str | None) -> list[str]:
    """All files that are read to serve a model, sorted.

    Args:
        names: of all of its files, relative to the model's folder, with slashes.
        folder: where `settings_of(names)` are.
        engine, model_file: as in the configuration.

    Raises:
        ModelError: there are no weights that can be used, or none as they are asked for.
    """
    safe = [name for name in names if not name.endswith(NEVER)]
    weights = _weights(safe, folder, engine, model_file)
    if not weights:
        raise ModelError(f"it has neither {FILE} nor an exported model (ONNX, OpenVINO) there")
    needed = {*weights, *_matching(safe, SETTINGS + MODULES)}
    # What nothing else can compute, PyTorch may.
    if engine == "torch" or (weights[0].endswith((".safetensors", INDEX)) and not can_be_built(folder)):
        needed.update(_matching(safe, FOREIGN))
    if not any(name.endswith(("config.json", "modules.json")) for name in needed):
        raise ModelError("it has no config.json there")
    if not any(name.endswith(TOKENIZER) for name in needed):
        needed.update(_vocabulary(safe, folder))
    return sorted(needed)


def can_be_built(folder: Path) -> bool:
    """Whether the settings in a model's folder are of a model that is computed without an exported graph."""
    if _first_module(folder).endswith(f".{STATIC_MODULE}"):
        return True
    place = _encoder_folder(folder)
    if place is None:
        return False
    try:
        config = read_settings(place / "config.json")
        if config.raw("model_type") != MODEL2VEC:
            read_encoder(config)
    except ModelError:
        return False
    return True


def _encoder_folder(folder: Path) -> Path | None:
    places = (*sorted(folder.glob("0_*")), folder)
    return next((place for place in places if (place / "config.json").exists()), None)


def _vocabulary(names: Collection[str], folder: Path) -> list[str]:
    """The files that a tokenizer is made of where there is no tokenizer.json."""
    place = _encoder_folder(folder) or folder
    wanted = [(place / name).relative_to(folder).as_posix() for name in vocabulary_files(place)]
    if not wanted or not all(name in names for name in wanted):
        instead = f", and no {' and '.join(wanted)} in its place" if wanted else ""
        raise ModelError(f"it has no {TOKENIZER} there{instead}")
    return wanted


def _weights(names: Sequence[str], folder: Path, engine: str, model_file: str | None) -> list[str]:
    buildable = engine == "torch" or can_be_built(folder)
    found = needed_weights(names, model_file=model_file, buildable=buildable)
    if engine == "torch" and model_file is None:
        return [name for name in found if name.endswith((".safetensors", INDEX))]
    return found


def _first_module(folder: Path) -> str:
    """Its type; empty where there are no modules."""
    if not (folder / "modules.json").exists():
        return ""
    try:
        modules = read_json(folder / "modules.json")
    except ModelError:
        return ""
    first = modules[0] if isinstance(modules, list) and modules else None
    return str(first.get("type", "")) if isinstance(first, dict) else ""


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    return [name for name in names if any(matches(name, pattern) for pattern in patterns)]
