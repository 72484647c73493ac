"""Operations on an app's keys."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Handler, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH
from fluvial_gateway.control.schemas import Schema, array, nullable, obj, text
from fluvial_gateway.control.views import TIME, time_text
from fluvial_gateway.key_keeping import NAMED_RUNS, Destruction, KeyKeeping
from fluvial_gateway.keyrings import Key, KeyringState

_COUNT: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_KEY: Final = obj(
    {
        "key": text(),
        "state": text(enum=["current", "decrypt_only", "destroyed"]),
        "created_at": TIME,
        "destroyed_at": nullable(TIME),
        "is_wrapped": _FLAG,
    }
)
_KEYRING: Final = obj(
    {
        "app": text(),
        "current": text(),
        "frozen_at": nullable(TIME),
        "keys": array(_KEY),
        "ended_instances": _COUNT,
    }
)
_THAWED: Final = obj({"keyring": _KEYRING, "resumed_runs": _COUNT})
_DESTRUCTION: Final = obj(
    {
        "keyring": _KEYRING,
        "key": text(),
        "is_destroyed": _FLAG,
        "live_runs": array(obj({"run_id": text(), "is_certain": _FLAG})),
        "live_run_count": _COUNT,
        "finished_run_count": _COUNT,
        "is_complete": _FLAG,
        "terminated_runs": _COUNT,
        "variables": array(text("a variable of the app's environment that needs the key")),
    }
)
_KEY_IN_PATH: Final = Parameter(
    "key", "path", text(minLength=1, maxLength=64), "The key's id, as the list names it."
)
_NOTHING: Final = Body(obj({}), optional=True)
_FAILURES: Final = ("app_not_found", "keyring_unusable", "kms_failed")


class KeysOperations:
    """Handlers over keyrings."""

    def __init__(self, keys: KeyKeeping) -> None:
        self._keys = keys

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/apps/{app}/keys",
                name="listKeys",
                summary="List an app's keys, oldest first",
                handler=self.list_keys,
                scopes=(Scope.KEYS,),
                parameters=(APP_IN_PATH,),
                replies={200: Reply("The keyring, without its secrets.", _KEYRING)},
                problems=_FAILURES,
            ),
            self._change("rotate", "Make a new key, which seals from now on", self.rotate),
            self._change("rewrap", "Have the KMS command wrap all keys anew", self.rewrap),
            self._change(
                "freeze", "Have nothing sealed any more; what there is opens", self.freeze
            ),
            self._change(
                "thaw", "Undo `freeze`; runs that it had paused go on", self.thaw, _THAWED
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/keys/{key}/destroy",
                name="destroyKey",
                summary="Erase a key: what it sealed is unreadable for ever",
                description=(
                    "Refused while live runs or the app's environment need the key, unless `force` "
                    "is set: then runs whose input is under it are terminated. The app's instances "
                    "are ended. With `dry_run` nothing happens. At most "
                    f"{NAMED_RUNS} live runs are named."
                ),
                handler=self.destroy,
                scopes=(Scope.ADMIN,),
                parameters=(APP_IN_PATH, _KEY_IN_PATH),
                body=Body(obj({"force": _FLAG, "dry_run": _FLAG}), optional=True),
                replies={200: Reply("What was done, or would be.", _DESTRUCTION)},
                problems=(*_FAILURES, "key_not_found", "key_is_current", "key_in_use"),
            ),
        ]

    def _change(
        self, how: str, summary: str, handler: Handler, answer: Schema = _KEYRING
    ) -> Operation:
        return Operation(
            method="POST",
            path=f"/v1/apps/{{app}}/keys/{how}",
            name=f"{how}Keys",
            summary=summary,
            handler=handler,
            scopes=(Scope.KEYS,),
            parameters=(APP_IN_PATH,),
            body=_NOTHING,
            replies={200: Reply("The keyring after it.", answer)},
            problems=(*_FAILURES, *(("kms_not_configured",) if how == "rewrap" else ())),
        )

    async def list_keys(self, call: Call) -> Response:
        return JSONResponse(_keyring_view(await self._keys.show(call.path["app"])))

    async def rotate(self, call: Call) -> Response:
        keyring = await self._keys.rotate(call.path["app"])
        call.note(key=keyring.current.id)
        return JSONResponse(_keyring_view(keyring))

    async def rewrap(self, call: Call) -> Response:
        keyring = await self._keys.rewrap(call.path["app"])
        return JSONResponse(_keyring_view(keyring))

    async def freeze(self, call: Call) -> Response:
        keyring = await self._keys.freeze(call.path["app"])
        return JSONResponse(_keyring_view(keyring))

    async def thaw(self, call: Call) -> Response:
        thawed = await self._keys.thaw(call.path["app"], by=call.principal.name)
        call.note(resumed=thawed.resumed)
        return JSONResponse(
            {"keyring": _keyring_view(thawed.keyring), "resumed_runs": thawed.resumed}
        )

    async def destroy(self, call: Call) -> Response:
        key_id, body = call.path["key"], call.body
        done = await self._keys.destroy(
            call.path["app"],
            key_id,
            force=body.get("force", False),
            dry_run=body.get("dry_run", False),
        )
        call.note(is_done=done.is_done, live_runs=len(done.users.live))
        return JSONResponse(_destruction_view(key_id, done))


def _keyring_view(keyring: KeyringState) -> dict[str, Any]:
    return {
        "app": keyring.app,
        "current": keyring.current.id,
        "frozen_at": _time(keyring.frozen_ms),
        "keys": [_key_view(key) for key in keyring.keys],
        "ended_instances": keyring.ended,
    }


def _key_view(key: Key) -> dict[str, Any]:
    return {
        "key": key.id,
        "state": key.state,
        "created_at": time_text(key.created_ms),
        "destroyed_at": _time(key.destroyed_ms),
        "is_wrapped": key.is_wrapped,
    }


def _destruction_view(key_id: str, done: Destruction) -> dict[str, Any]:
    users = done.users
    named = [
        {"run_id": user.run_id, "is_certain": user.is_certain} for user in users.live[:NAMED_RUNS]
    ]
    return {
        "keyring": _keyring_view(done.keyring),
        "key": key_id,
        "is_destroyed": done.is_done,
        "live_runs": named,
        "live_run_count": len(users.live),
        "finished_run_count": users.finished,
        "is_complete": users.has_all_live and users.has_all_finished,
        "terminated_runs": done.terminated,
        "variables": list(done.variables),
    }


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else time_text(milliseconds)
