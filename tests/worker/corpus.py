"""Good and bad HTTP, as bytes. Where the two workers differ, the difference stands here with its reason."""

from __future__ import annotations

HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST /echo?a=1&b=%20 HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunks(body: bytes, size: int) -> bytes:
    """A body in chunks of this size, with its end."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + END


def to(path: bytes, *, method: bytes = b"GET", version: bytes = b"1.1", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/%b\r\n%b%b\r\n%b" % (method, path, version, HOST, length, body)


GOOD = {
    "get": GET + b"\r\n",
    "post": POST + b"Content-Length: 5\r\n\r\nhello",
    "empty post": POST + b"Content-Length: 0\r\n\r\n",
    "post without length": POST + b"\r\n",
    "length with leading zeros": POST + b"Content-Length: 0005\r\n\r\nhello",
    "chunked": CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n" + END,
    "chunked in upper case": POST + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n" + END,
    "chunk of one byte each": CHUNKED + chunks(b"hello world", 1),
    "chunk extensions": CHUNKED + b'5;a=b;c="d e";f\r\nhello\r\n0;last\r\n\r\n',
    "chunk sizes in upper case with zeros": CHUNKED + b"00A\r\n0123456789\r\n000\r\n\r\n",
    "chunks full of line breaks": CHUNKED + chunks(b"\r\n\r\n\r\n0\r\n\r\n\r", 3) + GET + b"\r\n",
    "no chunks": CHUNKED + END,
    "trailers": CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer: t\r\nX-Empty:\r\n\r\n" + GET + b"\r\n",
    "http/1.0": to(b"/old", version=b"1.0"),
    "http/1.0 without host": b"GET /old HTTP/1.0\r\n\r\n",
    "http/1.0 keep-alive": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET + b"\r\n",
    "http/1.0 does not expect": b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "connection: close": GET + b"Connection: close\r\n\r\n",
    "connection: Close and more": GET + b"Connection: Close\r\n\r\n" + GET + b"\r\n",
    "pipelined": GET + b"\r\n" + POST + b"Content-Length: 5\r\n\r\nhello" + GET + b"\r\n",
    "pipelined after chunked": CHUNKED + b"5\r\nhello\r\n" + END + GET + b"\r\n",
    "one empty line first": b"\r\n" + GET + b"\r\n",
    "an empty line in between": POST + b"Content-Length: 5\r\n\r\nhello\r\n" + GET + b"\r\n",
    "absolute form": to(b"http://x/abs?q=1"),
    "asterisk form": to(b"*", method=b"OPTIONS"),
    "escapes": to(b"/a%20b%2Fc%C3%A9?d=%20e"),
    "escapes that are none": to(b"/%zz%4?%"),
    "two slashes first": to(b"//a//b"),
    "question marks": to(b"/a?b?c"),
    "fragment": to(b"/a?b#c?d"),
    "strange characters in a target": to(b'/"<>|^`{}\\?"<>|^`{}\\'),
    "two values of a header": GET + b"X-A: 1\r\nx-a: 2\r\nX-a: 3\r\n\r\n",
    "white space around a value": GET + b"X-A: \t a \t b \t \r\n\r\n",
    "no white space around a value": GET + b"X-A:1\r\n\r\n",
    "empty value": GET + b"X-A:\r\nX-B: \r\nX-C: c\r\n\r\n",
    "latin-1 value": GET + b"X-A: caf\xe9\r\n\r\n",
    "underscore in a name": GET + b"X_A: dropped\r\nX-A: kept\r\nContent_Length: 5\r\n\r\n",
    "all token characters in a name": GET + b"!#$%&'*+-.^`|~09Az: 1\r\n\r\n",
    "put": to(b"/p", method=b"PUT", body=b"x"),
    "delete with a body": to(b"/p", method=b"DELETE", body=b"x"),
    "unread body": to(b"/unread", method=b"POST", body=b"hello") + GET + b"\r\n",
    "stream": to(b"/stream") + GET + b"\r\n",
    "generator": to(b"/late") + GET + b"\r\n",
    "write callable": to(b"/write") + GET + b"\r\n",
    "204": to(b"/nothing") + GET + b"\r\n",
    "304 with a length": to(b"/not-modified") + GET + b"\r\n",
    "more than declared": to(b"/too-much") + GET + b"\r\n",
    "header of the connection from the application": to(b"/hop-by-hop") + GET + b"\r\n",
    "readline": to(b"/readline", method=b"POST", body=b"first\nsecond\nthird\nend"),
    "expect": POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "offer of a websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET + b"\r\n",
    "offer of HTTP/2, with a body": POST
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    + b"Content-Length: 5\r\n\r\nhello" + GET + b"\r\n",
    "offer of HTTP/2, with chunks": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunks(b"hello", 2) + GET + b"\r\n",
}  # fmt: skip

BAD = {
    "nonsense": b"nonsense\r\n\r\n",
    "two empty lines first": b"\r\n\r\n" + GET + b"\r\n",
    "LF first": b"\n" + GET + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n" + HOST + b"\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces after the target": b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "method in lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "version 3.0": b"GET / HTTP/3.0\r\n" + HOST + b"\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "version 1.11": b"GET / HTTP/1.11\r\n" + HOST + b"\r\n",
    "version in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "both lengths, other order": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + END,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "length in hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "empty length": POST + b"Content-Length:\r\n\r\nhello",
    "length in other digits": POST + b"Content-Length: \xb2\r\n\r\nhello",
    "endless length": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "two content types": POST + b"Content-Type: text/html\r\n\r\n",
    "bare LF in a header": b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF after another fault": b"GET / HTTP/3.0\r\nHost: x\nX: y\r\nZ: z\r\n\r\n",
    "bare LF among too many headers": GET + b"X: y\r\n" * 150 + b"X: y\n" + b"X: y\r\n" * 150 + b"\r\n",
    "bare LF at the end": GET + b"X: y\r\n\n",
    "bare CR in a value": GET + b"X: a\rb\r\n\r\n",
    "bare CR at the end of a line": GET + b"X: a\rY: b\r\n\r\n",
    "NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "NUL in a name": GET + b"X\x00: a\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character in a value": GET + b"X: a\x01b\r\n\r\n",
    "DEL in a value": GET + b"X: a\x7fb\r\n\r\n",
    "byte beyond ASCII in the target": b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "byte beyond ASCII in a name": GET + b"X\xe9: a\r\n\r\n",
    "space before the colon": GET + b"X : a\r\n\r\n",
    "space before the first name": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "folded header": GET + b"X: a\r\n b\r\n\r\n",
    "header folded into nothing": GET + b"X:\r\n\t\r\n\r\n",
    "bad character in a name": GET + b"X(: a\r\n\r\n",
    "empty name": GET + b": a\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "authority form": b"GET x:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk that is no option": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "te not ending in chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END,
    "te chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "te chunked twice in one": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + END,
    "te gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n" + END,
    "te in http/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "too many headers": GET + b"X: y\r\n" * 300 + b"\r\n",
    "a header too long": GET + b"X: " + b"y" * 9_000 + b"\r\n\r\n",
    "a target too long": b"GET /" + b"y" * 5_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown expectation": POST + b"Expect: miracles\r\nContent-Length: 5\r\n\r\nhello",
    "contradictory schemes": GET + b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
}  # fmt: skip

BAD_BODIES = {
    "letters as chunk size": CHUNKED + b"zz\r\nhello\r\n" + END,
    "negative chunk size": CHUNKED + b"-5\r\nhello\r\n" + END,
    "prefixed chunk size": CHUNKED + b"0x5\r\nhello\r\n" + END,
    "chunk size with a space": CHUNKED + b"5 \r\nhello\r\n" + END,
    "empty chunk size": CHUNKED + b"\r\nhello\r\n" + END,
    "chunk longer than declared": CHUNKED + b"5\r\nhelloX\r\n" + END,
    "chunk without an end": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "chunks with bare LF": CHUNKED + b"5\nhello\n0\n\n",
    "bare LF after a chunk": CHUNKED + b"5\r\nhello\n" + END,
    "control character in an extension": CHUNKED + b"5;a\x01\r\nhello\r\n" + END,
    "trailer without a colon": CHUNKED + b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    "length in the trailers": CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "chunks that end early": CHUNKED + b"5\r\nhello\r\n",
    "chunk that ends early": CHUNKED + b"5\r\nhel",
}

ONLY_OURS = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "RFC 9112 (3.2) has a server refuse that"),
    "connect": (b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501, "a proxy's method"),
    "unknown method": (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "llhttp knows the registered methods"),
    "version 1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505, "there is none"),
    "two authorizations": (GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n", 400, "whose request?"),
    "two request ids": (GET + b"X-Request-Id: a\r\nX-Request-Id: b\r\n\r\n", 400, "a header with one value"),
    "te gzip, chunked": (
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END, 501,
        "gunicorn hands the compressed body to an application that does not know it is",
    ),
    "te identity, chunked": (
        POST + b"Transfer-Encoding: identity, chunked\r\n\r\n" + END, 501, "no longer a coding, RFC 9112",
    ),
    "a head too large": (GET + (b"X: " + b"y" * 7000 + b"\r\n") * 5 + b"\r\n", 431, "32 KiB are enough"),
    "a body that ends early": (POST + b"Content-Length: 9\r\n\r\nhello", 400, "gunicorn gives a short body"),
}  # fmt: skip
"""What gunicorn serves and we refuse, with our status and the reason."""

STATUS = {
    "version 3.0": (505, 400, "RFC 9110 has a status for it"),
    "version 0.9": (505, 400, "the same"),
    "preface of HTTP/2": (505, 400, "the same"),
    "bare LF among too many headers": (400, 431, "the first fault counts, however the head was cut"),
}
"""Where both refuse with another status: ours, gunicorn's, and the reason."""
