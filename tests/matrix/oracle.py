"""What sentence-transformers makes of model folders, one after another. Runs in its own environment.

Reads a folder's path a line, and answers with a line of JSON: vectors of all texts, each computed alone in
float32, of a query and of a document; or the error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer

from tests.matrix.texts import QUERY, TEXTS


def vectors(folder: str) -> dict[str, Any]:
    model = SentenceTransformer(
        folder, device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    settings: dict[str, Any] = {"batch_size": 1, "show_progress_bar": False}
    return {
        "texts": model.encode(list(TEXTS), **settings).tolist(),
        "query": model.encode_query([QUERY], **settings).tolist(),
        "document": model.encode_document([QUERY], **settings).tolist(),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = vectors(line.strip())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # panics of tokenizers are no Exceptions
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        gc.collect()


if __name__ == "__main__":
    main()
