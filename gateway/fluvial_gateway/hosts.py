"""Which deployment a Host header means.

The header never chooses a tenant by itself: only names that were registered are found, and the
whole table is replaced at once, so a request sees one consistent set of routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST: Final = re.compile(
    rb"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*+)|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_MAX_HOST_BYTES: Final = 262  # 255 for a name (RFC 1035), a colon and a port
_MAX_CACHED: Final = 4096  # spellings that were found; a stranger's names are not kept


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes."""

    app: str
    deployment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All that routing by host depends on, as the records say it."""

    domain: str = "localhost"
    production: Mapping[str, str] = field(default_factory=dict[str, str])  # app → deployment
    aliases: Mapping[str, Mapping[str, str]] = field(  # app → alias → deployment
        default_factory=dict[str, Mapping[str, str]]
    )
    deployments: Mapping[str, str] = field(default_factory=dict[str, str])  # deployment → app
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])  # custom host → app
    default_app: str | None = None


class HostTable:
    """Finds destinations by Host header; `replace` changes all routes in one step."""

    def __init__(self, routes: Routes | None = None) -> None:
        self._names: dict[str, Destination] = {}
        self._found: dict[bytes, Destination] = {}
        self.default: Destination | None = None  # of a request without Host (HTTP/1.0)
        self.replace(routes or Routes())

    def replace(self, routes: Routes) -> None:
        """Use these routes from now on."""
        self._names = _names(routes)
        self._found = {}
        self.default = _production(routes, routes.default_app)

    def find(self, host: bytes) -> Destination | None:
        """Return the destination of a valid Host header, or None where no app has this name."""
        found = self._found.get(host)
        if found is None:
            name = host_name(host)
            found = self._names.get(name) if name is not None else None
            if found is not None and len(self._found) < _MAX_CACHED:
                self._found[host] = found
        return found


def host_name(host: bytes) -> str | None:
    """Return the name in a Host header in lower case, without port; None if it is malformed."""
    match = _HOST.fullmatch(host) if len(host) <= _MAX_HOST_BYTES else None
    if match is None:
        return None
    return match["name"].decode("ascii").lower().removesuffix(".")


def _names(routes: Routes) -> dict[str, Destination]:
    names: dict[str, Destination] = {}
    default = _production(routes, routes.default_app)
    if default is not None:
        names.update(dict.fromkeys({*_LOOPBACK_NAMES, routes.domain}, default))
    for app, aliases in routes.aliases.items():
        for alias, deployment in aliases.items():
            names[f"{alias}--{app}.{routes.domain}"] = Destination(app, deployment)
    for app in routes.production:  # behind: an app that is called like an alias keeps its host
        destination = _production(routes, app)
        if destination is not None:
            names[f"{app}.{routes.domain}"] = destination
    for deployment, app in routes.deployments.items():
        names[f"{deployment.replace('_', '-')}.{routes.domain}"] = Destination(app, deployment)
    for host, app in routes.hosts.items():
        destination = _production(routes, app)
        if destination is not None:
            names[host.lower()] = destination
    return names


def _production(routes: Routes, app: str | None) -> Destination | None:
    deployment = routes.production.get(app) if app is not None else None
    return Destination(app, deployment) if app is not None and deployment is not None else None
