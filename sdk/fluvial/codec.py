"""The codec: values of user code ↔ the plaintext that is sealed and stored.

A plaintext is one letter and a body:

    m  msgpack with extension types (`fluvial.extensions`)     M  the same, zstd-compressed
    j  JSON in UTF-8, from outside                             J  the same, zstd-compressed

Never pickle: decoding runs no code that the data names, beyond classes that are imported already.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from fluvial.classes import is_model, is_named_tuple
from fluvial.errors import SerializationError
from fluvial.extensions import (
    TOO_DEEP,
    UnreadableValueError,
    UnsupportedValueError,
    pack,
    plain_data_of,
    unpack,
)
from fluvial.shapes import Shape, shape_of

MAX_VALUE_BYTES: Final = 24 * 1024 * 1024  # below what a frame and the store take, sealed
COMPRESS_FROM_BYTES: Final = 1024
_compressed_from_bytes = COMPRESS_FROM_BYTES
_SAVING: Final = 0.95  # compressed at most this much of the original, else it is not worth it
_COMPRESSION_LEVEL: Final = 1
_MAX_DEPTH_NAMED: Final = 32  # how deep an error's path goes


def encode(value: object, where: str = "value") -> bytes:
    """Return the plaintext of a value.

    Raises:
        SerializationError: a part of it has no encoding; the error's path begins with `where`.
    """
    try:
        body = pack(value)
    except Exception as error:  # a property or serializer of the user's may raise anything
        raise _explain(value, where) from error
    return _wrap(b"m", body, where)


def encode_uncompressed(value: object) -> bytes:
    """Return the plaintext of a value that has an encoding, for an app of which is not known
    whether it compresses."""
    return b"m" + pack(value)


def encode_json(value: object, where: str = "value") -> bytes:
    """Return the plaintext of a JSON value, as a party outside Python would write it.

    Raises:
        SerializationError: it is not JSON.
    """
    try:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(where, f"is not JSON: {error}") from error
    return _wrap(b"j", body, where)


def decode(data: bytes, annotation: Any = None, where: str = "value") -> Any:
    """Return the value of a plaintext, shaped by an annotation (or a compiled `Shape`).

    Raises:
        SerializationError: `data` is not a plaintext, or does not fit the annotation.
    """
    shape = annotation if type(annotation) is Shape else shape_of(annotation)
    value, is_plain = decode_bare(data, where)
    convert = shape.plain if is_plain else shape.stored
    return value if convert is None else shape.apply(value, is_plain, where)


def decode_bare(data: bytes, where: str = "value") -> tuple[Any, bool]:
    """Return the value of a plaintext without shaping it, and whether it came as JSON.

    Raises:
        SerializationError: `data` is not a plaintext, or holds what the code here cannot read.
    """
    form = data[:1]
    try:
        if form == b"m":
            return unpack(memoryview(data)[1:]), False
        if form == b"j":
            return json.loads(data[1:]), True
        if form == b"M":
            return unpack(_decompress(data[1:])), False
        if form == b"J":
            return json.loads(_decompress(data[1:])), True
    except UnreadableValueError as error:
        raise SerializationError(where, str(error)) from error
    except Exception as error:
        raise SerializationError(where, "the stored value is damaged") from error
    raise SerializationError(where, f"the stored value has an unknown form {form!r}")


def set_compression(wanted: bool) -> None:
    """Say whether this process compresses what it encodes (it does by default).

    The size of a sealed value is in the clear, and a compressed one's depends on what is in it.
    """
    global _compressed_from_bytes
    _compressed_from_bytes = COMPRESS_FROM_BYTES if wanted else MAX_VALUE_BYTES + 1


def are_equal(plaintext: bytes, other: bytes) -> bool:
    """Whether two plaintexts hold equal values, however they were written down."""
    if plaintext == other:
        return True
    try:
        return bool(decode_bare(plaintext)[0] == decode_bare(other)[0])
    except Exception:  # noqa: BLE001 - a class that is gone, or one whose comparison raises
        return False


def _wrap(form: bytes, body: bytes, where: str) -> bytes:
    if len(body) > MAX_VALUE_BYTES:
        raise SerializationError(
            where,
            f"has {len(body)} bytes encoded, above the limit of {MAX_VALUE_BYTES};"
            " store it elsewhere and pass a reference",
        )
    if len(body) >= _compressed_from_bytes:
        small: bytes = _compressor().compress(body)
        if len(small) <= len(body) * _SAVING:
            return form.upper() + small
    return form + body


# zstandard is imported when the first large value comes: most programs that import fluvial never
# meet one, and a zygote should stay small. Its objects must not be shared between threads.
_local = threading.local()


@functools.cache
def _zstandard() -> Any:
    import zstandard

    return zstandard


def _compressor() -> Any:
    if not hasattr(_local, "compressor"):
        _local.compressor = _zstandard().ZstdCompressor(level=_COMPRESSION_LEVEL)
    return _local.compressor


def _decompress(data: bytes) -> bytes:
    library = _zstandard()
    size: int = library.frame_content_size(data)
    if not 0 <= size <= MAX_VALUE_BYTES:
        raise ValueError(f"a compressed value of {size} bytes is above {MAX_VALUE_BYTES}")
    if not hasattr(_local, "decompressor"):
        _local.decompressor = library.ZstdDecompressor()
    plain: bytes = _local.decompressor.decompress(data, max_output_size=MAX_VALUE_BYTES)
    return plain


def _explain(value: Any, path: str, depth: int = 0) -> SerializationError:
    """Find the innermost part that cannot be encoded. Slow, and only for errors."""
    try:
        for child_path, child in _children(value, path) if depth < _MAX_DEPTH_NAMED else ():
            if _problem(child):
                return _explain(child, child_path, depth + 1)
    except Exception:  # noqa: BLE001 - a property or `repr` of the user's: name what holds it
        return SerializationError(path, _problem(value))
    return SerializationError(path, _problem(value) or "cannot be stored")


def _problem(value: Any) -> str:
    try:
        pack(value)
    except UnsupportedValueError as error:
        return str(error)
    except RecursionError:
        return TOO_DEEP
    except UnicodeError:
        return "is a text with lone surrogates, which has no UTF-8 form"
    except (ValueError, OverflowError, TypeError) as error:
        text = str(error)
        return TOO_DEEP if "recursion" in text else text
    except Exception as error:  # noqa: BLE001 - as in `encode`
        return f"cannot be stored: {type(error).__name__}: {error}"
    return ""


def _children(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield f"{path} (key {key!r})", key
            yield f"{path}[{key!r}]", item
    elif is_named_tuple(type(value)):
        yield from _parts(path, dict(zip(value._fields, value, strict=True)))
    elif isinstance(value, (list, tuple, deque)):
        for index, item in enumerate(cast("list[Any]", value)):
            yield f"{path}[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in cast("set[Any]", value):
            yield f"{path}{{{item!r}}}", item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
        yield from _parts(path, fields | getattr(value, "__dict__", {}))
    elif is_model(type(value)):
        state: dict[str, Any] = cast("Any", value).__getstate__()
        for part in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
            yield from _parts(path, state[part] or {})
    else:
        plain = _plain_data(value)
        if plain is not value:
            yield f"{path} (as plain data)", plain


def _parts(path: str, parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, item in parts.items():
        yield f"{path}.{name}", item


def _plain_data(value: Any) -> Any:
    try:
        return plain_data_of(value)
    except Exception:  # noqa: BLE001 - the user's code, whose error `_problem` tells
        return value
