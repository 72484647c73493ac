"""One look at an endpoint, and what many looks add up to. Plain Python: nothing durable here."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import httpx

TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look at an endpoint found."""

    url: str
    ok: bool
    status: int | None  # None: there was no answer
    latency_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What all looks at one endpoint add up to."""

    url: str
    checks: int = 0
    failures: int = 0
    last_status: int | None = None
    last_error: str = ""
    last_latency_ms: float = 0.0
    worst_latency_ms: float = 0.0

    @property
    def uptime(self) -> float:
        """The share of checks that were fine, from 0 to 1."""
        return 1.0 if not self.checks else round(1 - self.failures / self.checks, 4)

    def seen(self, check: Check) -> Endpoint:
        """Return this with one more check counted."""
        return replace(
            self,
            checks=self.checks + 1,
            failures=self.failures + (not check.ok),
            last_status=check.status,
            last_error=check.error,
            last_latency_ms=check.latency_ms,
            worst_latency_ms=max(self.worst_latency_ms, check.latency_ms),
        )


def summarise(checks: Iterable[Check]) -> list[Endpoint]:
    """Return one `Endpoint` per URL, in the order of their first checks."""
    endpoints: dict[str, Endpoint] = {}
    for check in checks:
        known = endpoints.get(check.url) or Endpoint(url=check.url)
        endpoints[check.url] = known.seen(check)
    return list(endpoints.values())


async def probe(url: str, transport: httpx.AsyncBaseTransport | None = None) -> Check:
    """Ask `url` once. An answer below 400 is fine; anything else is a finding, not an exception."""
    began = time.perf_counter()
    try:
        async with httpx.AsyncClient(
            transport=transport, timeout=TIMEOUT_SECONDS, verify=_tls()
        ) as client:
            response = await client.get(**_target(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        return Check(url=url, ok=False, status=None, latency_ms=_since(began), error=reason)
    ok = response.status_code < 400
    return Check(
        url=url,
        ok=ok,
        status=response.status_code,
        latency_ms=_since(began),
        error="" if ok else f"HTTP {response.status_code} {response.reason_phrase}",
    )


@cache
def _tls() -> ssl.SSLContext:
    """Read the certificates once: it takes longer than all the rest of a look."""
    return httpx.create_ssl_context()


def _target(url: str) -> dict[str, Any]:
    """Return what to ask for `url`.

    Names below `localhost` are loopback by definition (RFC 6761), but not every resolver knows it.
    """
    parsed = httpx.URL(url)
    if not parsed.host.endswith(".localhost"):
        return {"url": parsed}
    host = parsed.netloc.decode("ascii")
    return {"url": parsed.copy_with(host="127.0.0.1"), "headers": {"host": host}}


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
