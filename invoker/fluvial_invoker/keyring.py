"""The keyring: the root keys of each app, which only the invoker reads or writes.

Files hold them (`key_files`), plain or wrapped by a KMS command (`kms`). What was read is kept, and
read again when the file has changed; unwrapped keys are kept in memory alone. A key that is dropped
from memory is overwritten first.

A key is *current* (seals and opens), *decrypt-only* (opens; every key that was current once) or
*destroyed* (its tombstone says when). While an app is *frozen*, its current key only opens too.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial.manifest import APP_NAME
from fluvial_invoker.key_file_format import KeyFileContent, KeyForm, StoredKey
from fluvial_invoker.key_files import Identity, KeyFile, KeyringError
from fluvial_invoker.kms import KmsCommand
from fluvial_invoker.root_keys import RootKey

MAX_KEYS: Final = 1000  # of one app, with its tombstones: a rotation a day for almost three years
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_KEY_ID_BYTES: Final = 4
_UNWRAPPED_AT_ONCE: Final = 4  # processes of the KMS command


class KeyNotFoundError(FluvialError, LookupError):
    """The app has no key of this id."""

    code = "key_not_found"


class KeyIsCurrentError(FluvialError):
    """The current key cannot be destroyed."""

    code = "key_is_current"


class NoKmsError(FluvialError):
    """No KMS command is configured."""

    code = "kms_not_configured"


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """An app's keys in memory; whoever gets it uses it at once and does not keep it."""

    content: KeyFileContent
    identity: Identity
    roots: Mapping[str, RootKey] = field(repr=False)  # without the destroyed ones, oldest first

    @property
    def destroyed(self) -> dict[str, int]:
        """When keys were destroyed, by id."""
        keys = self.content.keys
        return {key.id: key.destroyed_ms for key in keys if key.destroyed_ms is not None}


