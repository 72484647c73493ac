"""Store URLs of the Redis protocol, parsed and validated.

    redis://[user[:password]@]host[:port][/database]     rediss:// the same over TLS
    unix://[user[:password]@]/path/to/socket

Options: `prefix` (of every key), `partitions` (when the store is created), `retention` (seconds
that finished runs are kept), `durability` (see `settings`), `db` (for unix://), `ca` (a file with
the certificate authority for rediss://), `folder` (of this machine, that the server writes to),
`stream_bytes` (what the streams of one run may hold).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from fluvial.errors import InvalidRequestError
from fluvial.ids import MAX_PARTITIONS
from fluvial_queue.contract import DEFAULT_PARTITIONS, DEFAULT_RETENTION_MS, Durability
from fluvial_queue.redis.keys import DEFAULT_PREFIX
from fluvial_queue.stream_contract import DEFAULT_STREAM_BYTES

DEFAULT_PORT: Final = 6379
_OPTIONS: Final = (
    *("ca", "db", "durability", "folder", "partitions", "prefix", "retention", "stream_bytes"),
)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is and how to use it; exactly one of `path` and `host` is set."""

    path: str = ""
    host: str = ""
    port: int = DEFAULT_PORT
    is_tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0
    prefix: str = DEFAULT_PREFIX
    partitions: int = DEFAULT_PARTITIONS
    retention_ms: int = DEFAULT_RETENTION_MS
    stream_bytes: int = DEFAULT_STREAM_BYTES
    durability: Durability | None = None  # what the operator says; None: look
    folder: Path | None = None  # its disk is watched; None: it is none of ours

    def __str__(self) -> str:
        """Return the place, without the password."""
        return f"unix://{self.path}" if self.path else f"redis://{self.host}:{self.port}"


def parse_address(url: str) -> Address:
    """Return the address that a URL means.

    Raises:
        InvalidRequestError: the message names the part that is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise InvalidRequestError(f"a store of the Redis protocol has no scheme {parts.scheme!r}")
    options = _options(parts.query)
    is_unix = parts.scheme == "unix"
    if is_unix and (parts.hostname or not parts.path.startswith("/")):
        raise InvalidRequestError("a unix:// store URL is unix:///absolute/path/of/the/socket")
    if not is_unix and not parts.hostname:
        raise InvalidRequestError(f"the store URL {parts.scheme}://… names no host")
    return Address(
        path=unquote(parts.path) if is_unix else "",
        host="" if is_unix else parts.hostname or "",
        port=_port(parts) if not is_unix else DEFAULT_PORT,
        is_tls=parts.scheme == "rediss",
        ca_file=options.get("ca"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=_number("db", options.get("db") or _database(is_unix, parts.path), 0, 2**31),
        prefix=_prefix(options.get("prefix", DEFAULT_PREFIX)),
        partitions=_number(
            "partitions", options.get("partitions", str(DEFAULT_PARTITIONS)), 1, MAX_PARTITIONS
        ),
        retention_ms=1000 * _number("retention", options["retention"], 1, 2**31)
        if "retention" in options
        else DEFAULT_RETENTION_MS,
        stream_bytes=_number(
            "stream_bytes", options.get("stream_bytes", str(DEFAULT_STREAM_BYTES)), 1, 2**40
        ),
        durability=_durability(options.get("durability")),
        folder=_folder(options.get("folder")),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise InvalidRequestError(
                f"unknown option {name!r} in the store URL; known: {', '.join(_OPTIONS)}"
            )
    return options


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InvalidRequestError(f"the store URL's port is wrong: {error}") from error


def _database(is_unix: bool, path: str) -> str:
    return "0" if is_unix else path.strip("/") or "0"


def _prefix(prefix: str) -> str:
    if _PREFIX.fullmatch(prefix) is None:
        raise InvalidRequestError(
            f"the store's prefix {prefix!r} must be 1 to 64 letters, digits or any of _.-"
        )
    return prefix


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise InvalidRequestError(
            f"{name} in the store URL must be a number from {least} to {most}, got {text!r}"
        )
    return int(text)


def _durability(text: str | None) -> Durability | None:
    if text is None:
        return None
    if text == "replicated":
        raise InvalidRequestError("durability=replicated is not offered by this store; use disk")
    if text not in get_args(Durability):
        raise InvalidRequestError(f"durability must be memory, process or disk, got {text!r}")
    return cast(Durability, text)


def _folder(text: str | None) -> Path | None:
    if text is None:
        return None
    if not text.startswith("/"):
        raise InvalidRequestError(f"folder in the store URL must be an absolute path, got {text!r}")
    return Path(text)
