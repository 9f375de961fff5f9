"""Two local models under load at once: what a light one loses beside a heavy one that is never idle.

The light model is the default one, asked for one short text at a time by two clients. The heavy one has six
layers of width 768, random weights and four clients who send 4 texts of 200 tokens each. Each alone, then
both, turn by turn.

    python bench/neighbours.py --output bench/results/neighbours.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import requests
import services
import texts
from safetensors.numpy import load_file, save_file

WIDER = {384: 768, 1536: 3072}
CONFIG = """
[[models]]
model_name = "light"

[[models]]
model_name = "heavy"
model_path = "{heavy}"
"""


class Load(NamedTuple):
    """Clients of one model: how many, the kind of their texts, and how many texts a request has."""

    model: str
    clients: int
    kind: str
    texts: int


LOADS = {"light": Load("light", 2, "en20", 1), "heavy": Load("heavy", 4, "en200", 4)}
TURNS = (("light",), ("heavy",), ("light", "heavy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="of load in one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heavy = Path(folder) / "heavy"
        make_heavy(Path(services.model_folder()), heavy)
        config = Path(folder) / "llmrs.toml"
        config.write_text(CONFIG.format(heavy=heavy))
        with services.llmrs(folder, LLMRS_CONFIG=str(config)) as service:
            rows = measure(service.url, args.seconds, args.turns)
    print("| under load | model | texts/s | median ms | P99 ms |\n|---|---|---:|---:|---:|")
    for row in rows:
        cells = f"{row['rate']:.1f} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f}"
        print(f"| {row['load']} | {row['model']} | {cells} |")
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "bench/neighbours.py", *sys.argv[1:]]),
            "machine": services.machine(),
            "rows": rows,
        }
        args.output.write_text(json.dumps(document, indent=1) + "\n")


def make_heavy(light: Path, heavy: Path) -> None:
    """A model like the light one, twice as wide, with random weights."""
    shutil.copytree(light, heavy, ignore=shutil.ignore_patterns("*.safetensors", "onnx", "openvino"))
    config = json.loads((heavy / "config.json").read_text())
    for key in ("hidden_size", "intermediate_size"):
        config[key] = WIDER[config[key]]
    (heavy / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    shapes = {name: each.shape for name, each in load_file(light / "model.safetensors").items()}
    tensors = {
        name: random.normal(0, 0.02, [WIDER.get(size, size) for size in shape]).astype(np.float16)
        for name, shape in shapes.items()
        if "position_ids" not in name
    }
    save_file(tensors, heavy / "model.safetensors")


def measure(url: str, seconds: float, turns: int) -> list[dict[str, float | str]]:
    """A row for each model under each load, the medians of all turns."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(turns):
        for together in TURNS:
            times: dict[str, list[float]] = {name: [] for name in together}
            began = time.monotonic()
            threads = [
                threading.Thread(target=call, args=(url, LOADS[name], number, began + seconds, times[name]))
                for name in together
                for number in range(LOADS[name].clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            elapsed = time.monotonic() - began
            for name in together:
                row = " + ".join(together), name
                found.setdefault(row, []).append(times[name])
                rates.setdefault(row, []).append(len(times[name]) * LOADS[name].texts / elapsed)
    return [
        {
            "load": load,
            "model": name,
            "rate": round(statistics.median(rates[load, name]), 1),
            "p50_ms": round(1e3 * statistics.median(statistics.median(each) for each in turn), 1),
            "p99_ms": round(1e3 * statistics.median(float(np.percentile(each, 99)) for each in turn), 1),
        }
        for (load, name), turn in found.items()
    ]


def call(url: str, load: Load, seed: int, until: float, times: list[float]) -> None:
    """One client, that asks again as soon as it is answered."""
    words = texts.make(load.kind, 640, seed)
    with requests.Session() as session:
        position = 0
        while time.monotonic() < until:
            chosen = [words[(position + index) % len(words)] for index in range(load.texts)]
            position += load.texts
            body = {"model": load.model, "input": chosen, "encoding_format": "base64"}
            began = time.monotonic()
            answer = session.post(f"{url}/v1/embeddings", json=body, timeout=60)
            answer.raise_for_status()
            times.append(time.monotonic() - began)


if __name__ == "__main__":
    main()
