"""What does not go into a bundle: a default list, then `.fluvialignore` with gitignore's patterns.

    # comment         name or *.log    anywhere       build/     directories only
    /only/at/root     a/**/b           any depth      !keep.me   back in, the last match wins

A directory that is ignored is not entered, so nothing below it can be brought back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial.errors import BundleError

IGNORE_FILE: Final = ".fluvialignore"
DEFAULTS: Final = (
    ".git/",
    ".hg/",
    ".svn/",
    ".venv/",
    "venv/",
    "__pycache__/",
    "node_modules/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".hypothesis/",
    ".tox/",
    ".nox/",
    ".idea/",
    ".vscode/",
    ".fluvial/",
    "*.egg-info/",
    "*.py[co]",
    ".env",
    ".env.*",
    ".DS_Store",
    ".coverage",
    IGNORE_FILE,
)
_MAX_PATTERNS: Final = 1000
_MAX_PATTERN_CHARACTERS: Final = 1000
_MAX_ANY_DEPTH: Final = 4  # each `**` multiplies the ways to match a path


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    directories_only: bool
    brings_back: bool


class IgnoreRules:
    """Decides which paths of a folder stay behind."""

    __slots__ = ("_rules",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [rule for line in patterns if (rule := _rule(line)) is not None]

    @classmethod
    def of(cls, directory: Path) -> IgnoreRules:
        """Return the rules of `directory`: the default list and its own file.

        Raises:
            BundleError: the file is not text or has too many patterns.
        """
        path = directory / IGNORE_FILE
        if not path.is_file():
            return cls(DEFAULTS)
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(f"{IGNORE_FILE} is not UTF-8 text") from error
        if len(lines) > _MAX_PATTERNS or any(len(line) > _MAX_PATTERN_CHARACTERS for line in lines):
            limits = f"{_MAX_PATTERNS} lines of {_MAX_PATTERN_CHARACTERS} characters"
            raise BundleError(f"{IGNORE_FILE} is above its limit of {limits}")
        return cls((*DEFAULTS, *lines))

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Return whether `path`, relative and with `/`, stays behind."""
        for rule in reversed(self._rules):
            if rule.directories_only and not is_directory:
                continue
            if rule.pattern.fullmatch(path):
                return not rule.brings_back
        return False


def _rule(line: str) -> _Rule | None:
    pattern = line.strip()
    if not pattern or pattern.startswith("#"):
        return None
    brings_back = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    directories_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    if not pattern:
        return None
    if "/" not in pattern:  # a bare name matches at any depth
        pattern = f"**/{pattern}"
    return _Rule(re.compile(_regex(pattern.removeprefix("/"))), directories_only, brings_back)


def _regex(pattern: str) -> str:
    parts: list[str] = []
    segments = re.sub(r"(?:\*\*/)+", "**/", pattern).split("/")
    if segments.count("**") > _MAX_ANY_DEPTH:
        raise BundleError(f"{IGNORE_FILE}: more than {_MAX_ANY_DEPTH} '**' in one pattern")
    for position, segment in enumerate(segments):
        is_last = position == len(segments) - 1
        if segment == "**":
            parts.append(".*" if is_last else "(?:.*/)?")
        else:
            parts.append(_segment(segment) + ("" if is_last else "/"))
    return "".join(parts)


def _segment(segment: str) -> str:
    """Translate one part of a path.

    What stands between two stars is taken at its first place and never reconsidered: a later
    place can only leave less for the rest, and so a hostile pattern costs no more than a kind one.
    """
    first, *rest = [_without_stars(part) for part in re.split(r"\*+", segment)]
    if not rest:
        return first
    between = "".join(f"(?>[^/]*?{part})" for part in rest[:-1] if part)
    return f"{first}{between}[^/]*{rest[-1]}"


def _without_stars(segment: str) -> str:
    out: list[str] = []
    position = 0
    for match in re.finditer(r"\?|\[(!?)((?:\]|[^\]/])[^\]/]*)\]", segment):
        out.append(re.escape(segment[position : match.start()]))
        position = match.end()
        if match.group() == "?":
            out.append("[^/]")
        else:
            out.append(_character_class(match.group(2), negated=bool(match.group(1))))
    out.append(re.escape(segment[position:]))
    return "".join(out)


def _character_class(members: str, *, negated: bool) -> str:
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
    text = f"[{'^/' if negated else ''}{escaped}]"
    try:
        re.compile(text)
    except re.error as error:
        raise BundleError(f"{IGNORE_FILE}: [{members}] is not a set of characters") from error
    return text
