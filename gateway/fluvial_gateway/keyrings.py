"""An app's keyring as the gateway may know it: ids, states, times and public keys, never a root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from fluvial.errors import WireError
from fluvial_queue.records import AppRecord

KeyringOperation = Literal["list", "rotate", "destroy", "freeze", "thaw", "rewrap"]
KeyState = Literal["current", "decrypt_only", "destroyed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of an app."""

    id: str
    state: KeyState
    created_ms: int
    public_key: bytes
    is_wrapped: bool
    destroyed_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringState:
    """All keys of an app, oldest first."""

    app: str
    current: Key
    keys: tuple[Key, ...]
    frozen_ms: int | None
    ended: int = 0  # instances that were ended for a change

    @classmethod
    def from_frame(cls, app: str, state: Mapping[str, Any], ended: int) -> KeyringState:
        """Return what a KEYRING_STATE frame says.

        Raises:
            WireError: it does not say it.
        """
        try:
            keys = tuple(map(_key, state["keys"]))
            current = next(key for key in keys if key.id == state["current"])
            return cls(
                app=app, current=current, keys=keys, frozen_ms=state["frozen_ms"], ended=ended
            )
        except (LookupError, TypeError, StopIteration) as error:
            raise WireError("the invoker's answer is no keyring") from error

    def position(self, key_id: str) -> int | None:
        """Return how many keys are older than this one; None: it is not here."""
        return next((place for place, key in enumerate(self.keys) if key.id == key_id), None)


class KeyringHolder(Protocol):
    """Reads and changes keyrings: the invoker."""

    async def keyring(
        self, app: str, operation: KeyringOperation = "list", key_id: str = ""
    ) -> KeyringState: ...


def with_keyring(app: AppRecord, keyring: KeyringState) -> AppRecord:
    """Return an app's record that agrees with its keyring."""
    return replace(
        app,
        key_id=keyring.current.id,
        public_key=keyring.current.public_key,
        keys_frozen=keyring.frozen_ms is not None,
    )


def _key(plain: Mapping[str, Any]) -> Key:
    return Key(
        id=plain["key"],
        state=plain["state"],
        created_ms=plain["created_ms"],
        public_key=plain["public_key"],
        is_wrapped=plain["is_wrapped"],
        destroyed_ms=plain["destroyed_ms"],
    )
