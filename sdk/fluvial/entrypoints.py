"""Conventions: which object of a bundle is its HTTP app when the manifest does not say.

Looked at in this order; the first answer stands:

    1. `[tool.vercel] entrypoint` in pyproject.toml
    2. the files of FILES, or the only Python file beside the manifest
    3. a Django project's `manage.py`
    4. the functions below `api/` (`fluvial.file_functions`)
    5. `[project.scripts] app` in pyproject.toml

Nothing of the bundle is executed: the command line looks before it uploads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from fluvial.django_projects import find_django
from fluvial.errors import ManifestError, NoEntrypointError
from fluvial.file_functions import FOLDER, find_file_functions
from fluvial.module_surveys import ATTRIBUTES, survey

TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
NAMES: Final = ("app", "index", "server", "main", "wsgi", "asgi")
FOLDERS: Final = ("", "src/", "app/")
FILES: Final = (
    *(f"{folder}{name}.py" for folder in FOLDERS for name in NAMES),
    "lambda_function.py",
)
# One file of these names in `api/`, and no other function there, is the app of every path.
_WHOLE_APPS: Final = frozenset(f"{FOLDER}.{name}" for name in NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the conventions found: an HTTP app or functions in files, modules with workflows."""

    app: str | None = None
    files: tuple[str, ...] = ()  # "module:attribute" of each function below `api/`
    workflows: tuple[str, ...] = ()


def find_entrypoint(directory: Path, pyproject: Mapping[str, Any] | None = None) -> Found:
    """Return what the bundle in `directory` can execute; `pyproject` is its pyproject.toml.

    Raises:
        NoEntrypointError: nothing was found; the message says what was looked for.
        ManifestError: a file of the conventions is not Python, or a named entrypoint is no name.
    """
    document = pyproject or {}
    named = _named_for_vercel(document)
    if named is not None:
        return Found(app=named)
    app, workflows = _in_known_files(directory)
    app = app or find_django(directory)
    if app is not None:
        return Found(app=app, workflows=workflows)
    files = find_file_functions(directory)
    targets = files.targets
    if len(targets) == 1 and targets[0].partition(":")[0] in _WHOLE_APPS:
        return Found(app=targets[0])
    workflows += files.workflows
    if targets:
        return Found(files=targets, workflows=workflows)
    script = _lookup(document, "project", "scripts", "app")
    if isinstance(script, str) and TARGET.fullmatch(script):
        return Found(app=script, workflows=workflows)
    if not workflows:
        raise _nothing_found()
    return Found(workflows=workflows)


def _named_for_vercel(pyproject: Mapping[str, Any]) -> str | None:
    named = _lookup(pyproject, "tool", "vercel", "entrypoint")
    if named is None:
        return None
    if not isinstance(named, str) or not TARGET.fullmatch(named):
        where = "pyproject.toml [tool.vercel] entrypoint"
        raise ManifestError(where, f'must be "module:attribute", got {named!r}')
    return named


def _in_known_files(directory: Path) -> tuple[str | None, tuple[str, ...]]:
    """Return (the app, None where no file has one; modules that define workflows instead)."""
    workflows: list[str] = []
    for name in _candidates(directory):
        found = survey(directory / name, name)
        module = name.removesuffix(".py").replace("/", ".")
        if found.app is not None:
            return f"{module}:{found.app}", ()
        if found.has_workflows:
            workflows.append(module)
    return None, tuple(workflows)


def _candidates(directory: Path) -> list[str]:
    """Return the files to look into: those of the conventions, else the only Python file."""
    known = [name for name in FILES if (directory / name).is_file()]
    if known:
        return known
    sources = [path.name for path in directory.glob("*.py") if path.stem.isidentifier()]
    return sources if len(sources) == 1 and sources != ["manage.py"] else []


def _lookup(document: Mapping[str, Any], *keys: str) -> object:
    found: object = document
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = cast("Mapping[str, object]", found).get(key)
    return found


def _nothing_found() -> NoEntrypointError:
    names = ", ".join(f"{name}.py" for name in NAMES)
    return NoEntrypointError(
        "the bundle",
        f"has no HTTP app and no workflows: none of {names} (here, in src/ or in app/) and no "
        f"file below {FOLDER}/ defines {', '.join(ATTRIBUTES[:-1])} or {ATTRIBUTES[-1]}, and no "
        "manage.py leads to a Django project; name it in the manifest, "
        'e.g. app = "package.module:app" or workflows = ["package.module"]',
    )
