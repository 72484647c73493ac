"""Operations on aliases: where they stand, how they moved, setting and removing them."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.aliases import ALIAS_NAME, MAX_ALIAS_CHARACTERS, Aliases, aliases_of
from fluvial_gateway.auth import Scope
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH, DEPLOYMENT_ID, limit
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.views import TIME, Addresses, time_text
from fluvial_queue.alias_records import MAX_MOVES, AliasMove

_NAME: Final = text(pattern=ALIAS_NAME.pattern, maxLength=MAX_ALIAS_CHARACTERS)
_ALIAS_IN_PATH: Final = Parameter("alias", "path", _NAME, "The alias's name.")
_ALIAS: Final = obj({"app": text(), "alias": text(), "deployment": text(), "url": text()})
_MOVE: Final = obj(
    {
        "alias": text(),
        "from": nullable(text("a deployment")),
        "to": nullable(text("a deployment; null: the alias was removed")),
        "at": TIME,
        "by": text("the name of the token"),
        "reason": text("deploy, promote, rollback, rollout, set or remove"),
    }
)
_READERS: Final = (Scope.DEPLOY, Scope.RUNS_READ)


class AliasingOperations:
    """Handlers over aliases."""

    def __init__(self, catalogue: Catalogue, aliases: Aliases, addresses: Addresses) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._addresses = addresses

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/apps/{app}/aliases",
                name="listAliases",
                summary="List an app's aliases, production first",
                handler=self.list_aliases,
                scopes=_READERS,
                parameters=(APP_IN_PATH,),
                replies={200: Reply("Aliases.", obj({"aliases": array(_ALIAS)}))},
                problems=("app_not_found",),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/aliases/{alias}",
                name="setAlias",
                summary="Move an alias other than production to a deployment; make it if need be",
                handler=self.set_alias,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH, _ALIAS_IN_PATH),
                body=Body(obj({"deployment": DEPLOYMENT_ID}, required=["deployment"])),
                replies={200: Reply("The alias.", _ALIAS)},
                problems=("app_not_found", "deployment_not_found", "alias_conflict", "alias_limit"),
            ),
            Operation(
                method="DELETE",
                path="/v1/apps/{app}/aliases/{alias}",
                name="removeAlias",
                summary="Remove an alias other than production",
                handler=self.remove_alias,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH, _ALIAS_IN_PATH),
                replies={204: Reply("It is gone.")},
                problems=("app_not_found", "alias_not_found", "alias_conflict"),
            ),
            Operation(
                method="GET",
                path="/v1/apps/{app}/history",
                name="listMoves",
                summary="Tell how an app's aliases moved, newest first",
                description=f"The newest {MAX_MOVES} moves are kept.",
                handler=self.list_moves,
                scopes=_READERS,
                parameters=(
                    APP_IN_PATH,
                    Parameter(
                        "alias", "query", text(maxLength=MAX_ALIAS_CHARACTERS), "Only of this one."
                    ),
                    limit(MAX_MOVES, MAX_MOVES),
                ),
                replies={200: Reply("Moves.", obj({"moves": array(_MOVE)}))},
                problems=("app_not_found",),
            ),
        ]

    async def list_aliases(self, call: Call) -> Response:
        app = await self._catalogue.app(call.path["app"])
        found = aliases_of(app)
        return JSONResponse(
            {"aliases": [self._view(app.app, alias, found[alias]) for alias in found]}
        )

    async def set_alias(self, call: Call) -> Response:
        app_name, alias = call.path["app"], call.path["alias"]
        deployment = call.body["deployment"]
        call.note(deployment=deployment)
        await self._aliases.set(app_name, alias, deployment, by=call.principal.author)
        return JSONResponse(self._view(app_name, alias, deployment))

    async def remove_alias(self, call: Call) -> Response:
        await self._aliases.remove(call.path["app"], call.path["alias"], by=call.principal.author)
        return Response(status_code=204)

    async def list_moves(self, call: Call) -> Response:
        moves = await self._aliases.history(call.path["app"], call.query["alias"])
        return JSONResponse({"moves": [_move_view(m) for m in moves[: call.query["limit"]]]})

    def _view(self, app: str, alias: str, deployment: str) -> dict[str, Any]:
        url = self._addresses.of_alias(app, alias)
        return {"app": app, "alias": alias, "deployment": deployment, "url": url}


def _move_view(move: AliasMove) -> dict[str, Any]:
    return {
        "alias": move.alias,
        "from": move.before,
        "to": move.after,
        "at": time_text(move.at_ms),
        "by": move.by,
        "reason": move.reason,
    }
