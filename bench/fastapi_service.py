"""The usual FastAPI + sentence-transformers embedding service, as the other side of the comparison.

Written as such services are written, with nothing left out that makes them faster at no cost: one
process, the model loaded once, a plain `def` endpoint (FastAPI runs it in its thread pool), float
lists as the answer. Run it with: uvicorn --app-dir bench fastapi_service:app --port 8000
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

MODEL_PATH = os.environ.get("MODEL_PATH", "sentence-transformers/all-MiniLM-L6-v2")

app = FastAPI()
model = SentenceTransformer(MODEL_PATH, device="cpu")


class EmbedRequest(BaseModel):
    texts: list[str]
    normalize_embeddings: bool = True
    batch_size: int = 32


class OpenAIRequest(BaseModel):
    input: str | list[str]
    model: str = ""
    encoding_format: str = "float"


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/embed")
def embed(request: EmbedRequest) -> dict[str, object]:
    vectors = model.encode(
        request.texts,
        normalize_embeddings=request.normalize_embeddings,
        batch_size=request.batch_size,
    )
    return {
        "vectors": vectors.tolist(),
        "count": len(vectors),
        "vector_dim": int(vectors.shape[1]),
        "model_path": MODEL_PATH,
    }


@app.post("/v1/embeddings")
def embeddings(request: OpenAIRequest) -> dict[str, object]:
    texts = [request.input] if isinstance(request.input, str) else request.input
    vectors = model.encode(texts, normalize_embeddings=True)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors.tolist())
        ],
        "model": request.model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
