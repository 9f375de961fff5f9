"""What an option is: how text and TOML become its value, and how a value is shown.

Knows no option by name (the table is `llmrs.config.Config`) and reads no file and no environment.
A kind accepts two spellings of a value: the TOML one, whose type must be right, and text, as
environment variables and flags hold it. Both end in the same check, so no source of a value can
set what another could not.

Rejections carry the reason only. The loader adds key, value and source, because it alone knows
them, and shows the value through `Kind.show`, which masks secrets.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

MAX_TEXT = 4096
"""Characters of the longest accepted text: Linux's PATH_MAX, the longest thing an option names."""

MAX_SHOWN = 120
"""Characters of a value in a message: enough to recognise it, and the message stays one line."""

MAX_UNIX_PATH = 107
"""Bytes in a Unix socket's path on Linux: `sun_path` has 108, the last one is NUL (unix(7))."""

BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


class UnfitError(ValueError):
    """A value that a kind refuses. Its text is the reason, or empty where `expected` says it all."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One type of option.

    Attributes:
        expected: what a value must be; completes "expected ...".
        metavar: the value's placeholder in `--help`.
        check: the value of a TOML object of the right type; raises UnfitError otherwise.
        read: the TOML object that a text spells, or the text itself where it spells none.
        mask: hides what is secret in a shown text.
    """

    expected: str
    metavar: str
    check: Callable[[object], T]
    read: Callable[[str], object] = str.strip
    mask: Callable[[str], str] = str

    def from_text(self, text: str) -> T:
        """The value that `text` (an environment variable, a flag) spells; raises UnfitError."""
        return self.check(self.read(text))

    def show(self, value: object) -> str:
        """`value` on one line, spelled as in TOML, cut to a bounded length, its secrets masked."""
        if value is None or value == ():
            return "unset"
        shown = _spell(value, self.mask)
        return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "..."


@dataclass(frozen=True)
class Option:
    """One row of the table: a key of the configuration file, an environment variable and a flag.

    Attributes:
        per_model: whether a [[models]] table of the file may set it for that model.
    """

    name: str
    kind: Kind[Any]
    default: object
    meaning: str
    per_model: bool = False

    @property
    def env(self) -> str:
        """The environment variable: PORT."""
        return self.name.upper()

    @property
    def flag(self) -> str:
        """The flag: --port."""
        return "--" + self.name.replace("_", "-")


def integer(low: int, high: int) -> Kind[int]:
    """A whole number from `low` to `high`, both included."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError
        return value

    def read(raw: str) -> object:
        # int() would also take underscores, other scripts' digits and thousands of characters.
        return int(raw) if re.fullmatch(r"[+-]?[0-9]{1,18}", raw := raw.strip()) else raw

    return Kind(f"an integer from {low} to {high}", "N", check, read)


def seconds(low: float, high: float) -> Kind[float]:
    """A duration in seconds, fractions allowed, from `low` to `high`, both included."""
    return _decimal(low, high, f"a number of seconds from {low:g} to {high:g}", "SECONDS")


def rate(low: float, high: float) -> Kind[float]:
    """How often a second, fractions allowed, from `low` to `high`, both included; 0 means no limit."""
    kind = _decimal(0, high, f"a number a second from {low:g} to {high:g}, or 0", "RATE")

    def check(value: object) -> float:
        if 0 < (number := kind.check(value)) < low:
            raise UnfitError
        return number

    return replace(kind, check=check)


def share() -> Kind[float]:
    """A part of the whole, from 0 to 1."""
    return _decimal(0, 1, "a number from 0 to 1", "SHARE")


def _decimal(low: float, high: float, expected: str, metavar: str) -> Kind[float]:
    def check(value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError  # NaN too: it compares false.
        return float(value)

    def read(raw: str) -> object:
        return float(raw) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", raw := raw.strip()) else raw

    return Kind(expected, metavar, check, read)


def boolean() -> Kind[bool]:
    """True or false; as text also 1/0, yes/no and on/off, in any letter case."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise UnfitError
        return value

    return Kind("true or false", "BOOL", check, lambda raw: BOOLEANS.get(raw.strip().lower(), raw))


def choice(*names: str, aliases: Mapping[str, str] | None = None, others: str = "") -> Kind[str]:
    """One of `names` in any letter case; `aliases` are further spellings of them.

    `others` says what else is taken, spelled as it is: a name that only its user can look up.
    """
    words = {name: name for name in names} | dict(aliases or {})

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise UnfitError
        word = words.get(value.lower())
        if word is None and others and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,99}", value):
            word = value
        if word is None:
            raise UnfitError
        return word

    expected = f"one of {', '.join(names)}" if len(names) > 1 else f"{names[0]}, the only choice so far"
    if others:
        expected += f" or {others}"
    return Kind(expected, "|".join([*names, "NAME"] if others else names), check)


def text(expected: str, metavar: str, fits: Callable[[str], str] = str) -> Kind[str]:
    """A text without control characters; `fits` refuses further ones, or normalises them."""

    def check(value: object) -> str:
        # isprintable() also refuses lone surrogates, which is how undecodable bytes arrive.
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            raise UnfitError
        if value != value.strip():
            raise UnfitError
        return fits(value)

    return Kind(expected, metavar, check)


