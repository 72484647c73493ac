"""One file, one function: the files below `api/` and the paths that they answer.

    api/index.py            /api
    api/hello.py            /api/hello
    api/users/index.py      /api/users
    api/users/[id].py       /api/users/7, with `id=7` in the query

A file is a function if it defines `app`, `application` or `handler`; files and folders that begin
with `_` or `.` are never one. Of several files that fit a path, the one that names more of it
literally wins, compared from the left. A slash at a path's end makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from fluvial.errors import ManifestError
from fluvial.module_surveys import survey

FOLDER: Final = "api"
MAX_FILES: Final = 500
_INDEX: Final = "index"
_DYNAMIC: Final = re.compile(r"\[([A-Za-z_]\w*)\]")


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """What the files below `api/` define, in a fixed order."""

    targets: tuple[str, ...]  # "module:attribute" of each function
    workflows: tuple[str, ...]  # modules with workflows, functions or not


def find_file_functions(directory: Path) -> FoundFiles:
    """Return what is below `api/` of the bundle.

    Raises:
        ManifestError: a file is not Python, is called like no path, or answers another one's path.
    """
    root = directory / FOLDER
    targets: list[str] = []
    workflows: list[str] = []
    for path in sorted(_sources(root)) if root.is_dir() else ():
        name = path.relative_to(directory).as_posix()
        surveyed = survey(path, name)
        if surveyed.app is None and not surveyed.has_workflows:
            continue
        _check_segments(name)
        module = name.removesuffix(".py").replace("/", ".")
        if surveyed.has_workflows:
            workflows.append(module)
        if surveyed.app is not None:
            targets.append(f"{module}:{surveyed.app}")
    if len(targets) > MAX_FILES:
        raise ManifestError(f"{FOLDER}/", f"has {len(targets)} functions, above {MAX_FILES}")
    Routes(targets)  # that no two answer one path
    return FoundFiles(tuple(targets), tuple(workflows))


def route_of(target: str) -> str:
    """Return the path that a function answers, such as `/api/users/[id]`."""
    return "/" + "/".join(_segments(target))


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    dynamic: _Node | None = None
    name: str = ""  # of the dynamic segment that leads here
    target: str | None = None


class Routes:
    """Finds the function that answers a path."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._root = _Node()
        for target in targets:
            self._add(target)

    def match(self, raw_path: str) -> tuple[str, dict[str, str]] | None:
        """Return (the function, its dynamic segments decoded) for a path as it came."""
        segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
        found: dict[str, str] = {}
        target = _match(self._root, segments, 0, found)
        return None if target is None else (target, found)

    def _add(self, target: str) -> None:
        node = self._root
        for segment in _segments(target):
            dynamic = _DYNAMIC.fullmatch(segment)
            if dynamic is None:
                node = node.literal.setdefault(segment, _Node())
                continue
            if node.dynamic is None:
                node.dynamic = _Node(name=dynamic.group(1))
            elif node.dynamic.name != dynamic.group(1):
                reason = f"[{node.dynamic.name}] and {segment} stand for the same segment"
                raise ManifestError(_file(target), f"{reason}: keep one name")
            node = node.dynamic
        if node.target is not None:
            other = _file(node.target)
            raise ManifestError(_file(target), f"answers {route_of(target)}, and so does {other}")
        node.target = target


def _match(node: _Node, segments: list[str], depth: int, found: dict[str, str]) -> str | None:
    if depth == len(segments):
        return node.target
    following = node.literal.get(segments[depth])
    if following is not None:
        target = _match(following, segments, depth + 1, found)
        if target is not None:
            return target
    if node.dynamic is None or not segments[depth]:
        return None
    target = _match(node.dynamic, segments, depth + 1, found)
    if target is not None:
        found[node.dynamic.name] = segments[depth]
    return target


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(("_", ".")) or path.is_symlink():
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def _check_segments(name: str) -> None:
    for segment in name.removesuffix(".py").split("/"):
        if any(character in segment for character in "[].:") and not _DYNAMIC.fullmatch(segment):
            raise ManifestError(
                name, f"{segment!r} is no segment of a path: use a plain name, or [name] for any"
            )


def _segments(target: str) -> list[str]:
    segments = target.partition(":")[0].split(".")
    return segments[:-1] if segments[-1] == _INDEX else segments


def _file(target: str) -> str:
    return f"{target.partition(':')[0].replace('.', '/')}.py"
