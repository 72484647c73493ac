"""From a folder to a registered deployment, with talk meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.output import is_interactive, say, say_dim

if TYPE_CHECKING:
    from fluvial.client import Deployed
    from fluvial.manifest import Manifest


def upload(directory: Path, *, name: str | None, promote: bool) -> Deployed:
    """Pack a folder, have it built and registered, and say how that goes.

    Raises:
        FluvialError: it was refused, or the platform cannot be reached.
    """
    from fluvial.bundle import pack
    from fluvial.errors import BundleError
    from fluvial.manifest import load_manifest

    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory")
    manifest = load_manifest(directory, name=name)
    with tempfile.TemporaryDirectory(prefix="fluvial-") as work:
        packed = pack(directory, Path(work) / "bundle.tar.zst")
        say(f"deploying {manifest.name}: {packed.files} files, {_size(packed.bytes)}")
        return _send(packed.archive, packed.digest, manifest, promote=promote)


def _send(archive: Path, digest: str, manifest: Manifest, *, promote: bool) -> Deployed:
    from fluvial.client import Deployed
    from fluvial.errors import UnavailableError

    with connect() as client, spinner("building") as log:
        for line in client.deploy(archive, digest, name=manifest.name, promote=promote):
            if isinstance(line, Deployed):
                return line
            log(line)
    raise UnavailableError("the platform did not say how the deploy ended: deploy again")


@contextmanager
def spinner(text: str) -> Generator[Callable[[str], None], None, None]:
    """Show that something is under way, where a person watches; yields what logs a line."""
    if not is_interactive():
        yield _plain
        return
    from rich.console import Console

    console = Console(stderr=True)

    def log(line: str) -> None:
        console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)

    with console.status(text):
        yield log


def _plain(line: str) -> None:
    say_dim(f"  {line}")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} MiB"
