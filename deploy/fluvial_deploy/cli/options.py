"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Data = Annotated[
    bool, typer.Option("--data", help="Decrypt inputs and results (needs the scope data:read).")
]
App = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run_….")]
