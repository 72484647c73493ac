"""Operations on an app's environment: variables and secrets go in, and only names come out."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.variables import MAX_ENVIRONMENT_BYTES, MAX_VARIABLES, VARIABLE_NAME
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH
from fluvial_gateway.control.schemas import array, mapping, obj, text
from fluvial_gateway.control.views import TIME, time_text
from fluvial_gateway.environments import Environment, Environments

# JSON may need six bytes for one of a value.
_BODY_BYTES: Final = 8 * MAX_ENVIRONMENT_BYTES
_FLAG: Final = {"type": "boolean"}
_NAME: Final = text(pattern=VARIABLE_NAME.pattern)
_ENVIRONMENT: Final = obj(
    {
        "app": text(),
        "variables": array(
            obj(
                {
                    "name": text(),
                    "secret": _FLAG,
                    "set_at": TIME,
                    "set_by": text("the name of the token"),
                    "in_production": {
                        "type": "boolean",
                        "description": "false: set after production was deployed",
                    },
                }
            )
        ),
        "bytes": {"type": "integer"},
    }
)


class EnvironmentOperations:
    """Handlers over environments."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments

    def operations(self) -> list[Operation]:
        scopes = (Scope.DEPLOY, Scope.ENVIRONMENT)
        return [
            Operation(
                method="GET",
                path="/v1/apps/{app}/environment",
                name="listEnvironment",
                summary="List an app's variables and secrets by name; values are never shown",
                handler=self.show,
                scopes=scopes,
                parameters=(APP_IN_PATH,),
                replies={200: Reply("Names, by name.", _ENVIRONMENT)},
                problems=("app_not_found",),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/environment",
                name="setEnvironment",
                summary="Set variables or secrets, for deploys from now on",
                description=(
                    "All of them or none. They are sealed to the app's key at once and cannot be "
                    "read again through this API. The app need not be deployed yet."
                ),
                handler=self.set,
                scopes=scopes,
                parameters=(APP_IN_PATH,),
                body=Body(
                    obj(
                        {
                            "variables": mapping(
                                text(), _NAME, minProperties=1, maxProperties=MAX_VARIABLES
                            ),
                            "secret": _FLAG,
                        },
                        required=["variables"],
                    ),
                    limit_bytes=_BODY_BYTES,
                ),
                replies={200: Reply("Names, by name.", _ENVIRONMENT)},
                problems=(
                    "keys_frozen",
                    "variable_is_secret",
                    "environment_conflict",
                    "unavailable",
                ),
            ),
            Operation(
                method="DELETE",
                path="/v1/apps/{app}/environment/{name}",
                name="removeVariable",
                summary="Remove a variable or a secret, for deploys from now on",
                handler=self.remove,
                scopes=scopes,
                parameters=(
                    APP_IN_PATH,
                    Parameter("name", "path", _NAME, "The variable's name."),
                ),
                replies={200: Reply("Names, by name.", _ENVIRONMENT)},
                problems=("variable_not_found", "environment_conflict"),
            ),
        ]

    async def show(self, call: Call) -> Response:
        return await self._answer(call)

    async def set(self, call: Call) -> Response:
        app, values = call.path["app"], call.body["variables"]
        is_secret = call.body.get("secret", False)
        call.note(names=sorted(values), secret=is_secret)
        await self._environments.set(app, values, is_secret=is_secret, by=call.principal.author)
        return await self._answer(call)

    async def remove(self, call: Call) -> Response:
        await self._environments.remove(call.path["app"], call.path["name"])
        return await self._answer(call)

    async def _answer(self, call: Call) -> Response:
        app = call.path["app"]
        return JSONResponse(_view(app, await self._environments.show(app)))


def _view(app: str, environment: Environment) -> dict[str, Any]:
    variables = environment.record.variables
    return {
        "app": app,
        "variables": [
            {
                "name": name,
                "secret": variables[name].is_secret,
                "set_at": time_text(variables[name].set_ms),
                "set_by": variables[name].set_by,
                "in_production": name in environment.in_production,
            }
            for name in sorted(variables)
        ],
        "bytes": environment.record.size_bytes,
    }
