"""Applications from elsewhere, each on Fluvial and on a plain server, with data of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from tests.e2e.differential import Answer, Request, Server, answers, plain_server
from tests.e2e.installation import COMMAND_SECONDS, App, Platform

BUNDLES: Final = Path(__file__).parent / "guests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """An application, and what to ask it."""

    name: str
    server: Server
    target: str = "main:app"
    requests: list[Request] = field(default_factory=list[Request])
    variable: str = ""  # names the folder of its data
    prepare: Callable[[Path, Path, Path], None] | None = None  # (bundle, layer, data)
    add_files: Callable[[Path], None] | None = None  # to the bundle


@dataclass(frozen=True, slots=True)
class Visit:
    """A guest that runs in both places."""

    guest: Guest
    app: App
    running: Platform
    make_plain: Callable[[], httpx.Client]  # makes clients of the plain server
    plain: Mapping[str, Answer]  # what it answered


@contextmanager
def visit(running: Platform, guest: Guest) -> Generator[Visit]:
    """Deploy a guest, and serve it with a plain server too."""
    work = Path(tempfile.mkdtemp(prefix="fv-guest-"))
    work.chmod(0o755)
    try:
        with _both(running, guest, work) as made:
            yield made
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _both(running: Platform, guest: Guest, work: Path) -> Generator[Visit]:
    bundle = work / guest.name
    shutil.copytree(BUNDLES / guest.name, bundle)
    if guest.add_files is not None:
        guest.add_files(bundle)
    data = {place: work / place for place in ("fluvial", "plain")}
    for folder in data.values():
        folder.mkdir()
    if guest.variable:
        with (bundle / "fluvial.toml").open("a") as manifest:
            manifest.write(f'\n[env]\n{guest.variable} = "{data["fluvial"]}"\n')
    app = running.deploy(bundle)
    layer = running.layer(app) if app.layer else bundle
    for folder in data.values():
        if guest.prepare is not None:
            guest.prepare(bundle, layer, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)  # instances may run as another user
    environment = {guest.variable: str(data["plain"])} if guest.variable else {}
    server = plain_server(
        guest.server, bundle, layer, app.host, target=guest.target, environment=environment
    )
    with server as make_plain:
        with make_plain() as client:
            plain = answers(guest.requests, client)
        yield Visit(guest, app, running, make_plain, plain)


def run_python(
    bundle: Path, layer: Path, arguments: list[str], variables: Mapping[str, str]
) -> None:
    """Run a program of a bundle with its dependencies, as an operator would."""
    subprocess.run(
        [sys.executable, *arguments],
        cwd=bundle,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{bundle}:{layer}", **variables},
        check=True,
        timeout=COMMAND_SECONDS,
        capture_output=True,
    )
