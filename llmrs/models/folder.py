"""What a model folder says about its model, without reading weights.

The layout is sentence-transformers': `modules.json` lists the steps (Transformer, Pooling, Dense,
Normalize), each with a folder of its own; a folder without it is a bare Hugging Face encoder,
which sentence-transformers pools by mean. Semantics and defaults follow sentence-transformers
6.2, because that is what users compare vectors with. A setting that would change the vectors and
is not understood is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llmrs.errors import ModelError
from llmrs.models.architectures import Encoder
from llmrs.models.families import read_encoder
from llmrs.models.settings import Settings, read_json, read_settings

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

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""What models call the prompt for documents, the first that exists counts."""

TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "xlm-roberta")
)


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
class Normalize:
    """Scales vectors to length 1."""


Step: TypeAlias = Pooling | Dense | Normalize


@dataclass(frozen=True)
class ModelFolder:
    """A model as its folder describes it.

    Attributes:
        path: the folder with the encoder's config.json, tokenizer.json and weights.
        encoder: sizes and names of the encoder.
        steps: what follows the encoder; the first is a Pooling.
        max_tokens: longest input in tokens, special tokens included.
        lowercase: whether texts are lowercased before anything else.
        prompts: prefixes by name; the empty name is the one for texts that name none.
        matryoshka: smaller widths the model was trained for.
        cut: width that vectors are cut to, None to leave them.
    """

    path: Path
    encoder: Encoder
    steps: tuple[Step, ...]
    max_tokens: int
    lowercase: bool
    prompts: Mapping[str, str]
    matryoshka: tuple[int, ...]
    cut: int | None

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        width = self._full_width()
        return min(width, self.cut) if self.cut else width

    @property
    def normalized(self) -> bool:
        """Whether the model itself makes unit vectors."""
        return isinstance(self.steps[-1], Normalize) and self.dimensions == self._full_width()

    def _full_width(self) -> int:
        width = 0
        for step in self.steps:
            if isinstance(step, Pooling):
                width = self.encoder.hidden * len(step.modes)
            elif isinstance(step, Dense):
                width = step.outputs
        return width


def read_folder(root: Path) -> ModelFolder:
    """Read and check the model folder `root`.

    Raises:
        ModelError: something is missing, broken or not supported; names the file.
    """
    transformer, steps = _read_modules(root)
    config = read_settings(transformer / "config.json")
    encoder = read_encoder(config)
    settings = _transformer_settings(transformer)
    sentence = read_settings(root / "config_sentence_transformers.json", optional=True)
    return ModelFolder(
        path=transformer,
        encoder=encoder,
        steps=_checked(steps, encoder, root),
        max_tokens=_max_tokens(transformer, settings, encoder),
        lowercase=settings.flag("do_lower_case", default=False),
        prompts=_prompts(sentence),
        matryoshka=_matryoshka(config),
        cut=sentence.integer("truncate_dim") if "truncate_dim" in sentence else None,
    )


def _read_modules(root: Path) -> tuple[Path, tuple[Step, ...]]:
    """The Transformer's folder and the steps after it."""
    path = root / "modules.json"
    if not path.exists():
        return root, (Pooling(("mean",)),)
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path} is not a list of modules: copy or download the model again")
    found = [_module(path, Settings(path, module)) for module in modules]
    if not found or found[0][0] != "Transformer":
        raise ModelError(f"{path}: the first module is not a Transformer, so the model cannot be built")
    steps = tuple(_step(path, kind, folder) for kind, folder in found[1:] if kind != "Dropout")
    return found[0][1], steps


def _module(path: Path, module: Settings) -> tuple[str, Path]:
    """A module's kind and its folder, which must lie inside the model's."""
    kind = module.text("type")
    place = Path(module.text("path", default=""))
    if place.is_absolute() or ".." in place.parts:
        raise ModelError(f"{path}: a module's path leaves the model folder")
    if not kind.startswith("sentence_transformers."):
        raise ModelError(f"{path}: module {kind[:60]!r} is code of its own, which is never run")
    return kind.rpartition(".")[2], path.parent / place


def _step(path: Path, kind: str, folder: Path) -> Step:
    if kind == "Pooling":
        return _pooling(read_settings(folder / "config.json"))
    if kind == "Dense":
        return _dense(folder, read_settings(folder / "config.json"))
    if kind == "Normalize":
        _about_sentences(read_settings(folder / "config.json", optional=True))
        return Normalize()
    raise ModelError(f"{path}: module {kind[:60]!r} is not supported, only Pooling, Dense and Normalize")


