"""The keyring: the root keys of each app, in files that only the invoker reads or writes.

    <home>/keyring/<app>.key    0600, JSON: {"version": 1, "current": key id,
                                             "roots": {key id: 32 bytes in base 64}}

A file appears complete or not at all: it is written beside its place, synced, and linked (`link`
refuses to replace), so two invokers that create the same app's keys end up with the same ones.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Final

from fluvial.encryption import KEY_BYTES, AppKeys
from fluvial.errors import FluvialError, InvalidRequestError
from fluvial.manifest import APP_NAME

_FORMAT_VERSION: Final = 1
_KEY_ID_BYTES: Final = 4


class KeyringError(FluvialError):
    """A key file cannot be used; the message names the file, never its content."""

    code = "keyring"


class Keyring:
    """Reads and creates app keys; keeps what it has read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, dict[str, bytes]]] = {}

    def roots(self, app: str) -> tuple[str, dict[str, bytes]]:
        """Return (current key id, root keys by id) of an app, created if it has none.

        Raises:
            InvalidRequestError: `app` is not an app's name.
            KeyringError: the app's key file is damaged.
        """
        known = self._known.get(app)
        if known is None:
            if not APP_NAME.fullmatch(app):
                raise InvalidRequestError(f"{app!r} is not an app's name")
            known = self._known[app] = self._load(app)
        return known

    def public_key(self, app: str) -> tuple[str, bytes]:
        """Return (key id, public key) with which others seal to the app."""
        current, roots = self.roots(app)
        return AppKeys(app, roots, current).public_key()

    def _load(self, app: str) -> tuple[str, dict[str, bytes]]:
        path = self._folder / f"{app}.key"
        if not path.exists():
            self._create(path)
        try:
            plain: Any = json.loads(path.read_bytes())
            roots = {str(name): base64.b64decode(key) for name, key in plain["roots"].items()}
            current = str(plain["current"])
            version = plain["version"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise KeyringError(f"{path} is damaged: {type(error).__name__}") from None
        if version != _FORMAT_VERSION:
            raise KeyringError(f"{path} has format version {version}, known is {_FORMAT_VERSION}")
        if current not in roots or any(len(key) != KEY_BYTES for key in roots.values()):
            raise KeyringError(f"{path} is damaged: its keys do not fit together")
        return current, roots

    def _create(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_id = secrets.token_hex(_KEY_ID_BYTES)
        root = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        plain = {"version": _FORMAT_VERSION, "current": key_id, "roots": {key_id: root}}
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(json.dumps(plain).encode())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_folder(self._folder)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
