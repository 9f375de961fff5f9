"""Downloading a model of the Hugging Face hub into its cache on this machine.

huggingface_hub knows where the hub and the token are (HF_ENDPOINT, HF_TOKEN or what `hf auth login` left) and
HF_HUB_OFFLINE, its HTTP library knows the proxies. `hubcache` is the cache, `transfer` brings the files.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmrs.errors import ModelError
from llmrs.models.hubcache import HubCache
from llmrs.models.listing import Listing
from llmrs.models.needed import needed_files, settings_of
from llmrs.models.transfer import DownloadError, Transfer, patiently, status_of

ANSWER_SECONDS = 10.0
"""How long the hub may take to say what a model holds; its client's limit for other questions."""


def download(
    model_id: str,
    revision: str,
    endpoint: str | None = None,
    cache: Path | None = None,
    *,
    engine: str = "auto",
    model_file: str | None = None,
    update: bool = False,
) -> Path:
    """Fetch what serving a model reads into the hub's cache, going on where an earlier attempt stopped.

    A branch is the commit that the cache has of it, whoever brought that, unless there is to be an `update`.

    Raises:
        DownloadError: the hub cannot be reached, refuses, or has no such model; the files are not what it
            says they are, or there is no room for them.
    """
    try:
        here = HubCache(model_id, cache)
        commit = None if update else here.commit_of(revision)
        listing = patiently(lambda: _ask(model_id, commit or revision, endpoint))
        transfer = Transfer(here, listing, model_id, endpoint)
        transfer.fetch(settings_of(listing.files), leave=False)
        names = needed_files(listing.files, transfer.folder, engine=engine, model_file=model_file)
        transfer.fetch(names)
        here.remember(revision, listing)
    except DownloadError:
        raise
    except ModelError as error:
        raise DownloadError(str(error)) from None
    except Exception as error:  # the client's own, its HTTP library's, and the system's
        raise DownloadError(_reason(error)) from error
    return transfer.folder


def _ask(model_id: str, revision: str, endpoint: str | None) -> Listing:
    """What a revision of a model holds."""
    api = HfApi(endpoint=endpoint, library_name="llmrs")
    info = api.model_info(model_id, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    files = (
        (each.rfilename, each.size, each.lfs.sha256 if each.lfs else each.blob_id)
        for each in info.siblings or ()
    )
    return Listing.of(info.sha, files)


def _reason(error: BaseException) -> str:
    """Why a download failed, in our words: the client's messages run over lines and hold addresses."""
    for kind, reason in REASONS.items():
        if isinstance(error, kind):
            return reason
    if (status := status_of(error)) is not None:
        return STATUSES.get(status, f"the hub answers {status}")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the certificate of the hub is not trusted (SSL_CERT_FILE names others to trust)"
    strerror, name = getattr(error, "strerror", None), type(error).__name__
    if strerror is None and ("Connect" in name or "Timeout" in name):
        return "the hub cannot be reached"
    if name in ("UnsupportedProtocol", "InvalidURL", "InvalidSchema", "MissingSchema"):
        return "HF_ENDPOINT is no address of a hub"
    return f"{strerror or 'the hub does not answer as expected'} ({name})"


REASONS: dict[type[BaseException], str] = {
    GatedRepoError: "the hub asks for permission (set HF_TOKEN)",
    RevisionNotFoundError: "the hub has no such revision of it",
    DisabledRepoError: "the hub has disabled it",
    RepositoryNotFoundError: "the hub has no such model, or it is private (set HF_TOKEN)",
    EntryNotFoundError: "the hub lists a file that it does not have",
    OfflineModeIsEnabled: "HF_HUB_OFFLINE is set",
}
"""By the client's exceptions, the special ones first."""

STATUSES = {
    401: "the hub does not know the token (see HF_TOKEN)",
    403: "the hub does not allow it with this token (403)",
    429: "the hub is asked too often (429); with HF_TOKEN it allows more",
}
