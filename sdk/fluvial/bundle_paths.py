"""Which paths a bundle may have, and how large it may be: the same rules for packing and unpacking.

A path is accepted only if it means the same everywhere: relative, no `.` or `..`, no empty part,
no backslash, drive letter or control character, within the limits, and different from every other
path also on a file system that ignores case or normalises Unicode.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fluvial.errors import BundleError, BundleTooLargeError

_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a bundle may be, unpacked."""

    files: int = 20_000  # as many directories may come on top
    total_bytes: int = 250 * 2**20
    file_bytes: int = 250 * 2**20
    depth: int = 32
    name_bytes: int = 255  # of one part of a path: the limit of Linux file systems
    path_bytes: int = 1024


DEFAULT_LIMITS: Final = Limits()


class _Kind(Enum):
    FILE = "a file"
    DIRECTORY = "a directory"
    IMPLIED = "a directory that other paths imply"


class Paths:
    """The paths of one bundle so far; refuses those that are unsafe or collide."""

    __slots__ = ("_files", "_limits", "_seen")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: dict[str, tuple[str, _Kind]] = {}  # folded path → (path as given, kind)
        self._files = 0

    @property
    def files(self) -> int:
        """How many paths were added."""
        return self._files

    def add(self, path: str, *, is_directory: bool) -> list[str]:
        """Return the parts of `path` after all checks.

        Raises:
            BundleError: the path is unsafe or collides; the message names it and the rule.
            BundleTooLargeError: there are too many.
        """
        parts = _parts(path.removesuffix("/") if is_directory else path, self._limits)
        for length in range(1, len(parts)):
            self._imply("/".join(parts[:length]), path)
        self._declare("/".join(parts), _Kind.DIRECTORY if is_directory else _Kind.FILE)
        self._files += 1
        if self._files > self._limits.files or len(self._seen) > 2 * self._limits.files:
            raise BundleTooLargeError(f"the bundle has more than {self._limits.files} files")
        return parts

    def _imply(self, parent: str, path: str) -> None:
        given, kind = self._seen.setdefault(_fold(parent), (parent, _Kind.IMPLIED))
        _check_case(path, parent, given)
        if kind is _Kind.FILE:
            raise BundleError(f"{shown(path)}: lies below {shown(parent)}, which is a file")

    def _declare(self, path: str, kind: _Kind) -> None:
        folded = _fold(path)
        given, before = self._seen.get(folded, (path, None))
        _check_case(path, path, given)
        if before is _Kind.IMPLIED and kind is _Kind.FILE:
            raise BundleError(f"{shown(path)}: is a file and a directory")
        if before in (_Kind.FILE, _Kind.DIRECTORY):
            raise BundleError(f"{shown(path)}: appears twice")
        self._seen[folded] = (path, kind)


def shown(path: str) -> str:
    """Return `path` for a message: bounded, without control characters."""
    text = path if len(path) <= _SHOWN_CHARACTERS else f"{path[:_SHOWN_CHARACTERS]}…"
    return text if text.isprintable() and text else ascii(text)


def _parts(path: str, limits: Limits) -> list[str]:
    parts = path.split("/")
    problem = _problem(path, parts, limits)
    if problem is not None:
        raise BundleError(f"{shown(path)}: {problem}")
    return parts


def _problem(path: str, parts: list[str], limits: Limits) -> str | None:
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    if path.startswith("/"):
        return "absolute paths are not allowed"
    if ".." in parts:
        return "'..' is not allowed in a path"
    if "" in parts or "." in parts:
        return "a path must not have empty or '.' parts"
    if _FORBIDDEN.search(path):
        return "backslashes and control characters are not allowed in a path"
    if any(_DRIVE.match(part) for part in parts):
        return "drive letters are not allowed in a path"
    if len(parts) > limits.depth:
        return f"is more than {limits.depth} levels deep"
    if max(sizes) > limits.name_bytes:
        return f"a name is longer than {limits.name_bytes} bytes"
    if sum(sizes) + len(sizes) - 1 > limits.path_bytes:
        return f"the path is longer than {limits.path_bytes} bytes"
    return None


def _check_case(path: str, here: str, given: str) -> None:
    if here != given:
        raise BundleError(f"{shown(path)}: differs from {shown(given)} only in case or encoding")


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
