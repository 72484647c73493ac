"""What the supervisor starts: commands, environments and descriptors of the three programs.

An environment is built from an allow-list. What belongs to Python's development or to this
terminal stays behind; the store's URL goes to the gateway alone, the KMS command to the invoker.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fluvial import unprivileged
from fluvial.log_settings import log_environment
from fluvial_deploy.builder.config import install_environment
from fluvial_deploy.up.home import Home
from fluvial_deploy.up.listeners import url_of
from fluvial_deploy.up.processes import Program
from fluvial_deploy.up.settings import UpSettings

_KEPT: Final = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "VIRTUAL_ENV",
        "FLUVIAL_SNAPSHOT_MEMORY",
        unprivileged.VARIABLE,
    }
)
_GATEWAY_GRACE_SECONDS: Final = 20.0  # it drains for up to 10 s, then releases its leases
_INVOKER_GRACE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Sockets:
    """The listening sockets that the programs inherit."""

    http: socket.socket
    control: socket.socket
    invoker: socket.socket
    builder: socket.socket

    def close(self) -> None:
        """Close the supervisor's copies."""
        for listener in (self.http, self.control, self.invoker, self.builder):
            listener.close()


def gateway(settings: UpSettings, home: Home, sockets: Sockets, store_url: str) -> Program:
    """Return the front door."""
    environment = {
        **_base(os.environ),
        "FLUVIAL_HOME": str(home.path),
        "FLUVIAL_RUN_DIR": str(home.run_dir),
        "FLUVIAL_STORE": store_url,
        "FLUVIAL_DOMAIN": settings.domain,
        "FLUVIAL_HTTP_FD": str(sockets.http.fileno()),
        "FLUVIAL_CONTROL_FD": str(sockets.control.fileno()),
        "FLUVIAL_HTTP_URL": url_of(sockets.http),
        "FLUVIAL_CONTROL_URL": url_of(sockets.control),
        **log_environment(settings.log_limits),
        **{variable: f"{price!r}" for variable, price in settings.prices.items()},
    }
    if settings.trusted_proxies:
        environment["FLUVIAL_TRUSTED_PROXIES"] = settings.trusted_proxies
    if settings.public_url:
        environment["FLUVIAL_PUBLIC_URL"] = settings.public_url
    if settings.keep_deployments is not None:
        environment["FLUVIAL_KEEP_DEPLOYMENTS"] = str(settings.keep_deployments)
    if settings.keep_deployments_seconds is not None:
        seconds = settings.keep_deployments_seconds
        environment["FLUVIAL_KEEP_DEPLOYMENTS_FOR"] = f"{seconds:g}s"
    return Program(
        name="gateway",
        command=(sys.executable, "-m", "fluvial_gateway"),
        environment=environment,
        log=home.log("gateway"),
        pass_fds=(sockets.http.fileno(), sockets.control.fileno()),
        grace_seconds=_GATEWAY_GRACE_SECONDS,
    )


def invoker(settings: UpSettings, home: Home, sockets: Sockets) -> Program:
    """Return the program that creates instances."""
    environment = {
        **_base(os.environ),
        "FLUVIAL_HOME": str(home.path),
        "FLUVIAL_RUN_DIR": str(home.run_dir),
        "FLUVIAL_INVOKER_FD": str(sockets.invoker.fileno()),
        "FLUVIAL_INVOKER_IDLE": f"{settings.invoker_idle_seconds:g}",
        **log_environment(settings.log_limits),
    }
    if settings.kms_command:
        environment["FLUVIAL_KMS_COMMAND"] = settings.kms_command
    return Program(
        name="invoker",
        command=(sys.executable, "-m", "fluvial_invoker"),
        environment=environment,
        log=home.log("invoker"),
        pass_fds=(sockets.invoker.fileno(),),
        grace_seconds=_INVOKER_GRACE_SECONDS,
    )


def builder(settings: UpSettings, home: Home, sockets: Sockets) -> Program:
    """Return the program that builds bundles."""
    environment = {
        **_base(os.environ),
        **install_environment(os.environ),
        "FLUVIAL_HOME": str(home.path),
        "FLUVIAL_BUILDER_FD": str(sockets.builder.fileno()),
    }
    if settings.idle_seconds is not None:
        environment["FLUVIAL_DEFAULT_IDLE"] = f"{settings.idle_seconds:g}"
    if settings.builder_idle_seconds is not None:
        environment["FLUVIAL_BUILDER_IDLE"] = f"{settings.builder_idle_seconds:g}"
    if settings.is_dev:
        environment["FLUVIAL_BUILDER_DEV"] = "1"
    if settings.import_environment is not None:
        environment["FLUVIAL_IMPORT_ENVIRONMENT"] = str(settings.import_environment)
    return Program(
        name="builder",
        command=(sys.executable, "-m", "fluvial_deploy.builder"),
        environment=environment,
        log=home.log("builder"),
        pass_fds=(sockets.builder.fileno(),),
    )


def _base(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name in _KEPT}
