"""One model in the Hugging Face cache: where its files are, and how they get there.

The layout is that of the hub's own client, which other programs use at the same time: `blobs/` holds files by
their checksums, `snapshots/COMMIT/` links to them by their names, `refs/` says which commit a branch was. A
file `llmrs/COMMIT.json` is ours: what the commit holds, for it never changes. Knows no network, and of the
client only its constants (HF_HUB_CACHE, HF_HOME): the rest takes half a second and 20 MB to import.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants

from llmrs.errors import ModelError
from llmrs.models.listing import COMMIT, Listed, Listing
from llmrs.models.needed import needed_files, settings_of
from llmrs.models.settings import read_json


class HubCache:
    """The part of a cache that is one model's.

    Args:
        model_id: the model's id on the hub.
        cache: the folder of the whole cache, which need not exist; None for the one of the hub's client.
    """

    def __init__(self, model_id: str, cache: Path | None = None) -> None:
        cache = cache or Path(constants.HF_HUB_CACHE)
        name = "--".join(("models", *model_id.split("/")))
        self.folder = cache / name
        self._locks = cache / ".locks" / name

    def commit_of(self, revision: str) -> str | None:
        """The commit that a revision was when it was fetched; None if it has not been."""
        if COMMIT.fullmatch(revision):
            return revision
        with suppress(OSError, UnicodeDecodeError):
            commit = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
            return commit if COMMIT.fullmatch(commit) else None
        return None

    def snapshot(self, commit: str) -> Path:
        """The folder in which a commit's files have their names."""
        return self.folder / "snapshots" / commit

    def blob(self, file: Listed) -> Path:
        """Where the content of a file is."""
        return self.folder / "blobs" / file.checksum

    def partial(self, file: Listed) -> Path:
        """Where it is until all of it is there and has been checked."""
        return self.folder / "blobs" / f"{file.checksum}.incomplete"

    def lock(self, file: Listed) -> Path:
        """What whoever fetches the file holds locked."""
        return self._locks / f"{file.checksum}.lock"

    def has(self, commit: str, file: Listed) -> bool:
        """Whether a file is in its snapshot, in the right size."""
        try:
            return (self.snapshot(commit) / file.name).stat().st_size == file.size
        except OSError:
            return False

    def link(self, commit: str, file: Listed) -> None:
        """Give a blob its name in a snapshot. Raises OSError."""
        place = self.snapshot(commit) / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name[:100]}.{os.getpid()}")
        with suppress(FileNotFoundError):
            fresh.unlink()
        try:
            fresh.symlink_to(os.path.relpath(self.blob(file), place.parent))
        except OSError:  # a file system without links
            os.link(self.blob(file), fresh)
        fresh.replace(place)

    def remember(self, revision: str, listing: Listing) -> None:
        """Note what a revision is; only after its files are there, so that an old one stays until then."""
        if revision != listing.commit:
            _write(self.folder / "refs" / revision, listing.commit)
        _write(self._listing_file(listing.commit), json.dumps(listing.as_json(), indent=1))

    def listing(self, commit: str) -> Listing | None:
        """What a commit holds, if it was noted."""
        path = self._listing_file(commit)
        try:
            return Listing.from_json(read_json(path)) if path.exists() else None
        except ModelError:
            return None

    def find(self, revision: str, *, engine: str, model_file: str | None) -> Path | None:
        """The folder of a revision, None unless all that serving it reads is known to be there.

        Only a listing tells that a file is not missing but absent: other programs leave what they happened
        to read.
        """
        commit = self.commit_of(revision)
        listing = self.listing(commit) if commit is not None else None
        if commit is None or listing is None:
            return None
        folder, names = self.snapshot(commit), list(listing.files)
        try:
            if not all(self.has(commit, listing.files[name]) for name in settings_of(names)):
                return None
            needed = needed_files(names, folder, engine=engine, model_file=model_file)
        except ModelError:
            return None
        return folder if all(self.has(commit, listing.files[name]) for name in needed) else None

    def unlisted(self, revision: str) -> Path | None:
        """The folder of a revision that another program left, if there is one."""
        commit = self.commit_of(revision)
        if commit is None or not self.snapshot(commit).is_dir() or self.listing(commit) is not None:
            return None
        return self.snapshot(commit)

    def _listing_file(self, commit: str) -> Path:
        return self.folder / "llmrs" / f"{commit}.json"


def _write(path: Path, text: str) -> None:
    """Write a file such that nobody ever sees half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
