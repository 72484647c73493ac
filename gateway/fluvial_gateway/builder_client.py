"""The gateway's side of a build: one connection to the builder per build.

Dialling is what starts the builder: the supervisor holds its socket. A builder that idles out at
that very moment hangs up before it says anything; then the build is asked for once more, because a
build changes nothing but content-addressed folders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from fluvial import wire
from fluvial.errors import WireError
from fluvial.manifest import InstanceSettings
from fluvial.variables import check_variables
from fluvial.wire import FrameType
from fluvial_gateway.problems import ProblemError, is_known
from fluvial_queue.records import DeploymentFunctions

_LOG = logging.getLogger(__name__)

_BUILD_ID: Final = 1
_READ_BYTES: Final = 64 * 1024
_DIALS: Final = 2
# uv downloads and installs quietly for long; who builds longer should lock fewer dependencies.
BUILD_SECONDS: Final = 900.0
MAX_LOG_CHARACTERS: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build: the archive, and the app's name where it is not the manifest's."""

    archive: Path
    digest: str
    name: str | None
    variables: tuple[str, ...] = ()  # names of the app's own variables: their values stay sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What was built, and what importing it has shown."""

    app: str
    bundle: str
    layer: str
    modules: tuple[str, ...]  # to import for their workflows
    instance: InstanceSettings
    functions: DeploymentFunctions
    retention_ms: int | None = None  # of runs that have ended; None: the platform's
    environment: dict[str, str] = field(default_factory=dict[str, str])  # of the manifest


class BuilderClient:
    """Asks the builder."""

    def __init__(self, socket_path: Path, *, build_seconds: float = BUILD_SECONDS) -> None:
        self._socket_path = socket_path
        self._build_seconds = build_seconds

    async def build(self, request: BuildRequest) -> AsyncGenerator[str | BuildReport, None]:
        """Yield the build's log as it comes, then the report.

        Raises:
            ProblemError: the builder refused, failed, or cannot be reached.
        """
        try:
            async with asyncio.timeout(self._build_seconds):
                for _ in range(_DIALS):
                    heard = False
                    async with aclosing(self._converse(request)) as answers:
                        async for answer in answers:
                            heard = True
                            yield answer
                    if heard:
                        return
                    _LOG.info("the builder ended before it answered")
        except TimeoutError as error:
            raise ProblemError(
                "build_failed", f"the build took longer than {self._build_seconds:.0f} s"
            ) from error
        raise ProblemError("builder_unavailable", "the builder ended before it answered")

    async def _converse(self, request: BuildRequest) -> AsyncGenerator[str | BuildReport, None]:
        """Yield what one connection brings; nothing if it ends at once."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
        except OSError as error:
            raise ProblemError(
                "builder_unavailable", f"the builder cannot be reached: {error.strerror}"
            ) from error
        heard = False
        try:
            writer.write(wire.pack(FrameType.BUILD, _BUILD_ID, _request_map(request)))
            async for header in _frames(reader):
                heard = True
                if header[0] == FrameType.BUILT:
                    yield _report(_map(header))
                    return
                if header[0] == FrameType.REFUSED:
                    raise _refusal(header)
                if header[0] == FrameType.BUILD_LOG and len(header) > 2:
                    yield _printable(str(header[2]))
            if heard:
                raise ProblemError("builder_unavailable", "the builder ended during the build")
        except (OSError, WireError) as error:
            if heard or isinstance(error, WireError):
                raise ProblemError(
                    "builder_unavailable", f"the connection to the builder broke: {error}"
                ) from error
        finally:
            writer.close()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[list[Any]]:
    frames = wire.FrameReader()
    log_characters = 0
    while data := await reader.read(_READ_BYTES):
        for header, _ in frames.feed(data):
            log_characters += len(str(header[2])) if header[0] == FrameType.BUILD_LOG else 0
            if log_characters > MAX_LOG_CHARACTERS:
                raise WireError(f"the build log is longer than {MAX_LOG_CHARACTERS} characters")
            yield header


def _request_map(request: BuildRequest) -> dict[str, Any]:
    return {
        "archive": str(request.archive),
        "digest": request.digest,
        "name": request.name,
        "variables": list(request.variables),
    }


def _map(header: list[Any]) -> dict[str, Any]:
    if len(header) < 3 or not isinstance(header[2], dict):
        raise WireError("the builder's report is not a map")
    return cast("dict[str, Any]", header[2])


def _report(report: dict[str, Any]) -> BuildReport:
    try:
        manifest = cast("dict[str, Any]", report["manifest"])
        functions = cast("dict[str, Any]", report["functions"])
        retention = manifest["retention_seconds"]
        return BuildReport(
            app=str(manifest["name"]),
            bundle=str(report["bundle"]),
            layer=str(report["layer"]),
            modules=tuple(str(module) for module in manifest["workflows"]),
            instance=InstanceSettings(**manifest["instance"]),
            functions=DeploymentFunctions.from_dict(functions),
            retention_ms=None if retention is None else round(float(retention) * 1000),
            environment=_environment(manifest["environment"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"the builder's report is incomplete: {error!r}") from error


def _environment(variables: dict[str, Any]) -> dict[str, str]:
    environment = {str(name): str(value) for name, value in variables.items()}
    check_variables(environment)
    return environment


def _refusal(header: list[Any]) -> ProblemError:
    code, message = (*header[2:4], "", "")[:2]
    known = str(code) if is_known(str(code)) else "build_failed"
    return ProblemError(known, _printable(str(message)))


def _printable(text: str) -> str:
    """Return what a build said without control characters: it ends on somebody's terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
