"""What `fluvial up` was told, validated."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final, Literal, cast, get_args

from fluvial.durations import to_seconds
from fluvial.errors import InvalidRequestError
from fluvial.log_files import LogLimits
from fluvial.sizes import parse_bytes

Durability = Literal["disk", "process", "memory"]
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s/]+)):([0-9]{1,5})")
_PUBLIC_URL: Final = re.compile(r"https?://([A-Za-z0-9.-]+)(?::[0-9]{1,5})?/?")
_SCHEMES: Final = ("redis", "rediss", "unix", "memory")
_LARGEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and the option that says so."""

    option: str
    host: str
    port: int

    @classmethod
    def parse(cls, option: str, text: str) -> Address:
        """Return the address in `text`, such as 127.0.0.1:8080 or [::1]:8080.

        Raises:
            InvalidRequestError: it is none; the message names the option.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match.group(3)) > _LARGEST_PORT:
            raise InvalidRequestError(f"{option} must be HOST:PORT, got {text!r}")
        return cls(option, match.group(1) or match.group(2), int(match.group(3)))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """Everything that `fluvial up` needs to know."""

    home: Path
    store: str | None  # None: the embedded Valkey
    durability: Durability = "disk"
    http: Address = Address("--http", "127.0.0.1", 8080)
    control: Address = Address("--control", "127.0.0.1", 8081)
    domain: str = "localhost"
    public_url: str = ""  # how the domain is reached from outside; "": at `http`
    trusted_proxies: str = ""  # networks, with commas
    idle_seconds: float | None = None  # of deployments whose manifest does not say
    invoker_idle_seconds: float = 300.0
    keep_deployments: int | None = None  # of the newest of an app; None: the gateway's default
    keep_deployments_seconds: float | None = None  # each in any case; likewise
    log_limits: LogLimits = field(default_factory=LogLimits)
    builder_idle_seconds: float | None = None  # None: the builder's own
    is_dev: bool = False  # builds are for `fluvial dev`
    import_environment: Path | None = None  # values for imports at deploy (`fluvial dev`)
    prices: Mapping[str, float] = field(default_factory=dict[str, float])  # by variable
    kms_command: str = ""  # program and arguments, as a shell would split them; "": none


def check_public_url(text: str, domain: str | None) -> tuple[str, str]:
    """Return the URL and the domain, which is the URL's host unless it is said.

    Raises:
        InvalidRequestError: the URL is none, or of another domain.
    """
    match = _PUBLIC_URL.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"--public-url must be a scheme, a domain and perhaps a port, such as"
            f" https://example.com, got {text!r}"
        )
    host = match.group(1).lower()
    if domain is not None and domain.lower() != host:
        raise InvalidRequestError(
            f"--public-url is of {host}, and --domain is {domain}: name one, or twice the same"
        )
    return text.rstrip("/"), host


def check_trusted_proxies(text: str) -> str:
    """Return `text` when it lists networks.

    Raises:
        InvalidRequestError: something in it is neither an address nor a network.
    """
    for each in text.split(","):
        try:
            ip_network(each.strip())
        except ValueError as error:
            raise InvalidRequestError(
                f"--trusted-proxies lists addresses or networks such as 10.0.0.0/8,::1: {error}"
            ) from None
    return text


def check_kms_command(text: str) -> str:
    """Return `text` when it is a command line whose program exists.

    Raises:
        InvalidRequestError: it is not.
    """
    try:
        program, *_ = shlex.split(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"--kms-command must be a program and arguments: {error}"
        ) from error
    if shutil.which(program) is None:
        raise InvalidRequestError(f"--kms-command: there is no program {program!r}")
    return text


def check_prices(
    cpu_hour: float | None, gb_hour: float | None, million_invocations: float | None
) -> dict[str, float]:
    """Return the prices that were given, by the variable that tells the gateway.

    Raises:
        InvalidRequestError: one is no amount; the message names it.
    """
    given = {
        "cpu-hour": cpu_hour,
        "gb-hour": gb_hour,
        "million-invocations": million_invocations,
    }
    prices: dict[str, float] = {}
    for name, price in given.items():
        if price is None:
            continue
        if not 0 <= price < float("inf"):
            raise InvalidRequestError(f"--price-{name} must not be negative, got {price}")
        prices[f"FLUVIAL_PRICE_{name.upper().replace('-', '_')}"] = price
    return prices


def check_log_limits(retention: str, app_size: str, size: str) -> LogLimits:
    """Return how long and how much of logs is kept.

    Raises:
        InvalidRequestError: one is not a duration or a size, or is 0; the message names it.
    """
    seconds = to_seconds(retention, "--log-retention")
    if seconds <= 0:
        raise InvalidRequestError("--log-retention must be above 0")
    return LogLimits(
        retention_seconds=seconds,
        app_bytes=_size(app_size, "--log-app-size"),
        total_bytes=_size(size, "--log-size"),
    )


def _size(text: str, option: str) -> int:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise InvalidRequestError(f"{option}: {error}") from error
    if size <= 0:
        raise InvalidRequestError(f"{option} must be above 0")
    return size


def check_store(url: str) -> str:
    """Return `url` when it is a store's.

    Raises:
        InvalidRequestError: it is not; the message never repeats it, since it may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        raise InvalidRequestError("--store postgresql:// is not supported yet: use redis://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InvalidRequestError(f"--store must begin with one of {known}")
    return url


def check_durability(text: str) -> Durability:
    """Return `text` when it names a durability.

    Raises:
        InvalidRequestError: it does not.
    """
    if text not in get_args(Durability):
        known = ", ".join(get_args(Durability))
        raise InvalidRequestError(f"--durability must be one of {known}, got {text!r}")
    return cast("Durability", text)
