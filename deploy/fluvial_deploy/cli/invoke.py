"""`fluvial invoke`: one request to an app, through the data plane."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluvial.errors import InvalidRequestError, UnavailableError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import ExitCode, reported
from fluvial_deploy.cli.output import say

if TYPE_CHECKING:
    import httpx


@reported
def invoke(
    app: Annotated[str, typer.Argument(metavar="APP", help="An app, or a deployment's id.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path and query.")] = "/",
    method: Annotated[
        str | None, typer.Option("-X", "--method", help="Default: GET, with a body POST.")
    ] = None,
    body: Annotated[
        str | None, typer.Option("-d", "--data", help="The body; @FILE reads one, @- stdin.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="'Name: value'; again for more.")
    ] = None,
    include: Annotated[
        bool, typer.Option("-i", "--include", help="Print status and headers too.")
    ] = False,
) -> None:
    """Send one HTTP request to an app and stream the answer to stdout."""
    import httpx

    with connect() as client:
        info = client.info()
    host = f"{app.lower().replace('_', '-')}.{info.get('domain', 'localhost')}"
    content = _content(body)
    url = str(info["http_url"]).rstrip("/") + (path if path.startswith("/") else f"/{path}")
    timeout = httpx.Timeout(None, connect=5.0)  # the app's own max_duration is the limit
    try:
        with (
            httpx.Client(
                timeout=timeout, trust_env=False, verify=not url.startswith("http://")
            ) as http,
            http.stream(
                method or ("GET" if content is None else "POST"),
                url,
                headers=_headers(header or [], content, host),
                content=content,
            ) as response,
        ):
            failed = _print(response, include=include)
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"{url!r} is not a URL: {error}") from error
    except httpx.TransportError as error:
        raise UnavailableError(f"{url}: the answer broke off: {error}") from error
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _print(response: httpx.Response, *, include: bool) -> bool:
    out = sys.stdout.buffer
    if include:
        out.write(f"{response.http_version} {response.status_code} ".encode())
        out.write(f"{response.reason_phrase}\n".encode())
        out.writelines(name + b": " + value + b"\n" for name, value in response.headers.raw)
        out.write(b"\n")
    for chunk in response.iter_bytes():
        out.write(chunk)
        out.flush()
    out.flush()
    if response.is_error and not include:
        say(f"{response.status_code} {response.reason_phrase}")
    return response.is_error


def _content(body: str | None) -> bytes | None:
    if body is None:
        return None
    if body == "@-":
        return sys.stdin.buffer.read()
    return Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()


def _headers(given: list[str], content: bytes | None, host: str) -> list[tuple[bytes, bytes]]:
    headers = [_header(text) for text in given]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        headers.append(("host", host))
    if content is not None and "content-type" not in names:
        headers.append(("content-type", _media_type(content)))
    return [(name.encode(), value.encode()) for name, value in headers]


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip() or any(c in text for c in "\r\n\0"):
        raise InvalidRequestError(f"-H {text!r} must be 'Name: value'")
    return name.strip(), value.strip()


def _media_type(content: bytes) -> str:
    try:
        json.loads(content)
    except ValueError:
        return "text/plain; charset=utf-8"
    return "application/json"
