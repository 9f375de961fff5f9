"""A configuration with several models, and a service that runs by it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import requests

from tests.models.makers import make_model
from tests.processes import Server, llmrs, wait_until

ADMIN = {"Authorization": "Bearer the-admins-key"}
TEXT = "hello world"


class House:
    """A configuration file, two models' folders, two backends, and what each model's vectors are."""

    def __init__(self, folder: Path, first: str, second: str) -> None:
        self.file = folder / "config.toml"
        self.tiny = make_model(folder / "tiny", seed=1)
        self.other = make_model(folder / "other", seed=2)
        self._backends = {"first": first, "second": second}

    def write(self, *tables: str, flat: str = "") -> None:
        """Write the file at once, as editors do."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(f'admin_key = "the-admins-key"\n{flat}\n' + "\n".join(tables))
        draft.replace(self.file)

    def local(self, name: str, model: Any = None, more: str = "") -> str:
        path = f'model_path = "{model.folder}"\n' if model is not None else ""
        return f'[[models]]\nmodel_name = "{name}"\n{path}{more}\n'

    def other_ids(self, text: str) -> Any:
        """The token ids of a text."""
        from llmrs.backends.local import LocalBackend

        backend = LocalBackend(str(self.other.folder), dtype="f32")
        try:
            return backend.prepare([text])[0].payload
        finally:
            backend.close()

    def http(self, name: str) -> str:
        return f'[[models]]\nmodel_name = "{name}"\nbackend_url = "{self._backends[name]}"\n'


def running(house: House, **env: str) -> Any:
    return llmrs(LLMRS_CONFIG=str(house.file), **env)


def post(server: Server, model: str | None, text: str = TEXT) -> requests.Response:
    body = {"input": text} if model is None else {"input": text, "model": model}
    return requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)


def embedding(server: Server, model: str | None, text: str = TEXT) -> np.ndarray:
    answer = post(server, model, text)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float64)


def reload(server: Server) -> requests.Response:
    return requests.post(f"{server.url}/admin/reload", headers=ADMIN, timeout=60)


def served(server: Server) -> list[str]:
    listing = requests.get(f"{server.url}/v1/models", timeout=10).json()
    return [entry["id"] for entry in listing["data"]]


def unit(numbers: Any) -> np.ndarray:
    found = np.array(numbers, np.float64)
    return found / np.linalg.norm(found)


class Callers:
    """Clients that ask several models all the time, two each, and look whose vectors they get.

    Args:
        known: the vectors of TEXT that each model may give, by its name.

    Attributes:
        counts: answers by the model asked and the position of the vector among those known.
        refused: answers 503 that say when to come back.
        faults: what was anything else.
    """

    def __init__(self, server: Server, known: Mapping[str, list[np.ndarray]]) -> None:
        self._server = server
        self._known = known
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(name,)) for name in known for _ in "ab"]
        self.counts: Counter[tuple[str, int]] = Counter()
        self.refused = 0
        self.faults: list[str] = []

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait(self, position: int = 0, *names: str) -> None:
        """Until each model (those named) has given some more of its vectors at a position."""
        before = Counter(self.counts)
        wanted = [(name, position) for name in names or self._known]
        wait_until(lambda: all(self.counts[key] > before[key] + 5 for key in wanted), 60, self._server)

    def _call(self, name: str) -> None:
        body = {"input": TEXT, "model": name}
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    answer = session.post(f"{self._server.url}/v1/embeddings", json=body, timeout=60)
                except requests.RequestException as error:
                    self.faults.append(f"{name}: {error}")
                    continue
                if answer.status_code == 503 and "retry-after" in answer.headers:
                    self.refused += 1
                    self._stop.wait(0.05)
                elif answer.status_code != 200:
                    self.faults.append(f"{name}: {answer.status_code} {answer.text[:200]}")
                else:
                    self._look(name, np.array(answer.json()["data"][0]["embedding"], np.float64))

    def _look(self, name: str, found: np.ndarray) -> None:
        for position, vector in enumerate(self._known[name]):
            if vector.shape == found.shape and found @ vector > 0.999:
                self.counts[name, position] += 1
                return
        self.faults.append(f"{name}: a vector of no known model")
