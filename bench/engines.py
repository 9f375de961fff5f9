"""One model by every engine: the graph that is built from its weights, the same exported, and PyTorch.

Texts of 20 tokens for all-MiniLM-L6-v2, whose folder is copied and gets an ONNX file beside its weights.
Each way is loaded in a process of its own, turn by turn, so that a machine whose speed drifts drifts for
all; the figures are medians over the turns. Batches come from as many threads as the engine takes.
Needs `make .venv-oracles/installed`.

    python bench/engines.py --output bench/results/engines.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import texts

ROOT = Path(__file__).parents[1]
ORACLES = ROOT / ".venv-oracles"

WAYS = {
    "built from safetensors": {"engine": "openvino", "model_file": "model.safetensors"},
    "ONNX": {"engine": "openvino", "model_file": "onnx/model.onnx"},
    "PyTorch": {"engine": "torch"},
}
DTYPES = ("f32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # what a child is called with
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = export(Path(place) / "all-MiniLM-L6-v2")
        for _ in range(args.turns):
            for way in WAYS:
                for dtype in DTYPES:
                    runs.setdefault((way, dtype), []).append(in_a_process(folder, way, dtype))
    rows = [
        {"way": way, "dtype": dtype} | {key: statistics.median(run[key] for run in turns) for key in turns[0]}
        for (way, dtype), turns in runs.items()
    ]
    print("| | dtype | load s | memory MB | one text ms | batches of 32, texts/s |")
    print("|---|---|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['way']} | {row['dtype']} | {row['load_s']:.1f} | {row['memory_mb']:.0f} "
            f"| {row['one_ms']:.1f} | {row['texts_s']:.0f} |"
        )
    if args.output:
        document = {
            "date": datetime.date.today().isoformat(),
            "command": "python bench/engines.py",
            "turns": args.turns,
            "rows": rows,
        }
        args.output.write_text(json.dumps(document, indent=2) + "\n")


def export(folder: Path) -> Path:
    """A copy of the default model's folder, with the graph that the program in docs/models.md exports."""
    from llmrs.models.resolve import DEFAULT_MODEL, resolve

    shutil.copytree(resolve(DEFAULT_MODEL, offline=True), folder)
    program = re.search(r"```python\n(import sys\n.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    assert program is not None
    subprocess.run([ORACLES / "bin/python", "-c", program[1], folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def in_a_process(folder: Path, way: str, dtype: str) -> dict[str, float]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"{ROOT}{os.pathsep}{ORACLES}/lib/{version}/site-packages"
    done = subprocess.run(
        [sys.executable, __file__, "--measure", folder, way, dtype],
        env={**os.environ, "PYTHONPATH": packages},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: str, way: str, dtype: str) -> dict[str, float]:
    """Load a model and embed with it, alone and in batches. Memory is the highest of the process."""
    began = time.perf_counter()
    from llmrs.backends.local import LocalBackend

    backend = LocalBackend(folder, dtype=dtype, offline=True, **WAYS[way])
    load = time.perf_counter() - began
    prepared = backend.prepare(texts.make("en20", 1024))
    one = [seconds(backend, prepared[number : number + 1]) for number in range(100)]
    batches = [prepared[start : start + 32] for start in range(0, len(prepared), 32)]
    with ThreadPoolExecutor(backend.limits.slots) as threads:
        began = time.perf_counter()
        list(threads.map(lambda batch: backend.embed(batch, timeout=60), batches))
        took = time.perf_counter() - began
    return {
        "load_s": load,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "one_ms": statistics.median(one) * 1e3,
        "texts_s": len(prepared) / took,
    }


def seconds(backend, batch) -> float:
    began = time.perf_counter()
    backend.embed(batch, timeout=60)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
