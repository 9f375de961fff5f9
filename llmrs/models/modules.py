"""The steps of a model after its encoder, as `modules.json` and their own folders describe them.

A step that would change the vectors and is not understood is an error, never ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llmrs.errors import ModelError
from llmrs.models.module_keys import DENSE, DROPOUT, LAYER_NORM, MODULES, NORMALIZE, POOLING
from llmrs.models.rules import check_keys
from llmrs.models.settings import OTHER_WAYS, Settings, read_json, read_settings

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which several are concatenated."""

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How versions before 5.3 spelled them: one flag each."""

DENSE_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}
"""Classes of torch.nn that a Dense step may name."""


PACKAGES = r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)\."
"""Where sentence-transformers has its modules, before version 5.3 and since."""

FIRST = ("Transformer", "StaticEmbedding")
"""What a model may begin with: an encoder, or a table of word vectors (see `wordtable`)."""


@dataclass(frozen=True)
class Pooling:
    """Makes one vector of the token vectors; several modes are concatenated."""

    modes: tuple[str, ...]


@dataclass(frozen=True)
class Dense:
    """A linear layer and an activation, its weights in `folder`."""

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class LayerNorm:
    """Normalizes the numbers of each vector, then scales and shifts them by weights in `folder`."""

    folder: Path
    width: int


@dataclass(frozen=True)
class Normalize:
    """Scales vectors to length 1."""


Step: TypeAlias = Pooling | Dense | LayerNorm | Normalize


def list_modules(root: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module; without `modules.json`, of an encoder alone.

    Raises:
        ModelError: the list is none, or one of them is no module of sentence-transformers'.
    """
    path = root / "modules.json"
    if not path.exists():
        return [(FIRST[0], root)]
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path} is not a list of modules: copy or download the model again")
    found = [_module(path, Settings(path, module)) for module in modules]
    names = [str(module["name"]) for module in modules if "name" in module]
    if len(set(names)) < len(names):
        raise ModelError(
            f"{path}: two modules have one name, and sentence-transformers takes the last of them"
        )
    if not found or found[0][0] not in FIRST:
        raise ModelError(f"{path}: the first module is no {' or '.join(FIRST)}, so the model cannot be built")
    return found


def read_steps(root: Path) -> tuple[Step, ...]:
    """The steps after the first module.

    Raises:
        ModelError: there are others than can be computed.
    """
    path = root / "modules.json"
    steps = [_step(path, kind, folder) for kind, folder in list_modules(root)[1:]]
    return tuple(step for step in steps if step is not None)


def _module(path: Path, module: Settings) -> tuple[str, Path]:
    """A module's kind and its folder, which must lie inside the model's."""
    check_keys(module, MODULES)
    kind = module.text("type")
    place = Path(module.text("path"))
    if place.is_absolute() or ".." in place.parts:
        raise ModelError(f"{path}: a module's path leaves the model folder")
    if not re.match(PACKAGES, kind):
        raise ModelError(f"{path}: module {kind[:60]!r} is code of its own, which is never run")
    return kind.rpartition(".")[2], path.parent / place


def _step(path: Path, kind: str, folder: Path) -> Step | None:
    """The step of a module; None for one that is for training alone."""
    if kind == "Dropout":
        check_keys(read_settings(folder / "config.json", optional=True), DROPOUT)
        return None
    if kind == "Pooling":
        return read_pooling(read_settings(folder / "config.json"))
    if kind == "Dense":
        return _dense(folder, read_settings(folder / "config.json"))
    if kind == "LayerNorm":
        return _layer_norm(folder, read_settings(folder / "config.json"))
    if kind == "Normalize":
        # The library, too, takes no other keys of it: without a folder of its own that is the encoder's file.
        check_keys(read_settings(folder / "config.json", optional=True), NORMALIZE, others=True)
        return Normalize()
    known = "Pooling, Dense, LayerNorm and Normalize"
    raise ModelError(f"{path}: module {kind[:60]!r} is not supported, only {known}; {OTHER_WAYS}")


def read_pooling(config: Settings) -> Pooling:
    """The Pooling that a configuration describes. Raises ModelError."""
    check_keys(config, POOLING)
    # The width is the encoder's, but the library does not load a Pooling without one.
    config.integer("embedding_dimension", "word_embedding_dimension")
    named = config.raw("pooling_mode")
    if named is None:
        flagged = [mode for flag, mode in POOLING_FLAGS.items() if config.flag(flag, default=False)]
        modes = tuple(flagged) or ("mean",)
    else:
        modes = tuple(named) if isinstance(named, list) else (named,)
    if not modes or any(mode not in POOLING_MODES for mode in modes):
        raise ModelError(f"{config.path}: pooling_mode is not supported, only {', '.join(POOLING_MODES)}")
    return Pooling(modes)


def _dense(folder: Path, config: Settings) -> Dense:
    check_keys(config, DENSE)
    activation = config.text("activation_function", default="torch.nn.modules.activation.Tanh")
    package, _, name = activation.rpartition(".")
    if (
        not package.startswith("torch.nn")
        or name not in DENSE_ACTIVATIONS
        or config.is_null("activation_function")
    ):
        known = ", ".join(DENSE_ACTIVATIONS)
        raise ModelError(f"{config.path}: activation_function is not supported, only {known} of torch.nn")
    return Dense(
        folder=folder,
        inputs=config.integer("in_features"),
        outputs=config.integer("out_features"),
        bias=config.flag("bias", default=True),
        activation=DENSE_ACTIVATIONS[name],
    )


def _layer_norm(folder: Path, config: Settings) -> LayerNorm:
    check_keys(config, LAYER_NORM)
    return LayerNorm(folder, config.integer("dimension"))


def check_steps(steps: tuple[Step, ...], hidden: int, root: Path) -> tuple[Step, ...]:
    """The steps, whose widths must fit: Pooling first and only there, then each step that has weights.

    Raises:
        ModelError: they do not, for an encoder whose token vectors have `hidden` numbers.
    """
    path = root / "modules.json"
    if not steps or not isinstance(steps[0], Pooling):
        raise ModelError(f"{path}: the second module is not a Pooling, so there is no text vector")
    width = hidden * len(steps[0].modes)
    for step in steps[1:]:
        if isinstance(step, Pooling):
            raise ModelError(f"{path}: more than one Pooling")
        if isinstance(step, Dense):
            if step.inputs != width:
                raise ModelError(
                    f"{step.folder / 'config.json'}: in_features is {step.inputs}, the vectors have {width}"
                )
            width = step.outputs
        if isinstance(step, LayerNorm) and step.width != width:
            raise ModelError(
                f"{step.folder / 'config.json'}: dimension is {step.width}, the vectors have {width}"
            )
    return steps


def read_static_steps(root: Path) -> tuple[Step, ...]:
    """The steps of a model that begins with the vector of a text. Raises ModelError."""
    if any(kind not in ("Normalize", "Dropout") for kind, _ in list_modules(root)[1:]):
        raise ModelError(f"{root / 'modules.json'}: only Normalize is supported after a StaticEmbedding")
    return read_steps(root)
