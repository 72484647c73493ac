"""Root keys in the invoker's memory, kept where they can be erased.

What was once a `bytes` object stays in freed memory until something else takes its place. So a root
key lives in one `bytearray`, into which it is read and from which it is written, and no operation
here makes a copy that it does not erase.
"""

from __future__ import annotations

from typing import Final

from fluvial.encryption import KEY_BYTES, public_key_of

_RANDOM: Final = "/dev/urandom"


class RootKey:
    """One root key; `material` is taken over, and nobody else may keep it."""

    __slots__ = ("_material",)

    def __init__(self, material: bytearray) -> None:
        self._material = material

    def __repr__(self) -> str:
        return "<root key>"

    @classmethod
    def generate(cls) -> RootKey:
        """Return a new random key."""
        material = bytearray(KEY_BYTES)
        with open(_RANDOM, "rb", buffering=0) as random:  # `os.urandom` returns `bytes`
            random.readinto(material)
        return cls(material)

    @property
    def is_whole(self) -> bool:
        """Whether it has the length of a key."""
        return len(self._material) == KEY_BYTES

    @property
    def material(self) -> bytearray:
        """The key itself: to be written somewhere, not to be copied or kept."""
        return self._material

    def public_key(self, app: str) -> bytes:
        """Return the public key that belongs to it."""
        return public_key_of(self._material, app)

    def wipe(self) -> None:
        """Erase it; it must not be used any more."""
        wipe(self._material)


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer in place."""
    buffer[:] = bytes(len(buffer))