def _pooling(config: Settings) -> Pooling:
    named = config.raw("pooling_mode")
    if named is None:
        flagged = [mode for flag, mode in POOLING_FLAGS.items() if config.flag(flag, default=False)]
        modes = tuple(flagged) or ("mean",)
    else:
        modes = tuple(named) if isinstance(named, list) else (named,)
    if not modes or any(mode not in POOLING_MODES for mode in modes):
        raise ModelError(f"{config.path}: pooling_mode is not supported, only {', '.join(POOLING_MODES)}")
    if not config.flag("include_prompt", default=True):
        raise ModelError(f"{config.path}: include_prompt = false is not supported")
    return Pooling(modes)


def _dense(folder: Path, config: Settings) -> Dense:
    activation = config.text("activation_function", default="torch.nn.modules.activation.Tanh")
    package, _, name = activation.rpartition(".")
    if not package.startswith("torch.nn") or name not in DENSE_ACTIVATIONS:
        known = ", ".join(DENSE_ACTIVATIONS)
        raise ModelError(f"{config.path}: activation_function is not supported, only {known} of torch.nn")
    if config.flag("use_residual", default=False):
        raise ModelError(f"{config.path}: use_residual = true is not supported")
    _about_sentences(config)
    return Dense(
        folder=folder,
        inputs=config.integer("in_features"),
        outputs=config.integer("out_features"),
        bias=config.flag("bias", default=True),
        activation=DENSE_ACTIVATIONS[name],
    )


def _about_sentences(config: Settings) -> None:
    for name in ("module_input_name", "module_output_name"):
        if config.text(name, default="sentence_embedding") != "sentence_embedding":
            raise ModelError(f"{config.path}: {name} must be sentence_embedding")


def _checked(steps: tuple[Step, ...], encoder: Encoder, root: Path) -> tuple[Step, ...]:
    """The steps, whose widths must fit: Pooling first and only there, then each Dense."""
    path = root / "modules.json"
    if not steps or not isinstance(steps[0], Pooling):
        raise ModelError(f"{path}: the second module is not a Pooling, so there is no text vector")
    width = encoder.hidden * len(steps[0].modes)
    for step in steps[1:]:
        if isinstance(step, Pooling):
            raise ModelError(f"{path}: more than one Pooling")
        if isinstance(step, Dense):
            if step.inputs != width:
                raise ModelError(
                    f"{step.folder / 'config.json'}: in_features is {step.inputs}, the vectors have {width}"
                )
            width = step.outputs
    return steps


def _transformer_settings(folder: Path) -> Settings:
    """The Transformer module's own settings; their file is named after the encoder."""
    for name in TRANSFORMER_SETTINGS:
        if (folder / name).exists():
            return read_settings(folder / name)
    return Settings(folder / TRANSFORMER_SETTINGS[0], {})


def _max_tokens(folder: Path, settings: Settings, encoder: Encoder) -> int:
    if "max_seq_length" in settings:
        return min(settings.integer("max_seq_length"), encoder.max_tokens)
    tokenizer = read_settings(folder / "tokenizer_config.json", optional=True)
    # Tokenizers without a limit of their own say 1e30.
    return int(min(tokenizer.number("model_max_length", default=1e30), encoder.max_tokens))


def _prompts(sentence: Settings) -> Mapping[str, str]:
    prompts = sentence.raw("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelError(f"{sentence.path}: prompts is not an object of strings")
    result = dict(prompts)
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
    if document is not None:
        result["document"] = document
    if "default_prompt_name" in sentence:
        name = sentence.text("default_prompt_name")
        if name not in prompts:
            raise ModelError(f"{sentence.path}: default_prompt_name names no prompt")
        result[""] = prompts[name]
    return result


def _matryoshka(config: Settings) -> tuple[int, ...]:
    """Widths that config.json declares, as vLLM and Snowflake's models write them."""
    sizes = config.raw("matryoshka_dimensions") or ()
    if not isinstance(sizes, list | tuple) or not all(type(size) is int and size > 0 for size in sizes):
        raise ModelError(f"{config.path}: matryoshka_dimensions is not a list of sizes")
    return tuple(sorted(sizes))
