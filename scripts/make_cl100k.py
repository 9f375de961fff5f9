"""Write llmrs/cl100k.xz, OpenAI's vocabulary for decoding, from the file that OpenAI publishes.

    python scripts/make_cl100k.py cl100k_base.tiktoken

The published file has a line for each token, its bytes in base64 and its id; ids count up from 0. What is
written is a byte with the length of each token, then the bytes of all, compressed. A test makes the published
file of it again.
"""

from __future__ import annotations

import base64
import hashlib
import lzma
import sys
from pathlib import Path

PUBLISHED_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
TARGET = Path(__file__).parents[1] / "llmrs" / "cl100k.xz"


def main(source: str) -> None:
    published = Path(source).read_bytes()
    if hashlib.sha256(published).hexdigest() != PUBLISHED_SHA256:
        raise SystemExit(f"{source} is not cl100k_base.tiktoken as OpenAI publishes it")
    tokens = []
    for line in published.splitlines():
        token, _, number = line.partition(b" ")
        if int(number) != len(tokens):
            raise SystemExit(f"{source}: the ids do not count up from 0")
        tokens.append(base64.b64decode(token))
    data = bytes(map(len, tokens)) + b"".join(tokens)
    TARGET.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(tokens)} tokens, {TARGET.stat().st_size} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1])
