"""The application under both workers in bench_http.py: it reads the body and answers a constant."""

from __future__ import annotations

import falcon

PATH = "/v1/embeddings"
ANSWER = '{"object":"list","data":[]}'


class Embeddings:
    """`POST /v1/embeddings`."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.bounded_stream.read()
        resp.data = ANSWER.encode()


class Health:
    """`GET /health`."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = b"{}"


def make_app() -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application."""
    app = falcon.App()
    app.add_route(PATH, Embeddings())
    app.add_route("/health", Health())
    return app
