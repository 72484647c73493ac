"""Bearer tokens: who may do what on the control API.

Invariants:

* A token is 256 random bits. The store knows only its SHA-256, which is the record's id, so a copy
  of the store opens nothing. No hash with a work factor is needed: the preimage is not guessable.
* A digest is compared in constant time, and only after the store found it by equality of hashes,
  from which nothing of a token can be learned.
* Nothing is cached about tokens that do not exist; what is cached about one that does is forgotten
  after `_CACHE_SECONDS`, so a token that was deleted works no longer than that.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from fluvial.errors import AccessDeniedError, InvalidRequestError
from fluvial_gateway.problems import ProblemError
from fluvial_queue.contract import Record, RecordKind
from fluvial_queue.records import TokenRecord

_LOG = logging.getLogger(__name__)

TOKEN_PREFIX: Final = "flv_"
_TOKEN_BYTES: Final = 32
# At least 128 bits: 22 characters of base 64 are 132. The upper end bounds the hashing.
_TOKEN: Final = re.compile(r"[!-~]{22,256}")
_CACHE_SECONDS: Final = 10.0
_CACHE_ENTRIES: Final = 256
MAX_NAME_CHARACTERS: Final = 100


class Scope(StrEnum):
    """What a token may do; `ADMIN` may do everything."""

    ADMIN = "admin"
    DEPLOY = "deploy"
    ENVIRONMENT = "environment"
    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    DATA_READ = "data:read"
    KEYS = "keys"
    METRICS_READ = "metrics:read"
    LOGS_READ = "logs:read"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request comes from: the token's name (for the audit log) and its scopes."""

    token_id: str  # the first characters of the digest: names the token, reveals nothing
    name: str
    scopes: frozenset[Scope]

    @property
    def author(self) -> str:
        """How event logs name whoever asked for something."""
        return self.name or self.token_id

    def may(self, *any_of: Scope) -> bool:
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(any_of)

    def require(self, *any_of: Scope) -> None:
        """Raises:
        AccessDeniedError: none of the scopes is held.
        """
        if not self.may(*any_of):
            needed = " or ".join(any_of)
            raise AccessDeniedError(f"token {self.name!r} needs the scope {needed}")


class TokenRecords(Protocol):
    """The part of a store that holds tokens."""

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None: ...

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None: ...

    async def now_ms(self) -> int: ...


class Tokens:
    """Makes tokens and recognises them."""

    def __init__(
        self, records: TokenRecords, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._clock = clock
        self._cache: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    async def create(self, name: str, scopes: Iterable[Scope]) -> str:
        """Store a new token; return it in clear, which nobody can do again."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        await self._register(token, name, scopes)
        return token

    async def adopt_admin(self, token: str) -> bool:
        """Register the supervisor's token as an admin, once; return whether it was new.

        It looks first: a full store refuses to write, and a gateway must start nevertheless.
        """
        if await self._records.get_record("token", _digest(token)) is not None:
            return False
        return await self._register(token, "first admin", (Scope.ADMIN,))

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return whom the value of an Authorization header stands for.

        Raises:
            ProblemError: it is missing, malformed, or names no token (401).
        """
        token = _bearer(authorization)
        digest = _digest(token)
        cached = self._cache.get(digest)
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        self._cache.pop(digest, None)
        record = await self._records.get_record("token", digest)
        if record is None or not hmac.compare_digest(record.id, digest):
            raise ProblemError("unauthenticated", "the bearer token is unknown or was deleted")
        principal = _principal(record)
        self._remember(digest, principal)
        return principal

    async def _register(self, token: str, name: str, scopes: Iterable[Scope]) -> bool:
        digest = _digest(token)
        record = TokenRecord(
            name=name,
            scopes=tuple(sorted(scope.value for scope in scopes)),
            created_ms=await self._records.now_ms(),
        )
        created = await self._records.put_record("token", digest, record.to_dict(), expect=0)
        if created is not None:
            _LOG.info(
                "token created",
                extra={"token_id": digest[:8], "token_name": name, "scopes": record.scopes},
            )
        return created is not None

    def _remember(self, digest: str, principal: Principal) -> None:
        self._cache[digest] = (self._clock() + _CACHE_SECONDS, principal)
        while len(self._cache) > _CACHE_ENTRIES:
            self._cache.popitem(last=False)


def read_admin_token(file: Path) -> str | None:
    """Return the token in `file`; None if there is none: then operators manage all tokens.

    Raises:
        InvalidRequestError: the file holds no usable token.
    """
    if not file.exists():
        return None
    if file.stat().st_mode & 0o077:
        _LOG.warning("the admin token is readable by others", extra={"file": str(file)})
    token = file.read_text(errors="replace").strip()
    if not _TOKEN.fullmatch(token):
        raise InvalidRequestError(
            f"{file} holds no token: expected 22 to 256 printable characters on one line"
        )
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise ProblemError("unauthenticated", "send the header `Authorization: Bearer <token>`")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
        raise ProblemError("unauthenticated", "the header must be `Authorization: Bearer <token>`")
    return token


def _principal(record: Record) -> Principal:
    # A scope that an older or newer version wrote is no reason to refuse the others.
    known = {scope.value for scope in Scope}
    token = TokenRecord.from_dict(record.value)
    return Principal(
        token_id=record.id[:8],
        name=token.name,
        scopes=frozenset(Scope(scope) for scope in token.scopes if scope in known),
    )
