"""Where the platform is and with which token: FLUVIAL_URL, FLUVIAL_TOKEN, FLUVIAL_HOME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fluvial.errors import AccessDeniedError
from fluvial_deploy.up.home import Home

if TYPE_CHECKING:
    from fluvial.client import Client

DEFAULT_URL: Final = "http://127.0.0.1:8081"


def home_path() -> Path:
    """Return the home folder: FLUVIAL_HOME, else ~/.fluvial."""
    return Path(os.environ.get("FLUVIAL_HOME") or Path.home() / ".fluvial").absolute()


def control_url() -> str:
    """Return the control API's URL: FLUVIAL_URL, else what this machine's `up` says."""
    return os.environ.get("FLUVIAL_URL") or str(
        Home(home_path()).state().get("control") or DEFAULT_URL
    )


def token() -> str | None:
    """Return the token: FLUVIAL_TOKEN, else the administrator's of this machine.

    Raises:
        AccessDeniedError: the token file belongs to somebody else.
    """
    given = os.environ.get("FLUVIAL_TOKEN")
    if given:
        return given.strip()
    file = Home(home_path()).token_file
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise AccessDeniedError(f"{file} is not readable for you: set FLUVIAL_TOKEN") from error


def connect() -> Client:
    """Return a client of the platform."""
    # Not at the top: an HTTP client takes longer to import than most commands to run.
    from fluvial.client import Client

    return Client(control_url(), token())
