"""Operations that delete deployments, keep them after all, and say how long an app keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.durations import Duration
from fluvial.errors import InvalidRequestError
from fluvial_gateway.aliases import MAX_PIN_MS, Aliases
from fluvial_gateway.auth import Scope
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH, DEPLOYMENT_IN_PATH
from fluvial_gateway.control.schemas import array, integer, nullable, obj, text
from fluvial_gateway.control.times import SPAN, span_ms
from fluvial_gateway.control.views import APP, DEPLOYMENT, Addresses, app_view, deployment_view
from fluvial_gateway.janitor import Janitor
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.removals import Removals
from fluvial_queue.records import AppRecord

MAX_KEPT: Final = 1000
_DAY_MS: Final = 24 * 3600 * 1000
_REMOVAL: Final = obj(
    {
        "deployment": text(),
        "state": text("deleted, or retiring: it goes with the last run that needs it"),
        "runs": array(text("a live run, of the first few")),
        "live_runs": {"type": "integer"},
        "ended_runs": {"type": "integer"},
    }
)
_SETTINGS: Final = Body(
    obj(
        {
            "keep_deployments": nullable(
                integer(1, MAX_KEPT, description="of the newest; null: the platform's")
            ),
            "keep_deployments_for": nullable(
                {**SPAN, "description": "in any case; null: the platform's"}
            ),
            "pin_for": nullable(
                {
                    **SPAN,
                    "description": "how long clients may go on with a deployment that production "
                    "has left; 0: not at all; null: the platform's, 12 h",
                }
            ),
            "pin_cookie": {
                "type": "boolean",
                "description": "give clients a cookie that keeps them on their deployment",
            },
        }
    )
)


class RemovingOperations:
    """Handlers over removals."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: Aliases,
        removals: Removals,
        janitor: Janitor,
        addresses: Addresses,
    ) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._removals = removals
        self._janitor = janitor
        self._addresses = addresses

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="DELETE",
                path="/v1/deployments/{id}",
                name="deleteDeployment",
                summary="Delete a deployment that no live run needs and no alias stands on",
                handler=self.delete,
                scopes=(Scope.DEPLOY,),
                parameters=(
                    DEPLOYMENT_IN_PATH,
                    Parameter(
                        "force",
                        "query",
                        {"type": "boolean", "default": False},
                        "Also while ended runs are kept that ran on it; never while live ones do.",
                    ),
                    Parameter(
                        "when_unused",
                        "query",
                        {"type": "boolean", "default": False},
                        "Where runs need it, let it take no new ones, and delete it after them.",
                    ),
                ),
                replies={200: Reply("What became of it.", _REMOVAL)},
                problems=("deployment_not_found", "deployment_in_use", "alias_conflict"),
            ),
            Operation(
                method="POST",
                path="/v1/deployments/{id}/keep",
                name="keepDeployment",
                summary="Keep a deployment that was to be deleted after its last run",
                handler=self.keep,
                scopes=(Scope.DEPLOY,),
                parameters=(DEPLOYMENT_IN_PATH,),
                body=Body(obj({}), optional=True),
                replies={200: Reply("The deployment.", DEPLOYMENT)},
                problems=("deployment_not_found", "alias_conflict"),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/settings",
                name="setApp",
                summary="Change an app's settings; what is not named stays",
                handler=self.set_app,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=_SETTINGS,
                replies={200: Reply("The app.", APP)},
                problems=("app_not_found", "alias_conflict"),
            ),
        ]

    async def delete(self, call: Call) -> Response:
        deployment = call.path["id"]
        call.note(deployment=deployment, force=call.query["force"])
        removal = await self._removals.remove(
            deployment,
            spares_ended=not call.query["force"],
            when_unused=call.query["when_unused"],
        )
        call.note(state=removal.state)
        self._janitor.wake()
        return JSONResponse(
            {
                "deployment": deployment,
                "state": removal.state,
                "runs": list(removal.use.live),
                "live_runs": removal.use.live_count,
                "ended_runs": removal.use.ended_count,
            }
        )

    async def keep(self, call: Call) -> Response:
        await self._removals.reinstate(call.path["id"])
        deployment = await self._catalogue.deployment(call.path["id"])
        app = await self._catalogue.app(deployment.spec.app)
        return JSONResponse(deployment_view(deployment, self._addresses, app))

    async def set_app(self, call: Call) -> Response:
        app_name, changes = call.path["app"], _changes(call.body)
        call.note(**changes)

        async def change(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            return replace(app, **changes)

        app = await self._aliases.change(app_name, change)
        await self._aliases.reload()
        self._janitor.wake()
        return JSONResponse(app_view(app, self._addresses))


def _changes(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an app's record that a body of settings changes."""
    changes: dict[str, Any] = {}
    if "keep_deployments" in body:
        changes["keep_count"] = body["keep_deployments"]
    if "keep_deployments_for" in body:
        span = body["keep_deployments_for"]
        changes["keep_ms"] = None if span is None else span_ms(span, "keep_deployments_for")
    if "pin_for" in body:
        changes["pin_ms"] = _pin_ms(body["pin_for"])
    if "pin_cookie" in body:
        changes["sets_pin_cookie"] = body["pin_cookie"]
    return changes


def _pin_ms(span: Duration | None) -> int | None:
    if span is None:
        return None
    pin_ms = span_ms(span, "pin_for")
    if pin_ms > MAX_PIN_MS:
        raise InvalidRequestError(f"pin_for is at most {MAX_PIN_MS // _DAY_MS} days, got {span!r}")
    return pin_ms