def inside() -> Kind[str]:
    """A path inside a folder: relative, with slashes, never leading out of it."""

    def fits(value: str) -> str:
        if value.startswith("/") or not {"", ".", ".."}.isdisjoint(value.split("/")):
            raise UnfitError
        return value

    return text("a path inside the model's folder", "PATH", fits)


def version() -> Kind[str]:
    """The version of an API, as Azure dates them: 2024-10-21, 2025-04-01-preview."""

    def fits(value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise UnfitError
        return value

    return text("a version such as 2024-10-21", "VERSION", fits)


def device() -> Kind[str]:
    """Where PyTorch computes: a kind of device, and a number if there are several."""

    def fits(value: str) -> str:
        if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:[0-9]{1,2})?", value.lower()):
            raise UnfitError
        return value.lower()

    return text("auto, cpu, cuda, cuda:1, mps or xpu", "DEVICE", fits)


def several(kind: Kind[str]) -> Kind[tuple[str, ...]]:
    """Any number of texts: in TOML one string or an array, elsewhere separated by commas."""

    def check(value: object) -> tuple[str, ...]:
        items = value if isinstance(value, list) else [value]
        # A comma could be written in TOML only, and there it is most likely a forgotten array.
        if any(isinstance(item, str) and "," in item for item in items):
            raise UnfitError(f"expected {kind.expected}, several of them as an array and none with a comma")
        return tuple(kind.check(item) for item in items)

    def read(raw: str) -> object:
        return [item.strip() for item in raw.split(",")]

    return Kind(f"{kind.expected}, or several", f"{kind.metavar},...", check, read, kind.mask)


def secret(expected: str) -> Kind[str]:
    """A key sent in an HTTP header: visible ASCII only, since no other can ever be matched."""

    def fits(value: str) -> str:
        if not re.fullmatch(r"[!-~]+", value):
            raise UnfitError
        return value

    return replace(text(expected, "KEY", fits), mask=lambda shown: "***")


def url() -> Kind[str]:
    """The address of an HTTP backend, or `unix:` and the path of its socket."""

    def mask(shown: str) -> str:
        # Credentials end at the last @, and only then does what follows a ? belong to the query.
        shown = re.sub(r"(?s)^.*@", "***@", shown)
        return re.sub(r"(?s)[?#].*", "?***", shown)

    return replace(text("an http://, https:// or unix: address", "URL", _fit_url), mask=mask)


def origin() -> Kind[str]:
    """A web page's origin, spelled as browsers send it, or `*` for any."""
    return text("an origin such as https://app.example, or *", "ORIGIN", _fit_origin)


def address() -> Kind[str]:
    """Where to listen: an IP address, a host name, or `unix:` and the path of a socket."""
    return text("an IP address, a host name or unix:/path", "HOST", _fit_address)


def _fit_url(value: str) -> str:
    if value.startswith("unix:"):
        return _fit_unix(value)
    try:
        parts = urlsplit(value)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # Its message quotes the address, credentials included.
        raise UnfitError from None
    if "@" in parts.netloc:
        raise UnfitError("expected no user name or password in the address: set backend_api_key instead")
    if not complete or " " in value:
        raise UnfitError
    if not re.fullmatch(r"[^?#]*(\?api-version=[A-Za-z0-9._-]+)?", value):
        raise UnfitError(
            "expected an address without ? and #, because paths are appended to it; only Azure's "
            "?api-version= is taken"
        )
    return value


def _fit_origin(value: str) -> str:
    """The origin in lower case and without its scheme's own port, since that is what browsers send."""
    if value == "*":
        return value
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", value.lower())
    if match is None:
        raise UnfitError("expected scheme://host or scheme://host:port, without a path or a slash, or *")
    scheme, host, port = match.groups()
    own = {"http": ":80", "https": ":443"}.get(scheme)
    return f"{scheme}://{host}{'' if port in (None, own) else port}"


def _fit_address(value: str) -> str:
    if value.startswith("unix:"):
        return _fit_unix(value)
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if re.fullmatch(r".*:[0-9]+", host):
            raise UnfitError("expected a host without a port, which is the key port") from None
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})", host):
            raise UnfitError from None
    return host


def _fit_unix(value: str) -> str:
    """`unix:/path` of `unix:/path` or `unix:///path`."""
    path = re.sub(r"^//(?=/)", "", value.removeprefix("unix:"))
    if not path.startswith("/") or path.endswith("/"):
        raise UnfitError("expected an absolute path of a socket after unix:")
    if len(path.encode()) > MAX_UNIX_PATH:
        raise UnfitError(
            f"expected a socket path of at most {MAX_UNIX_PATH} bytes, the operating system's limit"
        )
    return "unix:" + path


def _spell(value: object, mask: Callable[[str], str]) -> str:
    """`value` in TOML's spelling, on one line, its texts and numbers masked."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        items = ["[...]" if isinstance(item, list) else _spell(item, mask) for item in value]
        return items[0] if isinstance(value, tuple) and len(items) == 1 else f"[{', '.join(items)}]"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, str):
        shown = mask(value)
        # Escaped in full where a character could break the line or cannot be printed at all.
        return json.dumps(shown, ensure_ascii=not shown.isprintable())
    # Python refuses to write an integer of more than 4,300 digits, and 64 bits are TOML's limit.
    huge = isinstance(value, int) and value.bit_length() > 64
    return "a huge integer" if huge else mask(str(value))
