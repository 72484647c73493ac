"""Operations on the platform itself: tokens, instances, health, metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fluvial.errors import FluvialError, UnavailableError
from fluvial_gateway.auth import MAX_NAME_CHARACTERS, Scope, Tokens
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.schemas import array, obj, text
from fluvial_gateway.scrape import Scrape, Surveyor
from fluvial_queue.contract import Durability

_LOG = logging.getLogger(__name__)
_STORE_SECONDS: Final = 2.0
_PLAIN: Final = "text/plain"
_INSTANCE_FIELDS: Final = (
    "instance",
    "deployment",
    "app",
    "pid",
    "tier",
    "started_ms_ago",
    "rss_bytes",
    "cpu_us",
    "state",
)
_ZYGOTE_FIELDS: Final = ("layer", "pid", "rss_bytes", "children")
_SNAPSHOT_FIELDS: Final = (
    "app",
    "deployment",
    "state",
    "reason",
    "forks",
    *_ZYGOTE_FIELDS,
)


class StoreHealth(Protocol):
    """The part of a store that tells whether it is well."""

    @property
    def durability(self) -> Durability: ...

    async def now_ms(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the platform says about itself."""

    version: str
    http_url: str
    domain: str
    store_url: str


class PlatformOperations:
    """Handlers over everything that belongs to no app."""

    def __init__(
        self,
        *,
        about: About,
        tokens: Tokens,
        store: StoreHealth,
        is_dispatching: Callable[[], bool],
        surveyor: Surveyor,
        scrape: Scrape,
    ) -> None:
        self._about = about
        self._tokens = tokens
        self._store = store
        self._is_dispatching = is_dispatching
        self._surveyor = surveyor
        self._scrape = scrape
        self._is_draining = False

    def drain(self) -> None:
        """Be not ready from now on, so that load balancers look elsewhere."""
        self._is_draining = True

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/tokens",
                name="createToken",
                summary="Make a bearer token; it is shown this once",
                handler=self.create_token,
                scopes=(Scope.ADMIN,),
                body=Body(
                    obj(
                        {
                            "name": text(minLength=1, maxLength=MAX_NAME_CHARACTERS),
                            "scopes": array(
                                text(enum=[scope.value for scope in Scope]),
                                minItems=1,
                                maxItems=len(Scope),
                            ),
                        },
                        required=["name", "scopes"],
                    )
                ),
                replies={
                    201: Reply(
                        "The token.",
                        obj({"token": text(), "name": text(), "scopes": array(text())}),
                    )
                },
            ),
            Operation(
                method="GET",
                path="/v1/instances",
                name="listInstances",
                summary="List the instances that exist now",
                handler=self.instances,
                scopes=(Scope.METRICS_READ,),
                replies={
                    200: Reply(
                        "Instances, the zygotes that new ones are forked from, and snapshots.",
                        obj({"instances": array(), "zygotes": array(), "snapshots": array()}),
                    )
                },
            ),
            Operation(
                method="GET",
                path="/v1/info",
                name="getInfo",
                summary="Return what runs here and how",
                handler=self.info,
                scopes=tuple(Scope),
                replies={
                    200: Reply(
                        "About the platform.",
                        obj(
                            {
                                "version": text(),
                                "http_url": text(),
                                "domain": text(),
                                "store": text("without credentials"),
                                "durability": text(),
                            }
                        ),
                    )
                },
            ),
            Operation(
                method="GET",
                path="/livez",
                name="livez",
                summary="Answer if the process answers",
                handler=self.livez,
                scopes=(),
                replies={200: Reply("It does.", text(), _PLAIN)},
            ),
            Operation(
                method="GET",
                path="/readyz",
                name="readyz",
                summary="Answer 200 if runs can make progress here",
                handler=self.readyz,
                scopes=(),
                replies={200: Reply("They can.", text(), _PLAIN)},
                problems=("unavailable",),
            ),
            Operation(
                method="GET",
                path="/metrics",
                name="metrics",
                summary="Metrics for Prometheus",
                handler=self.metrics,
                scopes=(),
                replies={200: Reply("The exposition.", text(), _PLAIN)},
            ),
        ]

    async def create_token(self, call: Call) -> Response:
        name, scopes = call.body["name"], [Scope(scope) for scope in call.body["scopes"]]
        token = await self._tokens.create(name, scopes)
        call.note(made=name, scopes=sorted(set(call.body["scopes"])))
        answer = {"token": token, "name": name, "scopes": sorted(set(call.body["scopes"]))}
        return JSONResponse(answer, 201)

    async def instances(self, call: Call) -> Response:
        survey = await self._surveyor.survey()
        return JSONResponse(
            {
                "instances": [_picked(found, _INSTANCE_FIELDS) for found in survey.instances],
                "zygotes": [_picked(found, _ZYGOTE_FIELDS) for found in survey.zygotes],
                "snapshots": [_picked(found, _SNAPSHOT_FIELDS) for found in survey.snapshots],
            }
        )

    async def info(self, call: Call) -> Response:
        about = self._about
        return JSONResponse(
            {
                "version": about.version,
                "http_url": about.http_url,
                "domain": about.domain,
                "store": without_credentials(about.store_url),
                "durability": self._store.durability,
            }
        )

    async def livez(self, call: Call) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, call: Call) -> Response:
        reason = await self._unready()
        if reason is not None:
            raise UnavailableError(reason)
        return PlainTextResponse("ok\n")

    async def metrics(self, call: Call) -> Response:
        return Response(await self._scrape.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def _unready(self) -> str | None:
        if self._is_draining:
            return "the gateway is stopping"
        if not self._is_dispatching():
            return "the dispatcher does not own its partitions yet"
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self._store.now_ms()
        except (FluvialError, TimeoutError):
            _LOG.warning("the store did not answer", exc_info=True)
            return "the store does not answer"
        return None


def without_credentials(store_url: str) -> str:
    """Return a store's URL without user, password and parameters."""
    parts = urlsplit(store_url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _picked(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
