"""The service llmrs was made to stand in front of: FastAPI, uvicorn, one model, the legacy form.

Run as a program it listens on a free port of the loopback interface and prints that port. The
model is replaced by `vectors.vector`. The text "poison" is refused as a real one may be, and on texts
that begin with "bad" the model raises, as one does that has fewer positions than a text has tokens.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))
from vectors import vector  # a program has no package around it

app = FastAPI()


class EmbedRequest(BaseModel):
    texts: list[str]
    normalize_embeddings: bool = True
    batch_size: int = 32


@app.post("/embed")
async def embed(request: EmbedRequest) -> dict[str, object]:
    if "poison" in request.texts:
        raise HTTPException(400, "cannot embed poison")
    if any(text.startswith("bad") for text in request.texts):
        raise RuntimeError("secret of the backend")
    vectors = [vector(text) for text in request.texts]
    return {"vectors": vectors, "count": len(vectors), "vector_dim": len(vectors[0]), "model_path": "m"}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    asyncio.run(server.serve(sockets=[listener]))
