"""Changes of an app's keyring, and what follows from each for the app's instances.

    rotate, thaw      the instances that run are told the new keys before the gateway hears of them
    destroy, freeze   the instances that run are ended: they hold what nobody may use any more
    rewrap            nothing: the keys are the same

A change is on disk before anything else happens; a new instance reads it there.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from fluvial.errors import InvalidRequestError
from fluvial_invoker.key_file_format import KeyFileContent, KeyForm, StoredKey
from fluvial_invoker.keyring import Keyring

OPERATIONS: Final = ("list", "rotate", "destroy", "freeze", "thaw", "rewrap")

_log = logging.getLogger(__name__)


class Holders(Protocol):
    """The instances, as holders of keys."""

    def send_keys(self, app: str, /) -> None: ...
    async def end_all(self, app: str, /) -> int: ...


class KeyChanges:
    """Carries out what gateways ask of keyrings."""

    def __init__(self, keyring: Keyring, holders: Holders) -> None:
        self._keyring = keyring
        self._holders = holders

    async def carry_out(self, app: str, operation: str, key_id: str) -> tuple[dict[str, Any], int]:
        """Return what KEYRING_STATE says.

        Raises:
            InvalidRequestError, KeyNotFoundError, KeyIsCurrentError, NoKmsError: it is refused.
            KeyringError, KmsError: it was not done.
        """
        ended = await self._change(app, operation, key_id)
        if operation != "list":
            extra = {"app": app, "operation": operation, "key_id": key_id, "ended": ended}
            _log.info("keyring changed", extra=extra)
        return _state(await self._keyring.content(app)), ended

    async def _change(self, app: str, operation: str, key_id: str) -> int:
        match operation:
            case "list":
                return 0
            case "rotate":
                await self._keyring.rotate(app, key_id)
                self._holders.send_keys(app)
                return 0
            case "destroy":
                await self._keyring.destroy(app, key_id)
                return await self._holders.end_all(app)
            case "freeze":
                await self._keyring.freeze(app)
                return await self._holders.end_all(app)
            case "thaw":
                await self._keyring.thaw(app)
                self._holders.send_keys(app)
                return 0
            case "rewrap":
                await self._keyring.rewrap(app)
                return 0
            case other:
                known = ", ".join(OPERATIONS)
                raise InvalidRequestError(f"{other!r} is no operation on keys; known: {known}")


def _state(content: KeyFileContent) -> dict[str, Any]:
    return {
        "current": content.current,
        "frozen_ms": content.frozen_ms,
        "keys": [_key(key, content.current) for key in content.keys],
    }


def _key(key: StoredKey, current: str) -> dict[str, Any]:
    if key.form is KeyForm.DESTROYED:
        state = "destroyed"
    else:
        state = "current" if key.id == current else "decrypt_only"
    return {
        "key": key.id,
        "state": state,
        "created_ms": key.created_ms,
        "public_key": key.public_key,
        "is_wrapped": key.form is KeyForm.WRAPPED,
        "destroyed_ms": key.destroyed_ms,
    }
