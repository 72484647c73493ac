"""Conventions: which object of a bundle is its HTTP app when the manifest does not say.

The source is parsed, never executed: a bundle is somebody else's code, and the command line looks
before it uploads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial.errors import ManifestError, NoEntrypointError

FILES: Final = (
    "main.py",
    "app.py",
    "index.py",
    "server.py",
    "api/index.py",
    "asgi.py",
    "wsgi.py",
)
ATTRIBUTES: Final = ("app", "application", "handler")
_MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
_DJANGO_SETTINGS: Final = re.compile(
    r"""["']DJANGO_SETTINGS_MODULE["']\s*,\s*["']([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)["']"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the conventions found: an HTTP app, or modules with workflows, or both."""

    app: str | None
    workflows: tuple[str, ...] = ()


def find_entrypoint(directory: Path) -> Found:
    """Return what the bundle in `directory` can execute.

    Raises:
        NoEntrypointError: nothing was found; the message says what was looked for.
        ManifestError: a file of the conventions is not Python.
    """
    workflows: list[str] = []
    for name in _candidates(directory):
        names, has_workflows = _survey(directory / name, name)
        module = name.removesuffix(".py").replace("/", ".")
        for attribute in ATTRIBUTES:
            if attribute in names:
                return Found(app=f"{module}:{attribute}")
        if has_workflows:
            workflows.append(module)
    django = _django(directory)
    if django is None and not workflows:
        raise _nothing_found()
    return Found(app=django, workflows=tuple(workflows))


def _candidates(directory: Path) -> list[str]:
    """Return the files to look into: those of the conventions, else the only Python file."""
    known = [name for name in FILES if (directory / name).is_file()]
    if known:
        return known
    sources = [path.name for path in directory.glob("*.py") if path.stem.isidentifier()]
    return sources if len(sources) == 1 and sources != ["manage.py"] else []


def _survey(path: Path, name: str) -> tuple[set[str], bool]:
    """Return (the names that the module binds, whether it defines workflows)."""
    if path.stat().st_size > _MAX_SOURCE_BYTES:
        raise ManifestError(name, f"is larger than {_MAX_SOURCE_BYTES} bytes")
    try:
        tree = ast.parse(path.read_bytes(), filename=name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ManifestError(name, f"is not valid Python: {error}") from error
    names: set[str] = set()
    has_workflows = False
    for statement in _top_level(tree.body):
        names.update(_bound(statement))
        has_workflows = has_workflows or _is_workflow(statement)
    return names, has_workflows


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run at import, also those inside `if`, `try` and `with`."""
    pending = list(body)
    while pending:
        statement = pending.pop()
        yield statement
        if isinstance(statement, (ast.If, ast.Try, ast.TryStar, ast.With)):
            pending += statement.body
        if isinstance(statement, (ast.If, ast.Try, ast.TryStar)):
            pending += statement.orelse
        if isinstance(statement, (ast.Try, ast.TryStar)):
            pending += statement.finalbody
            pending += [inner for handler in statement.handlers for inner in handler.body]


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case _:
            pass


def _is_workflow(statement: ast.stmt) -> bool:
    """Return whether a function is decorated with `workflow`, `x.workflow` or a call of it."""
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    for decorator in statement.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
        if name == "workflow":
            return True
    return False


def _django(directory: Path) -> str | None:
    """Return the application of the Django project whose `manage.py` is here."""
    manage = directory / "manage.py"
    if not manage.is_file() or manage.stat().st_size > _MAX_SOURCE_BYTES:
        return None
    settings = _DJANGO_SETTINGS.search(manage.read_text("utf-8", errors="replace"))
    package = settings.group(1).rpartition(".")[0] if settings else ""
    for module in ("asgi", "wsgi"):
        if package and (directory / package.replace(".", "/") / f"{module}.py").is_file():
            return f"{package}.{module}:application"
    return None


def _nothing_found() -> NoEntrypointError:
    return NoEntrypointError(
        "the bundle",
        f"has no HTTP app and no workflows: none of {', '.join(FILES)} defines "
        f"{', '.join(ATTRIBUTES[:-1])} or {ATTRIBUTES[-1]}; name it in the manifest, "
        'e.g. app = "package.module:app" or workflows = ["package.module"]',
    )
