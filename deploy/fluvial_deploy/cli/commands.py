"""The commands of `fluvial`, put together."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fluvial_deploy.cli.aliases import aliases
from fluvial_deploy.cli.apps import apps, deployments, rollback
from fluvial_deploy.cli.crons import crons
from fluvial_deploy.cli.dead_letters import dead_letters, redrive
from fluvial_deploy.cli.deploy import deploy
from fluvial_deploy.cli.dev import dev
from fluvial_deploy.cli.doctor import doctor
from fluvial_deploy.cli.domains import domains
from fluvial_deploy.cli.environment import env, redeploy, secret
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.hooks import hooks
from fluvial_deploy.cli.invoke import invoke
from fluvial_deploy.cli.keys import keys
from fluvial_deploy.cli.logs import logs
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data, data_json
from fluvial_deploy.cli.repeating import fork, rerun, retry_failed
from fluvial_deploy.cli.replay import replay
from fluvial_deploy.cli.rollout import promote, rollout
from fluvial_deploy.cli.runs import runs
from fluvial_deploy.cli.start import start
from fluvial_deploy.cli.steering import (
    cancel,
    delete,
    pause,
    resume,
    retry,
    tag,
    terminate,
    wake,
)
from fluvial_deploy.cli.streams import list_streams, show_stream
from fluvial_deploy.cli.talking import ask, send
from fluvial_deploy.cli.tokens import tokens
from fluvial_deploy.cli.up import up
from fluvial_deploy.cli.usage import usage
from fluvial_deploy.cli.why import why

cli = typer.Typer(
    name="fluvial",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help without colours imports in a third of the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cli.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Self-hosted serverless functions and durable workflows."""
    if debug:
        os.environ["FLUVIAL_DEBUG"] = "1"


@reported
def version(as_json: Json = False) -> None:
    """Print the version."""
    # Not at the top: it takes as long to import as everything else here together.
    from importlib.metadata import version as installed_version

    number = installed_version("fluvial")
    data_json({"version": number}) if as_json else data(number)


for _command in (
    *(up, dev, deploy, redeploy, replay, invoke, start, promote, rollback),
    *(logs, usage, doctor, version),
):
    cli.command()(_command)
for _steer in (cancel, terminate, pause, resume, wake, retry, tag, delete, send, ask):
    runs.command()(_steer)
for _repeat in (rerun, fork, retry_failed):
    runs.command()(_repeat)
runs.command()(why)
runs.command("dead-letters")(dead_letters)
runs.command()(redrive)
runs.command("streams")(list_streams)
runs.command("stream")(show_stream)
for _group, _name in (
    (runs, "runs"),
    (hooks, "hooks"),
    (crons, "crons"),
    (apps, "apps"),
    (deployments, "deployments"),
    (aliases, "alias"),
    (domains, "domains"),
    (rollout, "rollout"),
    (env, "env"),
    (secret, "secret"),
    (keys, "keys"),
    (tokens, "token"),
):
    cli.add_typer(_group, name=_name)
