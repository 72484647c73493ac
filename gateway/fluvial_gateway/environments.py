"""Environments of apps: variables and secrets, taken in, sealed, listed by name, never shown.

Invariants:

* A value is sealed to the app's public key before anything else happens to it, and stands in no
  message, log line or answer. The gateway has nothing that opens it.
* A change is one compare-and-set of the app's environment record: all of its variables or none.
* Deployments have copies: what is changed here is seen by the next deploy, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fluvial.errors import KeysFrozenError
from fluvial.sealing import read_head, seal, variable_binding
from fluvial.variables import (
    check_environment_size,
    check_variable_name,
    check_variables,
    variable_bytes,
)
from fluvial_gateway.catalogue import Catalogue, Records
from fluvial_gateway.invoker_client import RefusedError
from fluvial_gateway.keyrings import KeyringHolder, with_keyring
from fluvial_gateway.problems import ProblemError
from fluvial_queue.contract import OutcomeUnknownError
from fluvial_queue.environment_records import EnvironmentRecord, Variable
from fluvial_queue.records import AppRecord

# Others who change the same environment at the same moment win at most so often in a row.
_TRIES: Final = 5
_Change = Callable[[EnvironmentRecord], EnvironmentRecord]


@dataclass(frozen=True, slots=True)
class Environment:
    """An app's environment as it may be told."""

    record: EnvironmentRecord
    in_production: frozenset[str]  # names whose value of now production has


class Environments:
    """Changes environments and tells what is in them."""

    def __init__(self, records: Records, catalogue: Catalogue, keys: KeyringHolder) -> None:
        self._records = records
        self._catalogue = catalogue
        self._keys = keys

    async def of(self, app: str) -> EnvironmentRecord:
        """Return an app's environment; an empty one if nothing was ever set."""
        return (await self._read(app))[0]

    async def show(self, app_name: str) -> Environment:
        """Return what may be told.

        Raises:
            ProblemError: the app was never deployed, and nothing was set for it.
        """
        record, version = await self._read(app_name)
        if version == 0 and await self._catalogue.find_app(app_name) is None:
            raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
        deployed = await self._in_production(app_name)
        same = (name for name, sealed in record.sealed.items() if deployed.get(name) == sealed)
        return Environment(record, frozenset(same))

    async def under_key(self, app_name: str, key_id: str) -> tuple[str, ...]:
        """Return the names, of now and where an alias stands, whose values only this key opens."""
        values = [*(await self.of(app_name)).sealed.items()]
        found = await self._catalogue.find_app(app_name)
        if found is not None:
            for deployment in {found.app.production, *found.app.aliases.values()}:
                values += (await self._held_by(deployment)).items()
        return tuple(sorted({name for name, sealed in values if read_head(sealed)[1] == key_id}))

    async def set(
        self, app_name: str, values: Mapping[str, str], *, is_secret: bool, by: str
    ) -> None:
        """Set variables of an app, which may be one that is to be deployed yet.

        Raises:
            InvalidRequestError: a name or a value may not be, or it is too much.
            KeysFrozenError: nothing is sealed for the app now.
            ProblemError: a secret would become a variable that is none.
        """
        check_variables(values)
        app = await self._sealing_app(app_name)
        now_ms = await self._catalogue.now_ms()
        new = {
            name: Variable(
                sealed=seal(
                    app.public_key, app.key_id, value.encode(), variable_binding(app_name, name)
                ),
                size_bytes=variable_bytes(name, value),
                is_secret=is_secret,
                set_ms=now_ms,
                set_by=by,
            )
            for name, value in values.items()
        }

        def add(record: EnvironmentRecord) -> EnvironmentRecord:
            if not is_secret:
                _check_none_is_secret(app_name, record, new)
            changed = EnvironmentRecord(variables={**record.variables, **new})
            check_environment_size(len(changed.variables), changed.size_bytes)
            return changed

        await self._change(app_name, add)

    async def remove(self, app_name: str, name: str) -> None:
        """Remove a variable or a secret.

        Raises:
            ProblemError: the app has none of this name.
        """
        check_variable_name(name)

        def drop(record: EnvironmentRecord) -> EnvironmentRecord:
            if name not in record.variables:
                raise ProblemError(
                    "variable_not_found", f"app {app_name!r} has no variable or secret {name!r}"
                )
            rest = {other: each for other, each in record.variables.items() if other != name}
            return EnvironmentRecord(variables=rest)

        await self._change(app_name, drop)

    async def _in_production(self, app_name: str) -> Mapping[str, bytes]:
        found = await self._catalogue.find_app(app_name)
        return await self._held_by(found.app.production if found is not None else None)

    async def _held_by(self, deployment: str | None) -> Mapping[str, bytes]:
        if deployment is None:
            return {}
        return (await self._catalogue.deployment(deployment)).spec.sealed_environment

    async def _sealing_app(self, app_name: str) -> AppRecord:
        found = await self._catalogue.find_app(app_name)
        if found is not None:
            app = found.app
        else:  # it is to be deployed yet: its first key is made for this
            try:
                app = with_keyring(AppRecord(app=app_name), await self._keys.keyring(app_name))
            except RefusedError as error:
                raise ProblemError(
                    "unavailable", f"no key for app {app_name!r}: {error}"
                ) from error
        if app.keys_frozen:
            raise KeysFrozenError(app_name)
        return app

    async def _change(self, app: str, change: _Change) -> None:
        attempted: EnvironmentRecord | None = None
        unknown: OutcomeUnknownError | None = None
        for _ in range(_TRIES):
            before, version = await self._read(app)
            if before == attempted:
                return  # a try whose answer was lost has done it
            attempted = change(before)
            value = attempted.to_dict()
            try:
                written = await self._records.put_record("environment", app, value, expect=version)
            except OutcomeUnknownError as error:
                unknown = error
                continue
            if written is not None:
                return
        if unknown is not None:
            raise unknown
        raise ProblemError(
            "environment_conflict",
            f"others changed the environment of app {app!r} {_TRIES} times meanwhile: try again",
        )

    async def _read(self, app: str) -> tuple[EnvironmentRecord, int]:
        record = await self._records.get_record("environment", app)
        if record is None:
            return EnvironmentRecord(), 0
        return EnvironmentRecord.from_dict(record.value), record.version


def _check_none_is_secret(app: str, record: EnvironmentRecord, new: Mapping[str, Variable]) -> None:
    secret = sorted(
        name for name in new if name in record.variables and record.variables[name].is_secret
    )
    if secret:
        raise ProblemError(
            "variable_is_secret",
            f"{', '.join(secret)} of app {app!r} is set as a secret: set it as one"
            " (`fluvial secret set`), or remove it first",
        )