class Keyring:
    """Reads and changes app keys."""

    def __init__(self, folder: Path, kms: KmsCommand | None = None) -> None:
        self._folder = folder
        self._kms = kms
        self._loaded: dict[str, LoadedKeys] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unwrapping = asyncio.Semaphore(_UNWRAPPED_AT_ONCE)

    async def load(self, app: str) -> None:
        """Have the app's keys in memory as the file has them now; they are made if there are none.

        Raises:
            InvalidRequestError: `app` is not an app's name.
            KeyringError: the key file cannot be used.
            KmsError: a key cannot be wrapped or unwrapped.
        """
        file = self._file(app)
        if self._is_fresh(app, file.identity()):
            return
        async with self._turns[app]:
            await self._load(app, file)

    def loaded(self, app: str) -> LoadedKeys:
        """Return the keys as they were when they were loaded or changed last.

        Raises:
            KeyringError: they could not be read again after a change.
        """
        loaded = self._loaded.get(app)
        if loaded is None:
            raise KeyringError(f"the keys of app {app} are not loaded")
        return loaded

    async def content(self, app: str) -> KeyFileContent:
        """Return what the app's key file says; made if there is none. Needs no KMS.

        Raises:
            InvalidRequestError, KeyringError, KmsError
        """
        file = self._file(app)
        async with self._turns[app]:
            if file.identity() is None:
                await self._load(app, file)
            content, _ = await asyncio.to_thread(file.read)
        _wipe_all(_plain_roots(content).values())
        return content

    # Changes: each is done already if it was done before

    async def rotate(self, app: str, key_id: str) -> None:
        """Make a new key of that id the current one.

        Raises:
            InvalidRequestError, KeyringError, KmsError
        """
        if not _KEY_ID.fullmatch(key_id):
            raise InvalidRequestError(f"{key_id!r} is not a key id: 8 of 0-9 and a-f")
        file = self._file(app)
        async with self._turns[app]:
            await self._load(app, file)
            if self._loaded[app].content.find(key_id) is not None:
                return
            root, key = await self._new_key(app, key_id)

            def add(content: KeyFileContent) -> KeyFileContent:
                if content.find(key_id) is not None:
                    raise KeyringError(f"{file.path} has got a key {key_id} meanwhile")
                if len(content.keys) >= MAX_KEYS:
                    raise KeyringError(f"{file.path} has {MAX_KEYS} keys, which is all it may have")
                return content.with_current(key)

            await self._change(app, file, add, {key_id: root})

    async def destroy(self, app: str, key_id: str) -> None:
        """Erase a key for ever, on disk and in memory here.

        Raises:
            KeyNotFoundError, KeyIsCurrentError, InvalidRequestError, KeyringError
        """

        def erase(content: KeyFileContent) -> KeyFileContent:
            key = content.find(key_id)
            if key is None:
                raise KeyNotFoundError(f"app {app} has no key {key_id!r}")
            if key.id == content.current:
                raise KeyIsCurrentError(
                    f"{key_id} is the current key of app {app}: rotate first, then destroy it"
                )
            if key.form is KeyForm.DESTROYED:
                return content
            return content.with_key(
                replace(key, form=KeyForm.DESTROYED, blob=bytearray(), destroyed_ms=_now_ms())
            )

        await self._simple_change(app, erase)

    async def freeze(self, app: str) -> None:
        """Have nothing sealed any more.

        Raises:
            InvalidRequestError, KeyringError
        """
        await self._simple_change(app, lambda content: content.frozen_at(_now_ms()))

    async def thaw(self, app: str) -> None:
        """Undo `freeze`.

        Raises:
            InvalidRequestError, KeyringError
        """
        await self._simple_change(app, lambda content: content.frozen_at(None))

    async def rewrap(self, app: str) -> None:
        """Have the KMS command wrap all keys anew, also those that were not wrapped so far.

        Raises:
            NoKmsError, InvalidRequestError, KeyringError, KmsError
        """
        if self._kms is None:
            raise NoKmsError("no KMS command is configured: start with --kms-command")
        file = self._file(app)
        async with self._turns[app]:
            await self._load(app, file)
            wrapped = {
                key_id: await self._kms.wrap(app, key_id, root)
                for key_id, root in self._loaded[app].roots.items()
            }

            def put(content: KeyFileContent) -> KeyFileContent:
                for key in content.keys:
                    if key.id in wrapped and key.form is not KeyForm.DESTROYED:
                        blob = wrapped[key.id]
                        content = content.with_key(replace(key, form=KeyForm.WRAPPED, blob=blob))
                return content

            await self._change(app, file, put, {})

    async def _simple_change(
        self, app: str, change: Callable[[KeyFileContent], KeyFileContent]
    ) -> None:
        file = self._file(app)
        async with self._turns[app]:
            if file.identity() is None:
                await self._load(app, file)
            await self._change(app, file, change, {})

    # All below is called in the app's turn

    async def _load(self, app: str, file: KeyFile) -> None:
        identity = file.identity()
        if self._is_fresh(app, identity):
            return
        if identity is not None:
            await self._take(app, *await asyncio.to_thread(file.read), {})
            return
        if app in self._loaded:  # else the last copy of its keys, in memory, would be given up
            raise KeyringError(
                f"{file.path} has gone away: put it back, or restart the platform to have new keys"
            )
        key_id = secrets.token_hex(_KEY_ID_BYTES)
        root, key = await self._new_key(app, key_id)
        first = KeyFileContent(keys=(key,), current=key_id)
        try:
            made = await asyncio.to_thread(file.change, lambda found: found or first)
        except BaseException:
            root.wipe()
            raise
        await self._take(app, *made, {key_id: root})

    async def _change(
        self,
        app: str,
        file: KeyFile,
        change: Callable[[KeyFileContent], KeyFileContent],
        made: Mapping[str, RootKey],
    ) -> None:
        """Change the file, and what is in memory if it is; `made` are new keys' roots, by id."""

        def checked(content: KeyFileContent | None) -> KeyFileContent:
            if content is None:
                raise KeyringError(f"{file.path} has gone away")
            return change(content)

        try:
            content, identity = await asyncio.to_thread(file.change, checked)
        except BaseException:
            _wipe_all(made.values())
            raise
        if app in self._loaded:
            await self._take(app, content, identity, made)
        else:
            _wipe_all(_plain_roots(content).values())

    async def _take(
        self, app: str, content: KeyFileContent, identity: Identity, made: Mapping[str, RootKey]
    ) -> None:
        """Keep what the file says, with its keys unwrapped; erase what was kept before."""
        before = self._loaded.get(app)
        held = {**(before.roots if before is not None else {}), **made}
        plain = _plain_roots(content)
        wrapped = [key for key in content.keys if key.form is KeyForm.WRAPPED]
        unknown = [key for key in wrapped if key.id not in held]
        try:
            found = {**held, **plain, **await self._unwrap(app, unknown)}
            roots = {key.id: found[key.id] for key in content.keys if key.id in found and key.blob}
            for key in content.keys:
                if key.id in roots and roots[key.id].public_key(app) != key.public_key:
                    raise KeyringError(f"the key {key.id} of app {app} is not what it was: damaged")
        except BaseException:
            # Nothing is kept: what was in memory may be what this change was to erase.
            self._loaded.pop(app, None)
            _wipe_all([*held.values(), *plain.values()])
            raise
        self._loaded[app] = LoadedKeys(content, identity, roots)
        kept = {id(root.material) for root in roots.values()}
        _wipe_all(root for root in held.values() if id(root.material) not in kept)

    async def _unwrap(self, app: str, keys: Sequence[StoredKey]) -> dict[str, RootKey]:
        if not keys:
            return {}
        kms = self._kms
        if kms is None:
            raise NoKmsError(
                f"the key {keys[0].id} of app {app} is wrapped, and no KMS command is configured:"
                " start with --kms-command"
            )

        async def unwrap(key: StoredKey) -> RootKey:
            async with self._unwrapping:
                return await kms.unwrap(app, key.id, key.blob)

        answers = await asyncio.gather(*map(unwrap, keys), return_exceptions=True)
        roots = [answer for answer in answers if isinstance(answer, RootKey)]
        for answer in answers:
            if isinstance(answer, BaseException):
                _wipe_all(roots)
                raise answer
        return {key.id: root for key, root in zip(keys, roots, strict=True)}

    async def _new_key(self, app: str, key_id: str) -> tuple[RootKey, StoredKey]:
        root = RootKey.generate()
        form, blob = KeyForm.PLAIN, root.material
        if self._kms is not None:
            try:
                form, blob = KeyForm.WRAPPED, await self._kms.wrap(app, key_id, root)
            except BaseException:
                root.wipe()
                raise
        key = StoredKey(
            id=key_id,
            created_ms=_now_ms(),
            public_key=root.public_key(app),
            form=form,
            blob=blob,
        )
        return root, key

    def _is_fresh(self, app: str, identity: Identity | None) -> bool:
        loaded = self._loaded.get(app)
        return loaded is not None and loaded.identity == identity

    def _file(self, app: str) -> KeyFile:
        if not APP_NAME.fullmatch(app):
            raise InvalidRequestError(f"{app!r} is not an app's name")
        return KeyFile(self._folder, app)


def _plain_roots(content: KeyFileContent) -> dict[str, RootKey]:
    return {key.id: RootKey(key.blob) for key in content.keys if key.form is KeyForm.PLAIN}


def _wipe_all(roots: Iterable[RootKey]) -> None:
    for root in roots:
        root.wipe()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
