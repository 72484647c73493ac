"""Errors as the plaintext of a payload, and in one line for people."""

from __future__ import annotations

from fluvial.codec import decode, encode
from fluvial.errors import RemoteError, SerializationError
from fluvial.failures import text_of


def encode_error(error: BaseException) -> bytes:
    """Return the plaintext of an error; one that is too large is cut down to class and text."""
    try:
        return encode(error, "error")
    except SerializationError:
        return encode(RemoteError(type(error).__qualname__, text_of(error)[:1000]), "error")


def decode_error(plaintext: bytes | None) -> BaseException | None:
    """Return the error of a plaintext; None where there is none."""
    if not plaintext:
        return None
    try:
        error = decode(plaintext, where="error")
    except SerializationError as unreadable:
        return unreadable
    return error if isinstance(error, BaseException) else RemoteError("error", text_of(error))


def describe_error(error: BaseException) -> str:
    """Class and text of an error in one line."""
    if isinstance(error, RemoteError):
        return str(error)
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
