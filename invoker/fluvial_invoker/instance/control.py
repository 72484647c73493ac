"""The control descriptor: how an invoker and one of its instances speak.

A stream socket that carries frames of `fluvial.wire` with types of its own. Order matters twice:

* A credential is written before the gateway hears of it, so an instance that meets an unknown
  credential reads this socket first and only then refuses.
* After RELEASED no further credential comes: an instance that wants to retire asks, and waits for
  this answer before it decides that nobody will dial any more.
* Changed keys are written before the gateway hears of the change, so an instance that meets an
  unknown key reads this socket first; then it asks, in case that somebody else changed the keys.
"""

from __future__ import annotations

import os
import select
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from fluvial import wire
from fluvial.encryption import KEY_BYTES, AppKeys, KeySet
from fluvial.errors import WireError
from fluvial.unguarded import monotonic
from fluvial_invoker.instance.certificate import BirthCertificate

_READ_BYTES: Final = 64 * 1024
_EXIT_INVOKER_GONE: Final = 70
_ASK_AGAIN_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 2.0  # the invoker reads a file


class ControlType(IntEnum):
    """The frames of the control descriptor; v invoker, i instance. The id is always 0."""

    BIRTH = 1  # v→i body: the birth certificate; keys come before it
    CREDENTIAL = 2  # v→i credential:bytes; good for one HELLO
    RELEASED = 3  # v→i no credential follows; answer to RETIRING
    KEYS = 4  # v→i current:str, ids:[str] (oldest first), destroyed:map, frozen:bool;
    #              body: the root keys, one after the other
    READY = 10  # i→v phases_ms:map; the deployment is loaded and serves
    FAILED = 11  # i→v reason:str; the deployment cannot be loaded
    RETIRING = 12  # i→v reason:str; hand this instance out no more
    WANTED = 13  # i→v send the keys as they are now


class Control:
    """The instance's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()  # here: workflow code, in which it is needed, must not make one
        self._poll.register(sock, select.POLLIN)
        self._reader = wire.FrameReader()
        self._credentials: set[bytes] = set()
        self._certificate: BirthCertificate | None = None
        self._keys: KeySet | None = None
        self._keys_read = 0  # how often keys have come
        self._asked_at = float("-inf")
        self._on_credential: Callable[[], None] = _nothing
        self._on_released: Callable[[], None] = _nothing
        self._on_keys: Callable[[KeySet], None] = _ignore

    def wait_for_certificate(self) -> BirthCertificate:
        """Block until the invoker has sent the certificate (it does before the fork)."""
        while self._certificate is None:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                os._exit(_EXIT_INVOKER_GONE)
            self._take(data)
        return self._certificate

    def close(self) -> None:
        """Hear and say nothing more."""
        self._socket.close()

    def ask_for_keys(self, app: str) -> AppKeys:
        """Wait for the app's keys, which did not come with the certificate."""
        self._tell(ControlType.WANTED, None)
        while self._keys is None:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                os._exit(_EXIT_INVOKER_GONE)
            self._take(data)
        return self.keys_at_birth(app)

    def keys_at_birth(self, app: str) -> AppKeys:
        """Return the app's keys as they came with the certificate; before `attach`."""
        given = self._given_keys()
        return AppKeys(app, given.roots, given.current, destroyed=given.destroyed)

    def app_keys(self, app: str) -> AppKeys:
        """Return the app's keys; they follow the keyring from now on."""
        given = self._given_keys()
        keys = AppKeys(
            app,
            given.roots,
            given.current,
            destroyed=given.destroyed,
            is_frozen=given.is_frozen,
            renew=self._renew_keys,
        )
        self._on_keys = keys.update
        return keys

    def _given_keys(self) -> KeySet:
        if self._keys is None:
            raise WireError("a certificate came without keys")
        return self._keys

    def attach(
        self,
        loop: AbstractEventLoop,
        *,
        on_credential: Callable[[], None],
        on_released: Callable[[], None],
    ) -> None:
        """Go on reading in the background."""
        self._on_credential = on_credential
        self._on_released = on_released
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._read)
        self._read()

    def redeem(self, credential: bytes) -> bool:
        """Use up a credential; false when it was never issued or was used before."""
        if credential not in self._credentials:
            self._read()
        if credential not in self._credentials:
            return False
        self._credentials.remove(credential)
        return True

    @property
    def has_unused_credentials(self) -> bool:
        """Whether a gateway was given this instance and has not dialled yet."""
        return bool(self._credentials)

    def tell_ready(self, phases_ms: dict[str, float]) -> None:
        self._tell(ControlType.READY, phases_ms)

    def tell_failed(self, reason: str) -> None:
        self._tell(ControlType.FAILED, reason)

    def tell_retiring(self, reason: str) -> None:
        self._tell(ControlType.RETIRING, reason)

    def _renew_keys(self) -> None:
        """A value names a key that is not here: take what has come, or ask what the file says now.

        It blocks the event loop for as long as the invoker takes to answer, a round trip. Asked
        again within a second, it only reads what has come.
        """
        self._read()
        now = monotonic()
        if now - self._asked_at < _ASK_AGAIN_SECONDS:
            return
        self._asked_at = now
        before = self._keys_read
        self._tell(ControlType.WANTED, None)
        while self._keys_read == before and (left := now + _ANSWER_SECONDS - monotonic()) > 0:
            self._poll.poll(left * 1000)
            self._read()

    def _tell(self, kind: ControlType, field: object) -> None:
        # A handful of small frames in a life: they always fit into the socket's buffer.
        self._socket.sendall(wire.pack(kind, 0, field))

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                # The invoker is gone, and with it everything that watches over this process.
                os._exit(_EXIT_INVOKER_GONE)
            self._take(data)

    def _take(self, data: bytes) -> None:
        for header, body in self._reader.feed(data):
            self._frame(header, body)

    def _frame(self, header: list[Any], body: bytes) -> None:
        match header[0]:
            case ControlType.BIRTH:
                self._certificate = BirthCertificate.decode(body)
            case ControlType.CREDENTIAL:
                self._credentials.add(header[2])
                self._on_credential()
            case ControlType.KEYS:
                self._keys = _read_keys(header, body)
                self._keys_read += 1
                self._on_keys(self._keys)
            case ControlType.RELEASED:
                self._on_released()
            case other:
                raise WireError(f"unknown control frame {other}")


def _read_keys(header: list[Any], body: bytes) -> KeySet:
    """Return what a KEYS frame says."""
    _, _, current, ids, destroyed, is_frozen, *_ = header
    roots = {
        key_id: body[place * KEY_BYTES : (place + 1) * KEY_BYTES]
        for place, key_id in enumerate(ids)
    }
    return KeySet(roots, current, destroyed, is_frozen)


def _nothing() -> None:
    return None


def _ignore(_: KeySet) -> None:
    return None
