"""Environment variables of an app: which names and values there may be.

The same rules hold in a manifest (`[tool.fluvial.env]`), on the command line and in the control
API. A message names the variable and never its value, which may be a secret that went astray.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fluvial.errors import InvalidRequestError

MAX_ENVIRONMENT_BYTES: Final = 64 * 1024  # of all names and values of an app together
MAX_VARIABLES: Final = 256  # each is opened when an instance starts
MAX_VARIABLE_NAME: Final = 128
VARIABLE_NAME: Final = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_VARIABLE_NAME - 1}}}")

# What the platform says itself, and what a dynamic loader, an allocator or an interpreter would
# take for orders; the running interpreter has read the latter already.
_RESERVED_PREFIXES: Final = ("FLUVIAL_", "LD_", "PYTHON")
_RESERVED_NAMES: Final = frozenset({"FLUVIAL", "GLIBC_TUNABLES"})


def check_variable_name(name: str) -> None:
    """Raises:
    InvalidRequestError: no variable may have this name; the message says why.
    """
    if not VARIABLE_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name[:MAX_VARIABLE_NAME]!r} cannot be the name of a variable: A-Z, a-z, 0-9 and"
            f" '_', at most {MAX_VARIABLE_NAME}, and no digit at the beginning"
        )
    if name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES):
        reserved = ", ".join((*sorted(_RESERVED_NAMES), *(f"{p}…" for p in _RESERVED_PREFIXES)))
        raise InvalidRequestError(f"{name} is a reserved name ({reserved}): choose another one")


def check_variables(variables: Mapping[str, str]) -> None:
    """Raises:
    InvalidRequestError: a name or a value may not be, or all are too large together.
    """
    for name, value in variables.items():
        check_variable_name(name)
        _check_value(name, value)
    size_bytes = sum(variable_bytes(name, value) for name, value in variables.items())
    check_environment_size(len(variables), size_bytes)


def check_environment_size(count: int, size_bytes: int) -> None:
    """Raises:
    InvalidRequestError: so many variables, or so large ones, are too much for one app.
    """
    if count > MAX_VARIABLES:
        raise InvalidRequestError(
            f"an app may have {MAX_VARIABLES} variables and secrets, these would be {count}"
        )
    if size_bytes > MAX_ENVIRONMENT_BYTES:
        raise InvalidRequestError(
            f"names and values of an app's variables may have {MAX_ENVIRONMENT_BYTES} bytes"
            f" together, these would be {size_bytes}: keep large values in a file of the bundle, or"
            " fetch them when they are needed"
        )


def variable_bytes(name: str, value: str) -> int:
    """Return what a variable counts of the size that all may have together."""
    return len(name) + len(value.encode())


def _check_value(name: str, value: str) -> None:
    if "\0" in value:
        raise InvalidRequestError(f"the value of {name} has a NUL character: no variable may")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"the value of {name} is not text in UTF-8: encode binary values, e.g. as base64"
        ) from None
