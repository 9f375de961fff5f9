"""How a folder's encoder is computed: as a word table, built, as it was exported, or by PyTorch.

The one place that knows the order: a static model is a word table and nothing else; of others, weights of a
family that can be built come first, because that graph packs texts and is the fastest; then what has been
exported. `engine` and `model_file` of the configuration say otherwise. What nothing here can compute goes to
PyTorch, see `folder.read_folder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from llmrs.errors import ModelError
from llmrs.models.architectures import Encoder
from llmrs.models.exported import Exported, read_exported
from llmrs.models.families import read_encoder
from llmrs.models.files import EXPORTED, FILE, find_export, find_named, has_safetensors
from llmrs.models.opaque import Opaque, read_opaque
from llmrs.models.settings import Settings
from llmrs.models.wordtable import MODEL2VEC, STATIC_MODULE, Static, read_static

AnyEncoder: TypeAlias = Encoder | Exported | Static | Opaque
"""An encoder by how it is computed."""


def choose_encoder(
    root: Path, config: Settings, *, first: str, engine: str = "auto", model_file: str | None = None
) -> AnyEncoder:
    """The encoder of the model folder `root`.

    Args:
        config: the encoder's `config.json`. The weights are beside it, exported files there or below `root`.
        first: the kind of the first module.
        engine: `torch` for all that is no word table; `openvino` and `auto` for what that is not needed for.
        model_file: the file to take, relative to the folder; None for the first that fits.

    Raises:
        ModelError: there is nothing that can be computed, or not as it is asked for.
    """
    model2vec = first != STATIC_MODULE and config.raw("model_type") == MODEL2VEC
    if first == STATIC_MODULE or model2vec:
        _check_static(config.path.parent, root, engine, model_file)
        return read_static(config.path.parent, model2vec=config if model2vec else None)
    places = (config.path.parent, root)
    if engine == "torch":
        _check_file(places, model_file, "engine = torch")
        return read_opaque(root, config)
    if model_file is not None:
        return _named(find_named(places, model_file), config)
    built = _built(config)
    if isinstance(built, Encoder) and has_safetensors(config.path.parent):
        return built
    file = find_export(places)
    if file is not None:
        return read_exported(file, config)
    if isinstance(built, ModelError):
        raise built
    return built  # its weights are missing, and reading them says so


def _check_static(place: Path, root: Path, engine: str, model_file: str | None) -> None:
    if engine != "auto":
        raise ModelError(f"engine = {engine}: {root} is a static model, which needs none; use auto")
    _check_file((place, root), model_file, f"{root} is a static model")


def _check_file(places: tuple[Path, Path], model_file: str | None, why: str) -> None:
    if model_file is not None and find_named(places, model_file) != places[0] / FILE:
        raise ModelError(f"model_file: {why}, of which only {FILE} can be read")


def _named(file: Path, config: Settings) -> AnyEncoder:
    """The encoder in the file that was asked for."""
    if file.suffix in EXPORTED:
        return read_exported(file, config)
    if file != config.path.parent / FILE:
        raise ModelError(f"model_file: {file} is none that can be read, only {FILE}, .onnx and .xml files")
    return read_encoder(config)


def _built(config: Settings) -> Encoder | ModelError:
    """The encoder of a family that can be built, or why it cannot."""
    try:
        return read_encoder(config)
    except ModelError as error:
        return error
