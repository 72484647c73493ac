"""What a module of a bundle defines, read from its source.

The source is parsed, never executed: a bundle is somebody else's code, and the command line looks
before it uploads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial.errors import ManifestError

ATTRIBUTES: Final = ("app", "application", "handler")
MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
# What Lambda calls where nobody says otherwise.
_LAMBDA: Final = "lambda_handler"
_SERVER_BASE: Final = "HTTPRequestHandler"
_FRAMEWORK: Final = ("functions_framework.http", "functions_framework.cloud_event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found at the top level of one module."""

    app: str | None  # the attribute that is an HTTP app by its name or its decorator
    has_workflows: bool


def survey(path: Path, name: str) -> Survey:
    """Return what the file at `path`, called `name` in the bundle, defines.

    Raises:
        ManifestError: it is not Python, or too large to be looked at.
    """
    if path.stat().st_size > MAX_SOURCE_BYTES:
        raise ManifestError(name, f"is larger than {MAX_SOURCE_BYTES} bytes")
    try:
        tree = ast.parse(path.read_bytes(), filename=name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ManifestError(name, f"is not valid Python: {error}") from error
    bound: set[str] = set()
    special: list[str] = []
    has_workflows = False
    for statement in _top_level(tree.body):
        bound.update(_bound(statement))
        special += _special(statement)
        decorators = list(_decorators(statement))
        has_workflows = has_workflows or any(
            decorator.rpartition(".")[2] == "workflow" for decorator in decorators
        )
    named: list[str] = [attribute for attribute in ATTRIBUTES if attribute in bound]
    named += special + ([_LAMBDA] if _LAMBDA in bound else [])
    return Survey(app=named[0] if named else None, has_workflows=has_workflows)


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
        case ast.ClassDef(name="handler"):
            yield "handler"
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case _:
            pass


def _special(statement: ast.stmt) -> Iterator[str]:
    """Yield the name of what is an app by more than its name."""
    match statement:
        case ast.ClassDef(name=name, bases=bases) if name.lower() == "handler":
            if any(_dotted(base).endswith(_SERVER_BASE) for base in bases):
                yield name
        case ast.FunctionDef(name=name):
            if any(decorator in _FRAMEWORK for decorator in _decorators(statement)):
                yield name
        case _:
            pass


def _decorators(statement: ast.stmt) -> Iterator[str]:
    """Yield the decorators of a function as dotted names, without their arguments."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for decorator in statement.decorator_list:
            yield _dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _dotted(expression: ast.expr) -> str:
    """Return `a.b.c` as text; what is not a name of a name counts as nothing."""
    if isinstance(expression, ast.Attribute):
        return f"{_dotted(expression.value)}.{expression.attr}"
    return expression.id if isinstance(expression, ast.Name) else ""
