"""Files of variables in the `.env` format, read strictly: a line that is none is an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fluvial.errors import InvalidRequestError

if TYPE_CHECKING:
    from dotenv.parser import Original

MAX_FILE_BYTES: Final = 1024 * 1024  # all variables of an app together may have far less


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables in a file; of a name that is there twice, the last value.

    Values are taken as they stand there: `${NAME}` is not replaced.

    Raises:
        InvalidRequestError: it is too large, not UTF-8, or a line cannot be understood.
        OSError: it cannot be read.
    """
    from dotenv.parser import parse_stream

    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidRequestError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    variables: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                line = _first_line(binding.original)
                if binding.error:
                    raise InvalidRequestError(f"{path}, line {line}: expected NAME=VALUE")
                if binding.key is None:
                    continue  # a comment, or an empty line
                if binding.value is None:
                    raise InvalidRequestError(f"{path}, line {line}: {binding.key} has no value")
                variables[binding.key] = binding.value
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{path} is not text in UTF-8") from error
    return variables


def _first_line(original: Original) -> int:
    """Return the line on which something begins; the parser counts empty lines before it in."""
    blank = original.string[: len(original.string) - len(original.string.lstrip())]
    return original.line + blank.count("\n")
