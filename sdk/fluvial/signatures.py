"""A function's signature as the codec needs it: how its calls and results are written down."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from fluvial.codec import decode, decode_bare, encode
from fluvial.errors import SerializationError
from fluvial.shapes import ANY, Shape, shape_of
from fluvial.type_hints import hints_of

Call = tuple[list[Any], dict[str, Any]]


class Signature:
    """Encodes and decodes calls of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._owner: type | None = None

    def bind_to(self, owner: type) -> None:
        """Say that it is a method: its first parameter, unless annotated, is an `owner`."""
        self._owner = owner

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        # Late, so that an annotation may name a class that is defined further down.
        hints = hints_of(self._function)
        if self._owner is None:
            return hints
        return {next(iter(self.parameters.parameters), "self"): self._owner, **hints}

    @functools.cached_property
    def parameters(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @functools.cached_property
    def result(self) -> Shape:
        """The shape of what the function returns."""
        return shape_of(self._hints.get("return"))

    def decode_call(self, data: bytes) -> Call:
        """Return (args, kwargs) of a stored call, shaped by the annotations.

        A call from JSON is an array of positional arguments, or `{"args": […], "kwargs": {…}}`.

        Raises:
            SerializationError: it is not a call of this function.
        """
        value, is_plain = decode_bare(data, "args")
        args, kwargs = _plain_call(value) if is_plain else _stored_call(value)
        try:
            bound = self.parameters.bind(*args, **kwargs)
        except TypeError as error:
            name = self._function.__qualname__
            raise SerializationError(
                "args", f"do not fit {name}{self.parameters}: {error}"
            ) from None
        return self._shape(bound, args, kwargs, is_plain)

    def _shape(
        self, bound: inspect.BoundArguments, args: list[Any], kwargs: dict[str, Any], is_plain: bool
    ) -> Call:
        if not self._hints:
            return args, kwargs
        positional = self._positional(len(args))
        shaped = [
            shape.apply(value, is_plain, f"args[{i}]")
            for i, (shape, value) in enumerate(zip(positional, args, strict=True))
        ]
        rest = self._variadic(inspect.Parameter.VAR_KEYWORD)
        named = {
            name: (self._shape_of(name) if name in bound.signature.parameters else rest).apply(
                value, is_plain, f"kwargs[{name!r}]"
            )
            for name, value in kwargs.items()
        }
        return shaped, named

    def _positional(self, count: int) -> list[Shape]:
        kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        names = [p.name for p in self.parameters.parameters.values() if p.kind in kinds]
        rest = self._variadic(inspect.Parameter.VAR_POSITIONAL)
        shapes = [self._shape_of(name) for name in names[:count]]
        return shapes + [rest] * (count - len(shapes))

    def _variadic(self, kind: Any) -> Shape:
        for parameter in self.parameters.parameters.values():
            if parameter.kind is kind:
                return self._shape_of(parameter.name)
        return ANY

    def _shape_of(self, name: str) -> Shape:
        return shape_of(self._hints.get(name))


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return the plaintext of a call.

    Raises:
        SerializationError: an argument cannot be encoded; the path names it.
    """
    ordered = {name: kwargs[name] for name in sorted(kwargs)} if kwargs else kwargs
    try:
        return encode([list(args), ordered], "call")
    except SerializationError as error:
        raise _name_argument(args, kwargs, error) from error.__cause__


def decode_result(data: bytes, shape: Shape) -> Any:
    """Return a stored result in the annotated type."""
    return decode(data, shape, "result")


def _name_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: SerializationError
) -> SerializationError:
    named = [(f"args[{i}]", value) for i, value in enumerate(args)]
    named += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for where, value in named:
        try:
            encode(value, where)
        except SerializationError as precise:
            return precise
    return error


def _stored_call(value: Any) -> Call:
    try:
        args, kwargs = value
        return list(args), dict(kwargs)
    except (TypeError, ValueError):
        raise SerializationError("args", "the stored call is damaged") from None


def _plain_call(value: Any) -> Call:
    if isinstance(value, list):
        return cast("list[Any]", value), {}
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        args, kwargs = given.get("args", []), given.get("kwargs", {})
        if (
            given.keys() <= {"args", "kwargs"}
            and isinstance(args, list)
            and isinstance(kwargs, dict)
        ):
            return cast("Call", (args, kwargs))
    raise SerializationError(
        "args", 'must be a JSON array of arguments, or {"args": […], "kwargs": {…}}'
    )
