"""Which deployment a Host header means.

The header never chooses a tenant by itself: only names that were registered are found, and the
whole table is replaced at once, so a request sees one consistent set of routes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fluvial_gateway.rollout_counts import RolloutCounts

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
    tail: bytes = field(default=b"\r\n", compare=False)  # with which heads of its responses end
    pins: Mapping[bytes, Destination] = field(  # by deployment: where a client may ask to go
        default_factory=dict[bytes, "Destination"], compare=False, repr=False
    )
    split: Split | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Split:
    """A rollout: some clients go to another destination."""

    percent: int
    salt: bytes  # of the rollout: the next one begins with other clients
    new: Destination
    counts: RolloutCounts


@dataclass(frozen=True, slots=True)
class RolloutRoute:
    """What the routes know of a rollout."""

    deployment: str
    percent: int
    salt: bytes
    counts: RolloutCounts


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
    pins: Mapping[str, Collection[str]] = field(  # app → where its clients may ask to go
        default_factory=dict[str, Collection[str]]
    )
    pin_cookies: Mapping[str, int] = field(default_factory=dict[str, int])  # app → seconds
    rollouts: Mapping[str, RolloutRoute] = field(default_factory=dict[str, RolloutRoute])  # by app


class HostTable:
    """Finds destinations by Host header; `replace` changes all routes in one step."""

    def __init__(self, routes: Routes | None = None) -> None:
        self._names: dict[str, Destination] = {}
        self._found: dict[bytes, Destination] = {}
        self.default: Destination | None = None  # of a request without Host (HTTP/1.0)
        self.replace(routes or Routes())

    def replace(self, routes: Routes) -> None:
        """Use these routes from now on."""
        naming = _Naming(routes)
        self._names = naming.names()
        self._found = {}
        self.default = naming.production(routes.default_app)

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


class _Naming:
    """Makes the destinations of one set of routes."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._pins: dict[str, dict[bytes, Destination]] = {}  # by app
        self._production: dict[str, Destination] = {}  # by app

    def names(self) -> dict[str, Destination]:
        routes, domain = self._routes, self._routes.domain
        names: dict[str, Destination] = {}
        default = self.production(routes.default_app)
        if default is not None:
            names.update(dict.fromkeys({*_LOOPBACK_NAMES, domain}, default))
        for app, aliases in routes.aliases.items():
            for alias, deployment in aliases.items():
                names[f"{alias}--{app}.{domain}"] = self._movable(app, deployment)
        for app in routes.production:  # behind: an app that is called like an alias keeps its host
            destination = self.production(app)
            if destination is not None:
                names[f"{app}.{domain}"] = destination
        for deployment, app in routes.deployments.items():
            names[f"{deployment.replace('_', '-')}.{domain}"] = _fixed(app, deployment)
        for host, app in routes.hosts.items():
            destination = self.production(app)
            if destination is not None:
                names[host.lower()] = destination
        return names

    def production(self, app: str | None) -> Destination | None:
        """Return where an app's production is."""
        deployment = self._routes.production.get(app) if app is not None else None
        if app is None or deployment is None:
            return None
        known = self._production.get(app)
        if known is None:
            known = self._movable(app, deployment)
            rollout = self._routes.rollouts.get(app)
            if rollout is not None:
                known = replace(known, split=self._split(app, rollout))
            self._production[app] = known
        return known

    def _split(self, app: str, rollout: RolloutRoute) -> Split:
        new = self._movable(app, rollout.deployment)
        return Split(rollout.percent, rollout.salt, new, rollout.counts)

    def _movable(self, app: str, deployment: str) -> Destination:
        """Return a destination that an alias has, so that a client may ask for another one."""
        pins = self._pins.get(app)
        if pins is None:
            asked = self._routes.pins.get(app, ())
            pins = self._pins[app] = {each.encode(): _fixed(app, each) for each in asked}
        seconds = self._routes.pin_cookies.get(app)
        return Destination(app, deployment, _tail(deployment, seconds), pins)


def _fixed(app: str, deployment: str) -> Destination:
    return Destination(app, deployment, _tail(deployment, None))


def _tail(deployment: str, pin_seconds: int | None) -> bytes:
    """Return the header lines that say which deployment has served, and the empty line."""
    lines = f"x-fluvial-deployment: {deployment}\r\n"
    if pin_seconds is not None:
        value = f"__fluvial_dpl={deployment}; Path=/; Max-Age={pin_seconds}; HttpOnly; SameSite=Lax"
        lines += f"set-cookie: {value}\r\n"
    return f"{lines}\r\n".encode()
