"""Operations on apps' keyrings: what is asked of the invoker, and what follows from it here.

Invariants:

* The keyring on the invoker's disk is the truth. The app's record repeats which key others seal to
  and whether the keys are frozen; after every operation, and every look, it is made to agree.
* An operation on a keyring is done before the record says so. So the record may name a key that has
  just ceased to be current, which opens what is sealed to it, and never one that does not exist.
* Operations on one app's keyring happen one after the other.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final

from fluvial.errors import RunClosedError, RunNotFoundError
from fluvial_gateway.aliases import Aliases
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.environments import Environments
from fluvial_gateway.invoker_client import RefusedError
from fluvial_gateway.key_users import (
    MAX_EXAMINED,
    KeyUsers,
    RunReader,
    paused_by_freeze,
    users_of,
)
from fluvial_gateway.keyrings import (
    KeyringHolder,
    KeyringOperation,
    KeyringState,
    with_keyring,
)
from fluvial_gateway.problems import ProblemError, is_known
from fluvial_gateway.runs import Runs
from fluvial_gateway.steering import Steering, Wish
from fluvial_queue.records import AppRecord

_LOG = logging.getLogger(__name__)

NAMED_RUNS: Final = 100  # in an answer, of those that need a key
_NAMED_IN_A_SENTENCE: Final = 5
_KEY_ID_BYTES: Final = 4
_DESTROYED: Final = "key_destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thawed:
    """What came of a thaw."""

    keyring: KeyringState
    resumed: int  # runs that had been paused because the keys were frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Destruction:
    """What came of destroying a key, or would."""

    keyring: KeyringState
    users: KeyUsers
    variables: tuple[str, ...]  # of the app's environment, now or in production, under the key
    is_done: bool
    terminated: int = 0  # live runs whose input was under the key


class KeyKeeping:
    """The keyrings of all apps."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: Aliases,
        *,
        holder: KeyringHolder,
        environments: Environments,
        runs: Runs,
        reader: RunReader,
    ) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._holder = holder
        self._environments = environments
        self._runs = runs
        self._steering = Steering(runs)
        self._reader = reader
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def show(self, app: str) -> KeyringState:
        """Raises:
        ProblemError: there is no such app, or the keyring cannot be used.
        """
        return await self._carry_out(app, "list")

    async def rotate(self, app: str) -> KeyringState:
        """Make a new key the current one.

        Raises:
            ProblemError: there is no such app, or it was not done.
        """
        # Named here, so that a question that is sent again is known for the same.
        return await self._carry_out(app, "rotate", secrets.token_hex(_KEY_ID_BYTES))

    async def rewrap(self, app: str) -> KeyringState:
        """Have all keys wrapped anew by the KMS command.

        Raises:
            ProblemError: there is no such app or no such command, or it was not done.
        """
        return await self._carry_out(app, "rewrap")

    async def freeze(self, app: str) -> KeyringState:
        """Have nothing sealed with the app's keys any more.

        Raises:
            ProblemError: there is no such app, or it was not done.
        """
        return await self._carry_out(app, "freeze")

    async def thaw(self, app: str, *, by: str) -> Thawed:
        """Undo `freeze`; the runs that it had paused go on, resumed by `by`.

        Raises:
            ProblemError: there is no such app, or it was not done.
        """
        keyring = await self._carry_out(app, "thaw")
        resumed = 0
        for record in await paused_by_freeze(self._reader, app):
            wish = Wish(action="resume", by=by)
            resumed += await self._does(self._steering.carry_out(record, wish))
        return Thawed(keyring=keyring, resumed=resumed)

    async def destroy(self, app: str, key_id: str, *, force: bool, dry_run: bool) -> Destruction:
        """Erase a key for ever, unless live runs or the environment need it; with `force`, also
        then.

        Raises:
            ProblemError: there is no such app or key, the key is current or in use, or it was not
                done.
        """
        keyring = await self.show(app)
        _check_may_be_destroyed(keyring, key_id)
        users = await users_of(self._reader, keyring, key_id)
        variables = await self._environments.under_key(app, key_id)
        planned = Destruction(keyring=keyring, users=users, variables=variables, is_done=False)
        if dry_run:
            return planned
        if not force:
            _check_unused(key_id, users)
            _check_no_variable(app, key_id, variables)
        keyring = await self._carry_out(app, "destroy", key_id)
        terminated = 0
        for user in users.live:
            if user.is_certain:  # it can never go on
                terminated += await self._does(self._terminate(user.run_id))
        return replace(planned, keyring=keyring, is_done=True, terminated=terminated)

    async def _carry_out(
        self, app: str, operation: KeyringOperation, key_id: str = ""
    ) -> KeyringState:
        await self._catalogue.app(app)
        async with self._turns[app]:
            try:
                keyring = await self._holder.keyring(app, operation, key_id)
            except RefusedError as error:
                code = error.reason if is_known(error.reason) else "unavailable"
                raise ProblemError(code, error.message) from error
            await self._publish(keyring)
        return keyring

    async def _publish(self, keyring: KeyringState) -> None:
        async def agreeing(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {keyring.app!r} was ever deployed")
            if keyring.position(app.key_id) is None:
                _LOG.error(
                    "a keyring has lost its app's key: put the key file back",
                    extra={"app": app.app, "key_id": app.key_id},
                )
            return with_keyring(app, keyring)

        await self._aliases.change(keyring.app, agreeing)

    async def _terminate(self, run_id: str) -> None:
        wish = Wish(action="terminate", reason=_DESTROYED)
        await self._steering.carry_out(await self._runs.get(run_id), wish)

    @staticmethod
    async def _does(steering: Awaitable[object]) -> bool:
        """Steer a run; false: it has ended meanwhile."""
        try:
            await steering
        except (RunNotFoundError, RunClosedError):
            return False
        return True


def _check_may_be_destroyed(keyring: KeyringState, key_id: str) -> None:
    place = keyring.position(key_id)
    if place is None:
        known = ", ".join(key.id for key in keyring.keys)
        raise ProblemError(
            "key_not_found", f"app {keyring.app!r} has no key {key_id!r}; its keys: {known}"
        )
    if keyring.current.id == key_id:
        raise ProblemError(
            "key_is_current",
            f"{key_id} is the current key of app {keyring.app!r}: rotate first, then destroy it",
        )


def _check_no_variable(app: str, key_id: str, variables: tuple[str, ...]) -> None:
    if variables:
        some = ", ".join(variables[:_NAMED_IN_A_SENTENCE])
        more = ", …" if len(variables) > _NAMED_IN_A_SENTENCE else ""
        raise ProblemError(
            "key_in_use",
            f"the environment of app {app!r} needs {key_id} ({some}{more}): set these anew and"
            " redeploy, or destroy the key by force: then production cannot start",
            extra={"variables": list(variables)},
        )


def _check_unused(key_id: str, users: KeyUsers) -> None:
    if not users.live and users.has_all_live:
        return
    named = [user.run_id for user in users.live[:NAMED_RUNS]]
    if users.live:
        some = ", ".join(named[:_NAMED_IN_A_SENTENCE])
        more = ", …" if len(users.live) > _NAMED_IN_A_SENTENCE else ""
        what = f"{len(users.live)} live runs hold values under {key_id}, or may ({some}{more})"
    else:
        what = f"there are more than {MAX_EXAMINED} live runs, too many to look at all of them"
    raise ProblemError(
        "key_in_use",
        f"{what}: let them end, or destroy the key by force",
        extra={"live_runs": named, "live_run_count": len(users.live)},
    )
