"""The gateway's configuration: read once from the environment, by `__main__` alone."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from fluvial.durations import to_seconds
from fluvial.errors import InvalidRequestError
from fluvial.log_files import LogLimits
from fluvial.log_settings import log_limits
from fluvial_gateway.keeping import KeepingRule
from fluvial_gateway.prices import Prices, read_prices

_STORE_SCHEMES: Final = ("redis", "rediss", "unix", "memory")
_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_HTTP_URL: Final = re.compile(r"https?://[^\s/?#]+/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where everything is; descriptors are inherited from the supervisor."""

    home: Path
    run_dir: Path
    store_url: str
    domain: str
    http_fd: int
    control_fd: int
    ready_fd: int | None
    http_url: str
    control_url: str
    trusted_proxies: tuple[str, ...]  # networks
    public_url: str  # how the domain is reached from outside
    keeping: KeepingRule  # of deployments, where an app has no rule of its own
    log_limits: LogLimits = field(default_factory=LogLimits)
    prices: Prices = field(default_factory=Prices)

    @property
    def invoker_socket(self) -> Path:
        return self.run_dir / "invoker.sock"

    @property
    def builder_socket(self) -> Path:
        return self.run_dir / "builder.sock"

    @property
    def blobs(self) -> Path:
        return self.home / "blobs"

    @property
    def admin_token_file(self) -> Path:
        return self.home / "token"

    @property
    def fingerprint_key_file(self) -> Path:
        return self.home / "fingerprint.key"


def read_config(environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration that `environment` holds.

    Raises:
        InvalidRequestError: a variable is missing or wrong; the message names it.
    """
    home = _directory(environment, "FLUVIAL_HOME")
    ready = environment.get("FLUVIAL_READY_FD")
    public = "FLUVIAL_PUBLIC_URL" if "FLUVIAL_PUBLIC_URL" in environment else "FLUVIAL_HTTP_URL"
    return Config(
        home=home,
        run_dir=_directory(environment, "FLUVIAL_RUN_DIR"),
        store_url=_store_url(environment),
        domain=_domain(environment),
        http_fd=_listening_socket(environment, "FLUVIAL_HTTP_FD"),
        control_fd=_listening_socket(environment, "FLUVIAL_CONTROL_FD"),
        ready_fd=None if ready is None else _descriptor(environment, "FLUVIAL_READY_FD"),
        http_url=_url(environment, "FLUVIAL_HTTP_URL"),
        control_url=_url(environment, "FLUVIAL_CONTROL_URL"),
        trusted_proxies=_networks(environment, "FLUVIAL_TRUSTED_PROXIES"),
        public_url=_url(environment, public),
        keeping=_keeping(environment),
        log_limits=log_limits(environment),
        prices=read_prices(environment),
    )


def _wrong(name: str, value: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} is {value!r}: expected {expected}")


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise InvalidRequestError(f"{name} is not set; `fluvial up` sets it")
    return value


def _directory(environment: Mapping[str, str], name: str) -> Path:
    value = _text(environment, name)
    path = Path(value)
    if not path.is_absolute() or not path.is_dir():
        raise _wrong(name, value, "the absolute path of an existing folder")
    return path


def _store_url(environment: Mapping[str, str]) -> str:
    value = _text(environment, "FLUVIAL_STORE")
    scheme, separator, _ = value.partition("://")
    if not separator or scheme not in _STORE_SCHEMES:
        # The URL may hold a password, so the message repeats its scheme only.
        allowed = ", ".join(f"{name}://" for name in _STORE_SCHEMES)
        raise InvalidRequestError(f"FLUVIAL_STORE begins with {scheme!r}: expected {allowed}")
    return value


def _domain(environment: Mapping[str, str]) -> str:
    value = environment.get("FLUVIAL_DOMAIN", "localhost").lower()
    if not _DOMAIN.fullmatch(value):
        raise _wrong("FLUVIAL_DOMAIN", value, "a DNS name such as example.com")
    return value


def _networks(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = environment.get(name, "")
    found = [each.strip() for each in value.split(",") if each.strip()]
    try:
        return tuple(str(ip_network(each)) for each in found)
    except ValueError:
        raise _wrong(name, value, "networks such as 10.0.0.0/8,::1") from None


def _url(environment: Mapping[str, str], name: str) -> str:
    value = _text(environment, name)
    if not _HTTP_URL.fullmatch(value):
        raise _wrong(name, value, "http://host:port")
    return value.rstrip("/")


def _keeping(environment: Mapping[str, str]) -> KeepingRule:
    rule = KeepingRule()
    count = environment.get("FLUVIAL_KEEP_DEPLOYMENTS", str(rule.count))
    if not count.isascii() or not count.isdigit() or int(count) < 1:
        raise _wrong("FLUVIAL_KEEP_DEPLOYMENTS", count, "a number above 0")
    span = environment.get("FLUVIAL_KEEP_DEPLOYMENTS_FOR", f"{rule.age_ms}ms")
    age_seconds = to_seconds(span, "FLUVIAL_KEEP_DEPLOYMENTS_FOR")
    return KeepingRule(int(count), round(age_seconds * 1000))


def _descriptor(environment: Mapping[str, str], name: str) -> int:
    value = _text(environment, name)
    if not value.isascii() or not value.isdigit():
        raise _wrong(name, value, "the number of an open descriptor")
    try:
        os.fstat(int(value))
    except (OSError, OverflowError) as error:
        raise _wrong(name, value, "the number of an open descriptor") from error
    return int(value)


def _listening_socket(environment: Mapping[str, str], name: str) -> int:
    number = _descriptor(environment, name)
    try:
        with socket.socket(fileno=os.dup(number)) as probe:
            listens = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise _wrong(name, str(number), "a listening socket") from error
    if not listens:
        raise _wrong(name, str(number), "a listening socket")
    return number
