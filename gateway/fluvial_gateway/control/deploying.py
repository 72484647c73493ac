"""Operations on apps and deployments."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.manifest import APP_NAME
from fluvial_gateway.aliases import Aliases
from fluvial_gateway.auth import Scope
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply, Upload
from fluvial_gateway.control.parameters import (
    APP,
    APP_IN_PATH,
    DEPLOYMENT_ID,
    DEPLOYMENT_IN_PATH,
    limit,
)
from fluvial_gateway.control.reading import refuse_large
from fluvial_gateway.control.schemas import array, obj, text
from fluvial_gateway.control.streaming import LINES, line_response
from fluvial_gateway.control.views import (
    APP as APP_SCHEMA,
)
from fluvial_gateway.control.views import (
    DEPLOYMENT,
    Addresses,
    app_view,
    deployment_view,
)
from fluvial_gateway.deployments import Deployed, Deployments
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.uploads import Upload as Received
from fluvial_gateway.uploads import Uploads

_ARCHIVE: Final = "application/zstd"
_DIGEST: Final = "x-fluvial-bundle-digest"
_READERS: Final = (Scope.DEPLOY, Scope.RUNS_READ)


class DeployingOperations:
    """Handlers over the catalogue and the deployments."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        deployments: Deployments,
        aliases: Aliases,
        uploads: Uploads,
        addresses: Addresses,
    ) -> None:
        self._catalogue = catalogue
        self._deployments = deployments
        self._aliases = aliases
        self._uploads = uploads
        self._addresses = addresses

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/deployments",
                name="deploy",
                summary="Build an archive and register it as a deployment",
                description=(
                    'The answer is one JSON object a line: {"log": …} while it builds, then '
                    '{"deployment": …, "url": …, "created": …} or {"problem": …}.'
                ),
                handler=self.deploy,
                scopes=(Scope.DEPLOY,),
                parameters=(
                    Parameter(
                        "name",
                        "query",
                        text(pattern=APP_NAME.pattern),
                        "The app's name, whatever the manifest says.",
                    ),
                    Parameter(
                        "promote",
                        "query",
                        {"type": "boolean", "default": True},
                        "Move the alias `production` to the new deployment.",
                    ),
                    Parameter(
                        _DIGEST,
                        "header",
                        text(pattern="[0-9a-f]{64}"),
                        "The SHA-256 of the body, in hex.",
                        required=True,
                    ),
                ),
                body=Upload(_ARCHIVE, self._uploads.limit_bytes),
                replies={200: Reply("The build's log and its result.", {"type": "string"}, LINES)},
                problems=("digest_mismatch", "too_large", "unsupported_media_type"),
            ),
            Operation(
                method="GET",
                path="/v1/deployments",
                name="listDeployments",
                summary="List deployments, newest first",
                handler=self.list_deployments,
                scopes=_READERS,
                parameters=(APP, limit(100, 1000)),
                replies={200: Reply("Deployments.", obj({"deployments": array(DEPLOYMENT)}))},
            ),
            Operation(
                method="GET",
                path="/v1/deployments/{id}",
                name="getDeployment",
                summary="Show a deployment",
                handler=self.get_deployment,
                scopes=_READERS,
                parameters=(DEPLOYMENT_IN_PATH,),
                replies={200: Reply("The deployment.", DEPLOYMENT)},
                problems=("deployment_not_found",),
            ),
            Operation(
                method="GET",
                path="/v1/apps",
                name="listApps",
                summary="List apps",
                handler=self.list_apps,
                scopes=_READERS,
                replies={200: Reply("Apps, by name.", obj({"apps": array(APP_SCHEMA)}))},
            ),
            Operation(
                method="GET",
                path="/v1/apps/{app}",
                name="getApp",
                summary="Show an app",
                handler=self.get_app,
                scopes=_READERS,
                parameters=(APP_IN_PATH,),
                replies={200: Reply("The app.", APP_SCHEMA)},
                problems=("app_not_found",),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/promote",
                name="promote",
                summary="Move the alias `production` to a deployment",
                handler=self.promote,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(obj({"deployment": DEPLOYMENT_ID}, required=["deployment"])),
                replies={200: Reply("The app with its new alias.", APP_SCHEMA)},
                problems=("app_not_found", "deployment_not_found", "alias_conflict"),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/rollback",
                name="rollback",
                summary="Move the alias `production` back, or to a named deployment",
                handler=self.rollback,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                description="A second one in a row goes forth again: it undoes the first.",
                body=Body(obj({"deployment": DEPLOYMENT_ID}), optional=True),
                replies={200: Reply("The app with its new alias.", APP_SCHEMA)},
                problems=(
                    "app_not_found",
                    "deployment_not_found",
                    "no_previous_deployment",
                    "alias_conflict",
                ),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/redeploy",
                name="redeploy",
                summary="Deploy the bundle of production again, with the app's environment of now",
                handler=self.redeploy,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(
                    obj({"promote": {"type": "boolean", "description": "default: true"}}),
                    optional=True,
                ),
                replies={
                    200: Reply(
                        "The deployment; `created` is false where nothing would change.",
                        obj(
                            {
                                "deployment": DEPLOYMENT,
                                "url": text(),
                                "created": {"type": "boolean"},
                            }
                        ),
                    )
                },
                problems=("app_not_found", "nothing_deployed", "alias_conflict", "unavailable"),
            ),
        ]

    async def deploy(self, call: Call) -> Response:
        media_type = call.request.headers.get("content-type", _ARCHIVE)
        if media_type.partition(";")[0].strip().lower() != _ARCHIVE:
            raise ProblemError(
                "unsupported_media_type", f"the body is {media_type!r}, expected {_ARCHIVE}"
            )
        refuse_large(call.request, self._uploads.limit_bytes)
        received = await self._uploads.receive(aiter(call.request.stream()), call.headers[_DIGEST])
        return line_response(call, self._deploying(call, received))

    async def list_deployments(self, call: Call) -> Response:
        found = await self._catalogue.deployments(call.query["app"])
        apps = {app.app: app for app in await self._catalogue.apps()}
        views = [
            deployment_view(deployment, self._addresses, apps.get(deployment.spec.app))
            for deployment in found[: call.query["limit"]]
        ]
        return JSONResponse({"deployments": views})

    async def get_deployment(self, call: Call) -> Response:
        deployment = await self._catalogue.deployment(call.path["id"])
        found = await self._catalogue.find_app(deployment.spec.app)
        app = None if found is None else found.app
        return JSONResponse(deployment_view(deployment, self._addresses, app))

    async def list_apps(self, call: Call) -> Response:
        apps = await self._catalogue.apps()
        return JSONResponse({"apps": [app_view(app, self._addresses) for app in apps]})

    async def get_app(self, call: Call) -> Response:
        app = await self._catalogue.app(call.path["app"])
        return JSONResponse(app_view(app, self._addresses))

    async def promote(self, call: Call) -> Response:
        app = await self._aliases.promote(
            call.path["app"], call.body["deployment"], by=call.principal.author
        )
        call.note(deployment=app.production)
        return JSONResponse(app_view(app, self._addresses))

    async def rollback(self, call: Call) -> Response:
        app = await self._aliases.rollback(
            call.path["app"], to=call.body.get("deployment"), by=call.principal.author
        )
        call.note(deployment=app.production)
        return JSONResponse(app_view(app, self._addresses))

    async def redeploy(self, call: Call) -> Response:
        promote = call.body.get("promote", True)
        deployed = await self._deployments.redeploy(
            call.path["app"], by=call.principal.author, promote=promote
        )
        call.note(deployment=deployed.deployment.spec.deployment, created=deployed.created)
        return JSONResponse(self._result(deployed))

    async def _deploying(
        self, call: Call, received: Received
    ) -> AsyncGenerator[dict[str, Any], None]:
        name, promote = call.query["name"], call.query["promote"]
        deploying = self._deployments.deploy(
            received, name=name, promote=promote, by=call.principal.author
        )
        async with aclosing(deploying) as progress:
            async for item in progress:
                if not isinstance(item, Deployed):
                    yield {"log": item}
                    continue
                spec = item.deployment.spec
                call.note(app=spec.app, deployment=spec.deployment, created=item.created)
                yield self._result(item)

    def _result(self, deployed: Deployed) -> dict[str, Any]:
        is_production = deployed.app.production == deployed.deployment.spec.deployment
        view = deployment_view(deployed.deployment, self._addresses, deployed.app)
        app_url = self._addresses.of_app(deployed.app.app)
        return {
            "deployment": view,
            "url": app_url if is_production else view["url"],
            "created": deployed.created,
        }
