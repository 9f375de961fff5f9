"""Files of the Hugging Face hub, on their way into its cache.

The hub's client downloads a model without looking at checksums, and begins again where a killed download
stopped. So only its transfer of a single file is used: into a file that stays when this process ends, and
gets its name in the cache when its checksum is right. One file after the other, with one bar on a terminal.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers, tqdm  # type: ignore[attr-defined]

from llmrs.errors import LlmrsError
from llmrs.models.hubcache import HubCache
from llmrs.models.listing import Listed, Listing, checksum_of

T = TypeVar("T")

# The client would look for AI tools among the environment's variables, by a list that it first asks the hub
# for without a word to anybody, and tell the hub which it found.
constants.HF_HUB_DISABLE_TELEMETRY = True

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts, where the hub or the network may be well again."""

PASSING = (408, 429, 500, 502, 503, 504)
"""Answers of a hub that may be others later."""

BROKEN = ("ReadError", "ChunkedEncodingError")
"""What a lost connection is called that the hub's client does not go on after; by the name, because its
releases use different HTTP libraries."""

SETTINGS_LIMIT = 256 << 20
"""Bytes of a file that is not weights: the largest known, a tokenizer.json, has 34 MB."""


class DownloadError(LlmrsError):
    """A model could not be fetched; the message says why, in a clause."""


class Transfer:
    """Files of one commit of a model, and where they go.

    Attributes:
        folder: where they get their names.
    """

    def __init__(self, cache: HubCache, listing: Listing, model_id: str, endpoint: str | None) -> None:
        self.folder = cache.snapshot(listing.commit)
        self._cache = cache
        self._listing = listing
        self._model_id = model_id
        self._endpoint = endpoint
        # Sizes are those of the files, so nothing may be compressed on its way.
        self._headers = {**build_hf_headers(library_name="llmrs"), "Accept-Encoding": "identity"}

    def fetch(self, names: Iterable[str], *, leave: bool = True) -> None:
        """Bring those of the files that are not there yet; `leave` the bar when they are there.

        Raises:
            DownloadError: they are not what the listing says, or there is no room for them.
            Exception: what else the hub's client and the system raise.
        """
        files = [self._listing.files[name] for name in names]
        missing = [file for file in files if not self._cache.has(self._listing.commit, file)]
        total = self._check_sizes(missing)
        with progress_bar(self._model_id, total, leave) as bar:
            for file in missing:
                self._bring(file, bar)
                self._cache.link(self._listing.commit, file)

    def _check_sizes(self, files: list[Listed]) -> int:
        """Bytes of all files, which there must be room for."""
        for file in files:
            if file.size > SETTINGS_LIMIT and file.name.endswith((".json", ".txt", ".jinja")):
                raise DownloadError(f"the hub says that {file.name} has {file.size:,} bytes")
        total = sum(file.size for file in files)
        place = self._cache.folder
        place.mkdir(parents=True, exist_ok=True)
        missing = total - sum(_size(self._cache.partial(file)) for file in files)
        free = shutil.disk_usage(place).free
        if missing > free:
            raise DownloadError(f"{missing:,} bytes are to come, and {place} has room for {free:,}")
        return total

    def _bring(self, file: Listed, bar: Any) -> None:
        """Bring a file's content into the cache."""
        blob, lock = self._cache.blob(file), self._cache.lock(file)
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob.exists() and _size(blob) == file.size:
                bar.update(file.size)  # another process was quicker, or another commit has it, too
                return
            partial = self._cache.partial(file)
            if self._receive_checked(file, partial, bar) or self._receive_checked(file, partial, bar):
                partial.replace(blob)
                return
        raise DownloadError(f"what the hub sends as {file.name} has another checksum than it says, twice")

    def _receive_checked(self, file: Listed, partial: Path, bar: Any) -> bool:
        """Receive the rest of a file; if it is not what it must be, nothing is left of it."""
        before = bar.n
        bar.update(_size(partial))
        patiently(lambda: self._receive(file, partial, bar))
        if checksum_of(partial, like=file.checksum) == file.checksum:
            return True
        partial.unlink()
        bar.update(before - bar.n)
        return False

    def _receive(self, file: Listed, partial: Path, bar: Any) -> None:
        """Receive the rest of a file, once."""
        if _size(partial) > file.size:
            partial.unlink()
        url = hf_hub_url(self._model_id, file.name, revision=self._listing.commit, endpoint=self._endpoint)
        with _Sink(partial, file.size) as sink:
            http_get(
                url,
                sink,
                resume_size=_size(partial),
                headers=self._headers,
                expected_size=file.size,
                _tqdm_bar=bar,
            )


class _Sink(io.BufferedWriter):
    """A file that is written on at its end, and takes no more bytes than it shall have."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._limit:
            raise DownloadError("the hub sends more than it says")
        return super().write(data)


def progress_bar(model_id: str, total: int, leave: bool) -> Any:
    """A bar on standard error where that is a terminal, and none where nothing is to come."""
    quiet = None if total else True  # None: unless this is a terminal
    return tqdm(  # type: ignore[no-untyped-call]
        total=total, unit="B", unit_scale=True, desc=model_id[-40:], disable=quiet, leave=leave
    )


def patiently(attempt: Callable[[], T], pauses: tuple[float, ...] = PAUSES) -> T:
    """What `attempt` gives, tried again after a pause where that may help; raises what the last one did."""
    try:
        return attempt()
    except Exception as error:
        if not pauses or not (status_of(error) in PASSING or type(error).__name__ in BROKEN):
            raise
    time.sleep(pauses[0])
    return patiently(attempt, pauses[1:])


def status_of(error: BaseException) -> int | None:
    """What the hub answered, if it did."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _size(path: Path) -> int:
    """Of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
