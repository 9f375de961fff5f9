"""The side of a local model that does not compute: its folder, its tokenizer, what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from llmrs.backends.base import Backend
from llmrs.backends.identity import files_of
from llmrs.config import Config
from llmrs.embeddings import Input, ModelInfo, Prepared, Truncate
from llmrs.models.folder import ModelFolder, read_folder
from llmrs.models.resolve import hub_id, model_name, resolve
from llmrs.models.tokenize import ModelTokenizer
from llmrs.models.tokenizer_config import read_truncation_side
from llmrs.models.wordtable import Static


def is_static(config: Config) -> bool:
    """Whether a configuration's local model is a static one. Reads no weights. Raises ModelError."""
    engine, model_file = config.engine, config.model_file
    place = resolve(config.model_path, engine=engine, model_file=model_file, offline=config.offline)
    folder = read_folder(place, engine=engine, model_file=model_file)
    return isinstance(folder.encoder, Static)


class ModelBackend(Backend):
    """A backend for a model folder on this machine. Token ids are the model's own, without special
    tokens, which are added as for a text.

    Attributes:
        folder: the model's.
        files: in it, as they were before any was read, see `identity`.
    """

    kind = "local"

    def __init__(
        self, model: str, *, engine: str = "auto", model_file: str | None = None, offline: bool = False
    ) -> None:
        """Find the model, download it where needed unless `offline`, and load its tokenizer.

        Args:
            model: a folder, or a Hugging Face model id.
            engine: what is to compute it: `auto`, `openvino` or `torch`.
            model_file: its weights or exported graph, relative to the folder; None for the first that fits.

        Raises:
            ModelError: the model cannot be found or read.
        """
        place = resolve(model, engine=engine, model_file=model_file, offline=offline)
        self.files = files_of(place)
        self.folder: ModelFolder = read_folder(place, engine=engine, model_file=model_file)
        encoder = self.folder.encoder
        self._tokenizer = ModelTokenizer(
            self.folder.path / "tokenizer.json",
            max_tokens=self.folder.max_tokens,
            vocabulary=encoder.vocabulary,
            lowercase=self.folder.lowercase,
            static=encoder if isinstance(encoder, Static) else None,
        )
        self._info = ModelInfo(
            name=model_name(model),
            hub_id=hub_id(model),
            dimensions=self.folder.dimensions,
            max_input_tokens=self.folder.max_tokens,
            normalized=self.folder.normalized,
            matryoshka=self.folder.matryoshka,
            prompts=self.folder.prompts,
            truncation_side=read_truncation_side(self.folder.path),
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = "none", prompt: str = ""
    ) -> list[Prepared]:
        truncate = truncate or self._info.truncation_side
        return self._tokenizer.prepare(inputs, truncate=truncate, prompt=prompt)
