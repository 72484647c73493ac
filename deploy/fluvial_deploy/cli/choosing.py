"""Commands that steer one run, or all runs that options choose.

`@choosing` gives a command the argument RUN and the options that choose runs instead. Many runs are
never steered by accident: a person is asked before, a program says `--yes`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec, cast

import typer

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode
from fluvial_deploy.cli.options import tags_of
from fluvial_deploy.cli.output import can_ask, confirm, data, data_json, printable, say

if TYPE_CHECKING:
    from fluvial.client import BulkProgress, BulkRun, Client, RunFilter

P = ParamSpec("P")

_RUN: Final = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Its id; without, the options choose.")
]
_OPTIONS: Final[dict[str, Any]] = {
    "app": Annotated[str | None, typer.Option(help="Choose runs of this app.")],
    "workflow": Annotated[str | None, typer.Option(help="Choose runs of this workflow.")],
    "status": Annotated[
        list[str] | None, typer.Option(help="Choose runs with this status; again for more.")
    ],
    "tag": Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Choose runs with this tag; again: with all."),
    ],
    "since": Annotated[
        str | None, typer.Option(metavar="TIME|AGE", help='Made then or later; such as "2h" ago.')
    ],
    "older_than": Annotated[str | None, typer.Option(metavar="TIME|AGE", help="Made before.")],
    "parent": Annotated[str | None, typer.Option(metavar="RUN", help="Choose its children.")],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before.")],
    "limit": Annotated[int | None, typer.Option(min=1, help="At most so many runs.")],
    "cursor": Annotated[str | None, typer.Option(help="Go on where it was stopped.")],
    "key": Annotated[
        str | None, typer.Option(help="With an equal key nothing is asked of a run twice.")
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which runs a command is for: one, or those that have all that is given."""

    run: str | None = None
    app: str | None = None
    workflow: str | None = None
    status: list[str] | None = None
    tag: list[str] | None = None
    since: str | None = None
    older_than: str | None = None
    parent: str | None = None
    dry_run: bool = False
    yes: bool = False
    limit: int | None = None
    cursor: str | None = None
    key: str | None = None

    @property
    def is_many(self) -> bool:
        """Whether options choose the runs.

        Raises:
            InvalidRequestError: both they and RUN do, or nothing does.
        """
        choice = (self.app, self.workflow, self.status, self.tag, self.since, self.older_than)
        chooses = any(choice) or bool(self.parent)
        if self.run is None and not chooses:
            raise InvalidRequestError(
                "say which: a RUN, or options that choose runs, such as --app and --status"
            )
        of_many = self.dry_run or self.limit or self.cursor or self.key
        if self.run is not None and (chooses or of_many):
            raise InvalidRequestError(
                "RUN is one run; options that choose runs, and --dry-run, --limit, --cursor and"
                " --key, are for several: give one or the other"
            )
        return self.run is None

    def filter(self) -> RunFilter:
        """Return what chooses the runs."""
        from fluvial.client import RunFilter

        return RunFilter(
            app=self.app,
            workflow=self.workflow,
            status=[name for text in self.status or () for name in text.split(",")],
            tags=tags_of(self.tag),
            since=self.since,
            until=self.older_than,
            parent=self.parent,
        )


def choosing(command: Callable[Concatenate[Chosen, P], None]) -> Callable[..., None]:
    """Wrap a command whose first parameter is what was chosen."""

    @functools.wraps(command)
    def run(*args: P.args, **given: P.kwargs) -> None:
        options = cast("dict[str, Any]", given)
        chosen = Chosen(**{name: options.pop(name) for name in ("run", *_OPTIONS)})
        command(chosen, *args, **given)

    parameters = inspect.signature(command, eval_str=True).parameters
    own = [parameters[name] for name in list(parameters)[1:]]
    defaults = asdict(Chosen())
    choice = [_parameter(name, hint, defaults[name]) for name, hint in _OPTIONS.items()]
    everything = [_parameter("run", _RUN, None), *own, *choice]
    wrapped = cast("Any", run)
    wrapped.__signature__ = inspect.Signature(everything)
    wrapped.__annotations__ = {each.name: each.annotation for each in everything}
    return run


def steer_many(chosen: Chosen, action: str, *, as_json: bool, **more: Any) -> None:
    """Ask the same of all chosen runs, and show what becomes of each.

    Raises:
        CommandError: nobody has agreed to it.
        FluvialError: it was refused, or stopped on the way.
    """
    with connect() as client:
        if not (chosen.yes or chosen.dry_run):
            _ask_before(client, chosen, action, more)
        cursor = chosen.cursor
        try:
            for result in _bulk(client, chosen, action, more, dry_run=chosen.dry_run):
                cursor = getattr(result, "cursor", cursor)
                _show(result, action, as_json=as_json)
        except (FluvialError, KeyboardInterrupt):
            if cursor is not None:
                say(f"go on with the same options and --cursor {cursor}")
            raise


def _bulk(
    client: Client, chosen: Chosen, action: str, more: dict[str, Any], *, dry_run: bool
) -> Iterator[BulkRun | BulkProgress]:
    return client.bulk(
        action,
        chosen.filter(),
        dry_run=dry_run,
        limit=chosen.limit,
        cursor=chosen.cursor,
        key=chosen.key,
        **more,
    )


def _ask_before(client: Client, chosen: Chosen, action: str, more: dict[str, Any]) -> None:
    """Have a person agree."""
    if not can_ask():
        raise InvalidRequestError(
            "these may be many runs: see which with --dry-run, then do it with --yes"
        )
    found = 0
    for result in _bulk(client, chosen, action, more, dry_run=True):
        found = getattr(result, "done", found)
    if found and not confirm(f"{action} {_runs(found)}?"):
        raise CommandError("nothing was done", ExitCode.FAILED)


def _show(result: BulkRun | BulkProgress, action: str, *, as_json: bool) -> None:
    plain = asdict(result)
    if "run_id" in plain:
        cells = [plain["run_id"], plain["app"], plain["workflow"], plain["status"]]
        cells += [plain["outcome"], plain["reason"] or "-"]
        gap = "  " if sys.stdout.isatty() else "\t"
        data_json({"run": plain}) if as_json else data(gap.join(map(printable, cells)))
    elif plain.pop("is_last"):
        data_json({"summary": plain}) if as_json else say(_summary(plain, action))


def _summary(counts: dict[str, Any], action: str) -> str:
    skipped = [f"{count} {reason}" for reason, count in counts["skipped"].items()]
    parts = [f"{action}: {counts['done']} of {_runs(counts['matched'])}"]
    parts += [f"skipped: {', '.join(skipped)}"] if skipped else []
    parts += [f"more: --cursor {counts['cursor']}"] if counts["cursor"] else []
    return "; ".join(parts)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=hint)
