"""Models of the Hugging Face hub: its cache on this machine, and downloading into it.

Wraps huggingface_hub, which honours HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE and shows
progress on a terminal. Only the files that a model is built from are fetched: configuration,
tokenizer and safetensors weights, never code.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmrs.errors import LlmrsError, ModelError
from llmrs.models.files import FILE, INDEX
from llmrs.models.settings import read_settings

PATTERNS = [
    "config*.json",
    "modules.json",
    "sentence_*_config.json",
    "tokenizer*.json",
    "model*.safetensors",
    INDEX,
    # The modules' own folders: 0_Transformer, 1_Pooling, 2_Dense.
    "[0-9]*/*.json",
    "[0-9]*/model*.safetensors",
]


class DownloadError(LlmrsError):
    """A model could not be fetched; the message says why, in a clause."""


def find_cached(model_id: str, revision: str | None = None, cache: Path | None = None) -> Path | None:
    """The model's folder in the hub's cache, None unless all of it is there. Uses no network."""
    try:
        folder = snapshot_download(
            model_id, revision=revision, cache_dir=cache, allow_patterns=PATTERNS, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if _is_complete(Path(folder)) else None


def download(
    model_id: str, revision: str | None = None, endpoint: str | None = None, cache: Path | None = None
) -> Path:
    """Fetch a model into the hub's cache, going on where an earlier attempt stopped.

    Raises:
        DownloadError: the hub cannot be reached, refuses, or has no such model in safetensors.
    """
    try:
        folder = snapshot_download(
            model_id, revision=revision, cache_dir=cache, allow_patterns=PATTERNS, endpoint=endpoint
        )
    except Exception as error:  # the client's own, its HTTP library's, and the system's
        raise DownloadError(_reason(error)) from error
    if not _is_complete(Path(folder)):
        raise DownloadError(f"it has no {FILE} or no tokenizer.json there")
    return Path(folder)


def _is_complete(folder: Path) -> bool:
    """Whether a snapshot has what every model needs. Older clients leave partial ones behind."""
    places = [folder, *folder.glob("0_*")]
    return any(
        (place / "config.json").exists() and (place / "tokenizer.json").exists() and _has_weights(place)
        for place in places
    )


def _has_weights(folder: Path) -> bool:
    if (folder / FILE).exists():
        return True
    try:
        parts = read_settings(folder / INDEX).raw("weight_map")
    except ModelError:
        return False
    return isinstance(parts, dict) and all((folder / str(part)).exists() for part in parts.values())


def _reason(error: BaseException) -> str:
    """Why a download failed, in our words: the client's messages run over lines and hold addresses."""
    if isinstance(error, GatedRepoError):
        return "the hub asks for permission (set HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision of it"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or it is private (set HF_TOKEN)"
    if isinstance(error.__cause__, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, LocalEntryNotFoundError):
        return "the hub cannot be reached"
    strerror = getattr(error, "strerror", None)
    return f"{strerror or 'the hub does not answer as expected'} ({type(error).__name__})"
