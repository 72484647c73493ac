"""What a bundle depends on, as one normalised text whose digest names the layer.

The first of these that the bundle has: `uv.lock` beside a pyproject.toml, `requirements.txt`, the
dependencies in pyproject.toml. Fluvial itself is left out: the platform provides it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from fluvial_deploy.builder.refusals import DependenciesFailedError

Source = Literal["uv.lock", "requirements.txt", "pyproject.toml"]
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MAX_INCLUDES: Final = 20
_KEY_CHARACTERS: Final = 32  # 128 bits of the digest: a folder name, not a proof
_PROVIDED: Final = re.compile(r"fluvial(?:\[[^\]]*\])?\s*(?:$|[<>=!~;@ ])", re.IGNORECASE)
_INCLUDE: Final = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=)(.+)")
_LOCAL: Final = re.compile(
    r"(?:-e\b|--editable\b|\.|/|file:|[\w.-]+/)|.*@\s*(?:file:|\.|/)", re.IGNORECASE
)
_OPTION: Final = re.compile(r"(?:^|\s)-(?!-hash=)[-A-Za-z]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class Requirements:
    """A normalised requirements file."""

    source: Source
    text: str

    def key(self, *, source_builds: bool) -> str:
        """Return the name of the layer: equal for equal requirements on an equal platform."""
        platform = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        abi = sysconfig.get_config_var("SOABI")
        parts = (self.text, platform, str(abi), str(source_builds))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_CHARACTERS]


def has_lock(bundle: Path) -> bool:
    """Return whether the bundle brings a lock that uv can export."""
    return (bundle / "uv.lock").is_file() and (bundle / "pyproject.toml").is_file()


def locked_requirements(exported: str) -> Requirements | None:
    """Return the requirements that uv exported from a lock, None where there are none.

    Raises:
        DependenciesFailedError: the lock has local packages.
    """
    lines = exported.splitlines()
    for line in lines:
        if not line[:1].isspace():
            _check_line(line, "uv.lock")
    return _requirements("uv.lock", lines)


def declared_requirements(bundle: Path) -> Requirements | None:
    """Return what a bundle without a lock asks for, None when it asks for nothing.

    Raises:
        DependenciesFailedError: a file is unreadable or uses what a bundle cannot have.
    """
    if (bundle / "requirements.txt").is_file():
        lines = _RequirementsFile(bundle).read("requirements.txt")
        return _requirements("requirements.txt", lines)
    if (bundle / "pyproject.toml").is_file():
        return _requirements("pyproject.toml", _project_dependencies(bundle))
    return None


def _requirements(source: Source, lines: list[str]) -> Requirements | None:
    kept: list[str] = []
    is_skipping = False
    for line in lines:
        is_continuation = line[:1].isspace() and bool(kept or is_skipping)
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        if not is_continuation:
            is_skipping = _PROVIDED.match(text) is not None
        if not is_skipping:
            _check_text(text, source, is_continuation=is_continuation)
            kept.append(text)
    return Requirements(source, "\n".join(kept) + "\n") if kept else None


def _project_dependencies(bundle: Path) -> list[str]:
    try:
        document = tomllib.loads(_text(bundle / "pyproject.toml"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DependenciesFailedError(f"pyproject.toml is not TOML: {error}") from error
    project: Any = document.get("project", {})
    found: Any = cast("dict[str, Any]", project).get("dependencies", [])
    dependencies = cast("list[object]", found) if isinstance(found, list) else [None]
    lines = [item for item in dependencies if isinstance(item, str) and "\n" not in item]
    if len(lines) != len(dependencies):
        raise DependenciesFailedError("pyproject.toml [project] dependencies: must be strings")
    for line in lines:
        _check_line(line.strip(), "pyproject.toml")
    return [line.strip() for line in lines]


class _RequirementsFile:
    """Reads a requirements file with what it includes into one list of lines."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle.resolve()
        self._read: set[Path] = set()

    def read(self, name: str) -> list[str]:
        path = (self._bundle / name).resolve()
        if not path.is_relative_to(self._bundle) or not path.is_file():
            raise DependenciesFailedError(f"{name}: there is no such file in the bundle")
        if path in self._read:
            return []
        self._read.add(path)
        if len(self._read) > _MAX_INCLUDES:
            raise DependenciesFailedError(f"more than {_MAX_INCLUDES} requirements files")
        lines: list[str] = []
        for line in _text(path).replace("\\\n", " ").splitlines():
            lines += self._line(_COMMENT.sub("", line).strip(), path)
        return lines

    def _line(self, line: str, path: Path) -> list[str]:
        name = str(path.relative_to(self._bundle))
        include = _INCLUDE.fullmatch(line)
        if include is None:
            _check_line(line, name)
            return [line] if line else []
        if line.startswith(("-c", "--constraint")):
            raise DependenciesFailedError(
                f"{name}: {line!r}: constraints are not supported; pin versions here or use uv.lock"
            )
        target = path.parent / include.group(1).strip()
        return self.read(str(target))


def _check_line(line: str, name: str) -> None:
    if _LOCAL.match(line):
        raise DependenciesFailedError(
            f"{name}: {line!r}: local packages are not supported; the bundle's own modules "
            "can be imported as they are, other packages must come from an index"
        )
    if line.startswith("-"):
        raise DependenciesFailedError(
            f"{name}: {line!r}: options are not supported here; set indexes with UV_INDEX, "
            "UV_DEFAULT_INDEX or UV_FIND_LINKS where `fluvial up` runs"
        )


def _check_text(text: str, source: Source, *, is_continuation: bool) -> None:
    """Refuse what the installer would read as more, or as something else, than a requirement."""
    if _CONTROL.search(text):
        raise DependenciesFailedError(f"{source}: {text!r}: control characters in a requirement")
    if "${" in text:
        raise DependenciesFailedError(
            f"{source}: {text!r}: variables are not supported: they would be the builder's own"
        )
    option = _OPTION.search(text)
    if option is not None or (text.startswith("-") and not is_continuation):
        raise DependenciesFailedError(f"{source}: {text!r}: options other than --hash are refused")


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise DependenciesFailedError(f"{path.name} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DependenciesFailedError(f"{path.name} is not UTF-8 text") from error
