"""The environment of dev: `.env` and `.env.local` of the folder become the app's variables.

They are set through the control API, so they are sealed and snapshotted as anywhere. What was set
last stands in a file of the private home: setting an equal value again would make a new deployment.
The builder reads the same file, so that in dev an import at deploy sees values, no placeholders.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.env_files import read_env_file
from fluvial_deploy.dev.watching import ENV_FILES

if TYPE_CHECKING:
    from fluvial.client import Client


def read_variables(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables of the folder's files, and what was left out, as sentences.

    Raises:
        InvalidRequestError: a file cannot be understood.
    """
    from fluvial.variables import check_variables

    found: dict[str, str] = {}
    for name in ENV_FILES:
        path = folder / name
        if path.is_file():
            found.update(read_env_file(path))
    kept: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in found.items():
        try:
            check_variables({name: value})
        except InvalidRequestError as error:
            left_out.append(str(error))  # files of other tools may well set PYTHONPATH
        else:
            kept[name] = value
    check_variables(kept)
    return kept, left_out


def set_variables(client: Client, app: str, variables: dict[str, str], file: Path) -> bool:
    """Make the app's variables those of the files; return whether anything had to be done.

    Variables that were set in other ways stay.
    """
    before = _read(file)
    if before == {"app": app, "variables": variables}:
        return False
    gone = before["variables"].keys() - variables.keys() if before["app"] == app else ()
    if variables:
        client.set_environment(app, variables)
    for name in sorted(gone):
        client.remove_variable(app, name)
    _write(file, {"app": app, "variables": variables})
    return True


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {"app": "", "variables": {}}
    return found


def _write(file: Path, value: dict[str, Any]) -> None:
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(value, out)
    new.replace(file)
