"""Makes the reference vectors that tests/models compares with, by sentence-transformers in fp32.

    python scripts/make_references.py MODEL_FOLDER tests/models/references/all-MiniLM-L6-v2

Needs an environment with torch and sentence-transformers, which llmrs itself never needs. Writes
OUTPUT.json (texts, token ids, versions, date) and OUTPUT.npy (float32 [texts, dimensions]). Every
text is embedded alone, so that no padding is involved.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import numpy as np

FOX = "The quick brown fox jumps over the lazy dog. "
PROSE = (
    "Embedding models map a text to a point in a space of a few hundred dimensions, so that texts of "
    "similar meaning lie close together. They are trained on pairs of texts, for instance a question "
    "and its answer, whose points are pulled together while all others are pushed apart. "
)

SHORT = [
    "a",
    "Hello, world",
    "hello world",
    "HELLO WORLD",
    "What is the capital of France?",
    "Paris is the capital of France.",
    "The cat sits on the mat.",
    "A dog is playing in the garden.",
    "How do I reset my password?",
    "I forgot my login credentials.",
    "def add(a, b):\n    return a + b",
    "SELECT name FROM users WHERE id = 42;",
    "https://example.org/a/b?c=d&e=f#g",
    "user@example.org",
    "state-of-the-art, well-known; e.g. (parentheses) [brackets] {braces}",
    "don't can't won't it's",
    "...",
    "!?",
    "$1,234.56 + 7% = ?",
    "3.14159265358979",
    "1234567890 0x1F 1e-9",
    "2024-02-29T12:34:56Z",
]
ODD = [
    "",
    " ",
    " \t\n ",
    "  leading and trailing blanks  ",
    "many     blanks      between",
    "line one\nline two\r\nline three\n",
    "tab\tseparated\tvalues",
    "\u00a0no-break\u00a0space\u2003em space\u3000",
    "zero\u200bwidth\u200djoiner\ufeff",
    "control\x00\x07\x1b characters",
    "[CLS] special [SEP] tokens [MASK] [PAD] [UNK]",
    "##wordpiece ##markers",
    "x" * 99,
    "x" * 150,
    "ab" * 80 + " short",
]
LANGUAGES = [
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\u81ea\u7136\u8bed\u8a00\u5904\u7406\u662f\u4eba\u5de5\u667a\u80fd\u7684\u4e00\u4e2a\u91cd\u8981\u9886\u57df\u3002",
    "\u6df7\u5408 English \u548c\u4e2d\u6587 text \u5728\u4e00\u8d77 2024 \u5e74",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "Stra\u00dfe, caf\u00e9, na\u00efve, \u00c5ngstr\u00f6m, \u0141\u00f3d\u017a",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "Z\u0351\u0302\u034c\u0300a\u0309\u0308\u034fl\u0317\u0341g\u033a\u035ao\u0320",
    "\U0001f600 \U0001f680\U0001f319 emoji \u2764\ufe0f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f1eb\U0001f1f7 flags \U0001f44d\U0001f3fd",
    "\u2211\u222b\u221a\u03c0 \u2260 \u221e, x\u00b2 + y\u00b2 = z\u00b2",
    "\ufb01ligature \u2460 \u00bd \u2122",
]
LONG = [
    FOX * 3,
    PROSE,
    PROSE * 2,
    PROSE * 4,
    PROSE * 12,
    FOX * 40 + "The end of this text differs.",
    "\u6587\u672c\u5d4c\u5165\u6a21\u578b" * 60,
    "word " * 254,
    "word " * 255,
    "\U0001f600 " * 300,
]


def main() -> None:
    import sentence_transformers
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("output", type=Path, help="path of the two files, without their endings")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = SentenceTransformer(arguments.model, device="cpu").float()
    texts = [*SHORT, *ODD, *LANGUAGES, *LONG]
    vectors = np.stack([model.encode(text, convert_to_numpy=True) for text in texts])
    ids = [model.tokenizer(text, truncation=True)["input_ids"] for text in texts]
    about = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "made_by": {
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "dtype": "float32",
        },
        "date": datetime.date.today().isoformat(),
        "texts": texts,
        "token_ids": ids,
    }
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items())
    Path(f"{arguments.output}.json").write_text(f"{{\n{body}\n}}\n", encoding="ascii")
    np.save(f"{arguments.output}.npy", vectors.astype(np.float32))
    print(f"{len(texts)} texts, vectors {vectors.shape}")


if __name__ == "__main__":
    main()
