"""What a model folder says about its model, without reading weights.

The layout is sentence-transformers': `modules.json` lists the steps (Transformer, Pooling, Dense,
Normalize), each with a folder of its own; a folder without it is a bare Hugging Face encoder, see
`layout`. Static models are tables of word vectors, see `wordtable`.
Semantics and defaults follow sentence-transformers 6.2, because that is what users compare vectors
with. A setting that would change the vectors and is not understood is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmrs.errors import ModelError
from llmrs.models.choice import AnyEncoder, choose_encoder
from llmrs.models.layout import SENTENCES, check_layout, default_pooling, is_bare
from llmrs.models.module_keys import SENTENCE_TRANSFORMERS
from llmrs.models.modules import (
    Dense,
    Normalize,
    Pooling,
    Step,
    check_steps,
    list_modules,
    read_static_steps,
    read_steps,
)
from llmrs.models.opaque import Opaque, is_installed, opaque_steps
from llmrs.models.rules import check_keys
from llmrs.models.settings import Settings, read_settings
from llmrs.models.tokenizer_config import read_longest
from llmrs.models.transformer import TransformerSettings, read_transformer
from llmrs.models.wordtable import STATIC_MODULE, Static

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""What models call the prompt for documents, the first that exists counts."""


@dataclass(frozen=True)
class ModelFolder:
    """A model as its folder describes it.

    Attributes:
        path: the folder with the encoder's config.json, tokenizer.json and weights.
        encoder: what the encoder is, by how it is computed.
        steps: what follows the encoder; the first is a Pooling, if the encoder gives token vectors.
        max_tokens: longest input in tokens, special tokens included.
        lowercase: whether texts are lowercased before anything else.
        prompts: prefixes by name; the empty name is the one for texts that name none.
        matryoshka: smaller widths the model was trained for.
        cut: width that vectors are cut to, None to leave them.
    """

    path: Path
    encoder: AnyEncoder
    steps: tuple[Step, ...]
    max_tokens: int
    lowercase: bool
    prompts: Mapping[str, str]
    matryoshka: tuple[int, ...]
    cut: int | None

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        return min(self.full_width, self.cut) if self.cut else self.full_width

    @property
    def normalized(self) -> bool:
        """Whether the model itself makes unit vectors."""
        last = self.steps[-1] if self.steps else None
        return isinstance(last, Normalize) and self.dimensions == self.full_width

    @property
    def full_width(self) -> int:
        """That before they are cut."""
        width = self.encoder.hidden
        for step in self.steps:
            if isinstance(step, Pooling):
                width = self.encoder.hidden * len(step.modes)
            elif isinstance(step, Dense):
                width = step.outputs
        return width


def read_folder(root: Path, *, engine: str = "auto", model_file: str | None = None) -> ModelFolder:
    """Read and check the model folder `root`.

    Args:
        engine: what is to compute it: `openvino`, `torch`, or `auto` for the first that can, of which
            `torch` is the last.
        model_file: its weights or exported graph, relative to `root`; None for the first that can be used.

    Raises:
        ModelError: something is missing, broken or not supported; names the file.
    """
    if engine != "auto" or model_file is not None or not is_installed():
        return _read(root, engine, model_file)
    try:
        return _read(root, engine, model_file)
    except ModelError as error:
        try:
            return _read(root, "torch", None)
        except ModelError:
            raise error from None


def _read(root: Path, engine: str, model_file: str | None) -> ModelFolder:
    first, place = list_modules(root)[0]
    config = read_settings(place / "config.json", optional=first == STATIC_MODULE)
    encoder = choose_encoder(root, config, first=first, engine=engine, model_file=model_file)
    check_layout(root, place)
    settings = TransformerSettings() if isinstance(encoder, Static) else read_transformer(place)
    sentence = read_settings(root / SENTENCES, optional=True)
    check_keys(sentence, SENTENCE_TRANSFORMERS)
    return ModelFolder(
        path=place,
        encoder=encoder,
        steps=_steps(root, config, encoder, first),
        max_tokens=_max_tokens(place, settings, encoder),
        lowercase=settings.lowercase,
        prompts=_prompts(sentence),
        matryoshka=_matryoshka(config),
        cut=sentence.integer("truncate_dim") if "truncate_dim" in sentence else None,
    )


def _steps(root: Path, config: Settings, encoder: AnyEncoder, first: str) -> tuple[Step, ...]:
    if isinstance(encoder, Opaque):
        return opaque_steps(root)
    if not isinstance(encoder, Static):
        steps = (Pooling((default_pooling(config),)),) if is_bare(root) else read_steps(root)
        return check_steps(steps, encoder.hidden, root)
    if first == STATIC_MODULE:
        return read_static_steps(root)
    return (Normalize(),) if config.flag("normalize", default=False) else ()  # model2vec's own words


def _max_tokens(folder: Path, settings: TransformerSettings, encoder: AnyEncoder) -> int:
    if isinstance(encoder, Static):
        return encoder.max_tokens
    if settings.longest is not None:
        return min(settings.longest, encoder.max_tokens)
    return int(min(read_longest(folder), encoder.max_tokens))


def _prompts(sentence: Settings) -> Mapping[str, str]:
    prompts = sentence.object("prompts").values
    if not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"{sentence.path}: prompts is not an object of strings")
    if "" in prompts:
        raise ModelError(f"{sentence.path}: prompts has one without a name, which no request could ask for")
    prompts = {name: text or "" for name, text in prompts.items()}
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
