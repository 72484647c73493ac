"""`fluvial dev`: a private platform for one folder that follows each change of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json

if TYPE_CHECKING:
    from fluvial_deploy.dev.settings import DevSettings

DEFAULT_PORT = 3000


@reported
def dev(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The app's folder; default: this one.")
    ] = Path(),
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where the app answers; 0: any free port.")
    ] = DEFAULT_PORT,
    name: Annotated[
        str | None, typer.Option(help="The app's name, whatever the manifest says.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing, in memory or on disk.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run an app for its development: changes are live at once, and live runs follow them."""
    from fluvial.errors import BundleError
    from fluvial_deploy.dev.settings import HOME, DevSettings

    folder = directory.absolute()
    if not folder.is_dir():
        raise BundleError(f"{directory} is not a directory")
    if not ephemeral:
        settings = DevSettings(folder=folder, home=folder / HOME, port=port, name=name)
        _run(settings, as_json=as_json)
        return
    with tempfile.TemporaryDirectory(prefix="fluvial-dev-") as home:
        settings = DevSettings(
            folder=folder, home=Path(home), port=port, name=name, is_ephemeral=True
        )
        _run(settings, as_json=as_json)


def _run(settings: DevSettings, *, as_json: bool) -> None:
    import asyncio

    from fluvial_deploy.dev.session import run
    from fluvial_deploy.dev.telling import Teller

    asyncio.run(run(settings, Teller(as_json=as_json)))
