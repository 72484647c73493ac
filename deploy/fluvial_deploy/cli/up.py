"""`fluvial up`: everything on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from fluvial_deploy.cli.connection import home_path
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data_json, say
from fluvial_deploy.up.settings import (
    Address,
    UpSettings,
    check_durability,
    check_kms_command,
    check_log_limits,
    check_prices,
    check_public_url,
    check_store,
    check_trusted_proxies,
)

if TYPE_CHECKING:
    from fluvial_deploy.up.supervisor import Running


@reported
def up(
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="redis://…, rediss://…, unix://…; default: embedded."),
    ] = None,
    durability: Annotated[
        str, typer.Option(help="What the embedded store survives: disk, process or memory.")
    ] = "disk",
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="The home folder; default FLUVIAL_HOME.")
    ] = None,
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where apps answer.")
    ] = "127.0.0.1:8080",
    control: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the control API answers.")
    ] = "127.0.0.1:8081",
    domain: Annotated[
        str | None,
        typer.Option(
            help="Apps answer at NAME.DOMAIN; default: that of --public-url, else localhost."
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="How the domain is reached from outside, behind a proxy: https://example.com",
        ),
    ] = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            metavar="CIDR,…", help="Proxies in front whose X-Forwarded-* headers are believed."
        ),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="S", help="How long an idle instance stays; a manifest may differ."),
    ] = None,
    invoker_idle: Annotated[
        str, typer.Option(metavar="S", help="How long the invoker stays without instances.")
    ] = "300s",
    keep_deployments: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="How many of an app's newest deployments are kept; default 20."
        ),
    ] = None,
    keep_deployments_for: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long each is kept in any case; default 30d."),
    ] = None,
    log_retention: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the logs of apps are kept.")
    ] = "7d",
    log_app_size: Annotated[
        str, typer.Option(metavar="SIZE", help="How much of one app's log is kept.")
    ] = "256MiB",
    log_size: Annotated[
        str, typer.Option(metavar="SIZE", help="How much of all logs of apps is kept.")
    ] = "2GiB",
    price_cpu_hour: Annotated[
        float | None, typer.Option(help="Of active CPU, in `fluvial usage`; default 0.128.")
    ] = None,
    price_gb_hour: Annotated[
        float | None, typer.Option(help="Of provisioned memory; default 0.0106.")
    ] = None,
    price_million_invocations: Annotated[
        float | None, typer.Option(help="Of a million invocations; default 0.60.")
    ] = None,
    kms_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Wraps and unwraps keys (docs/encryption.md); default FLUVIAL_KMS_COMMAND.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the platform until it is interrupted."""
    from pathlib import Path

    from fluvial.durations import to_seconds

    kms = kms_command if kms_command is not None else os.environ.get("FLUVIAL_KMS_COMMAND")
    public = ""
    if public_url is not None:
        public, domain = check_public_url(public_url, domain)
    settings = UpSettings(
        home=Path(data).absolute() if data else home_path(),
        store=check_store(store) if store else None,
        durability=check_durability(durability),
        http=Address.parse("--http", http),
        control=Address.parse("--control", control),
        domain=domain or "localhost",
        public_url=public,
        trusted_proxies=check_trusted_proxies(trusted_proxies) if trusted_proxies else "",
        idle_seconds=to_seconds(idle, "--idle") if idle else None,
        invoker_idle_seconds=to_seconds(invoker_idle, "--invoker-idle"),
        keep_deployments=keep_deployments,
        keep_deployments_seconds=(
            to_seconds(keep_deployments_for, "--keep-deployments-for")
            if keep_deployments_for
            else None
        ),
        log_limits=check_log_limits(log_retention, log_app_size, log_size),
        prices=check_prices(price_cpu_hour, price_gb_hour, price_million_invocations),
        kms_command=check_kms_command(kms) if kms else "",
    )
    _run(settings, as_json=as_json)


def _run(settings: UpSettings, *, as_json: bool) -> None:
    import asyncio

    from fluvial_deploy.up.supervisor import Supervisor

    def ready(running: Running) -> None:
        if as_json:
            data_json(running.to_dict())
        else:
            say(_screen(running, settings))

    async def main() -> None:
        await Supervisor(settings, tell=say, ready=ready).run()

    asyncio.run(main())


def _screen(running: Running, settings: UpSettings) -> str:
    default = f"http://{settings.domain}:{running.http.rpartition(':')[2]}"
    scheme, _, domain = (settings.public_url or default).partition("://")
    kind = "embedded" if settings.store is None else f"{running.store}://"
    lines = {
        "apps": f"{scheme}://<app>.{domain}",
        "control": running.control,
        "home": running.home,
        "store": f"{kind}, durable: {running.durability}",
        "next": "fluvial deploy DIR",
    }
    return "\n".join(["fluvial is up", *(f"  {name:<8} {text}" for name, text in lines.items())])
