"""Options that many commands have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from fluvial.errors import InvalidRequestError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Data = Annotated[
    bool, typer.Option("--data", help="Decrypt inputs and results (needs the scope data:read).")
]
App = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]
Deployment = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id, dpl_….")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run_….")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="A tag; again for more."),
]


def tags_of(texts: Iterable[str] | None, what: str = "--tag") -> dict[str, str]:
    """Return the tags that were given as `NAME=VALUE`.

    Raises:
        InvalidRequestError: one has no name or no `=`.
    """
    tags: dict[str, str] = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise InvalidRequestError(f"{what} {text!r}: write it as NAME=VALUE")
        tags[name] = value
    return tags
