"""Custom domains: host names of apps beside those that the platform's own domain gives them.

A name belongs to one app at a time: it is one record, made only where there is none, so of two apps
that ask for it at once, one gets it. Requests for it go to the app's production.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.problems import ProblemError

_LOG = logging.getLogger(__name__)

MAX_DOMAINS: Final = 100  # of an app
MAX_HOST_CHARACTERS: Final = 253  # RFC 1035 §2.3.4, without the last dot
_HOST: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))+")


class Domains:
    """Changes which hosts are whose, and has the routes follow."""

    def __init__(
        self, catalogue: Catalogue, reload_routes: Callable[[], Awaitable[None]], domain: str
    ) -> None:
        self._catalogue = catalogue
        self._reload_routes = reload_routes
        self._domain = domain

    async def of(self, app: str) -> list[str]:
        """Return an app's domains, by name.

        Raises:
            ProblemError: there is no such app.
        """
        await self._catalogue.app(app)
        hosts = await self._catalogue.hosts()
        return sorted(host for host in hosts if hosts[host] == app)

    async def add(self, app: str, text: str) -> str:
        """Let `text` lead to the app's production; return it as it is kept. Twice is once.

        Raises:
            ProblemError: it is no name that an app can have, or another app has it.
        """
        host = self._checked(text)
        known = await self.of(app)
        if host in known:
            return host
        if len(known) >= MAX_DOMAINS:
            raise ProblemError("domain_limit", f"an app has at most {MAX_DOMAINS} domains")
        if not await self._catalogue.add_host(host, app):
            raise ProblemError("domain_conflict", f"{host} belongs to another app: remove it there")
        _LOG.info("domain added", extra={"app": app, "host": host})
        await self._published()
        return host

    async def remove(self, app: str, text: str) -> None:
        """Let a domain of the app lead nowhere.

        Raises:
            ProblemError: the app has no such domain.
        """
        host = text.lower().removesuffix(".")
        if host not in await self.of(app):
            raise ProblemError("domain_not_found", f"app {app!r} has no domain {text!r}")
        await self._catalogue.remove_host(host)
        _LOG.info("domain removed", extra={"app": app, "host": host})
        await self._published()

    async def _published(self) -> None:
        try:
            await self._reload_routes()
        except FluvialError:
            # The record is written; the routes follow with the next sweep.
            _LOG.warning("routes not reloaded", exc_info=True)

    def _checked(self, text: str) -> str:
        host = text.lower().removesuffix(".")
        if host == self._domain or host.endswith((f".{self._domain}", ".localhost")):
            reason = f"is below {self._domain}, whose names the platform gives"
        elif "*" in host:
            reason = "has a wildcard: add each name by itself"
        elif not host.isascii():
            reason = "is not ASCII: write it in punycode, as xn--…"
        elif not _is_name(host):
            reason = "is not a DNS name such as shop.example.com (no scheme, port or path)"
        else:
            return host
        raise ProblemError("invalid_request", f"the domain {text!r} {reason}")


def _is_name(host: str) -> bool:
    if len(host) > MAX_HOST_CHARACTERS or _HOST.fullmatch(host) is None:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
