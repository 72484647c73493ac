"""How containers beyond msgpack's lists and dicts are written down: each in its own type."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection
from typing import Any, Final

from fluvial.packing import Code, UnsupportedValueError, define, pack, pack_array, unpack

_FACTORIES: Final[dict[str, Callable[[], Any]]] = {
    cls.__name__: cls for cls in (list, dict, set, tuple, frozenset, int, float, str, bytes, bool)
}


def define_containers() -> None:
    """Add these types to the table."""
    define(Code.TUPLE, tuple, _pack_items, lambda data: tuple(unpack(data)))
    define(Code.SET, set, _pack_unordered, lambda data: set(unpack(data)))
    define(Code.FROZENSET, frozenset, _pack_unordered, lambda data: frozenset(unpack(data)))
    define(Code.DEQUE, deque, _pack_deque, _unpack_deque)
    define(Code.RANGE, range, _pack_range, lambda data: range(*unpack(data)))
    define(Code.ORDERED_DICT, OrderedDict, _pack_dict, lambda data: OrderedDict(unpack(data)))
    define(Code.COUNTER, Counter, _pack_dict, _unpack_counter)
    define(Code.DEFAULT_DICT, defaultdict, _pack_default_dict, _unpack_default_dict)


def _pack_items(value: Collection[Any]) -> bytes:
    return pack(list(value))


def _pack_unordered(value: Collection[Any]) -> bytes:
    # Sorted by encoding: the order of a set of strings differs from process to process, and
    # "was this started with the same input?" compares encodings.
    return pack_array(sorted(map(pack, value)))


def _pack_deque(value: deque[Any]) -> bytes:
    return pack([list(value), value.maxlen])


def _unpack_deque(data: bytes) -> deque[Any]:
    items, most = unpack(data)
    return deque(items, most)


def _pack_range(value: range) -> bytes:
    return pack([value.start, value.stop, value.step])


def _pack_dict(value: dict[Any, Any]) -> bytes:
    return pack(dict(value))


def _unpack_counter(data: bytes) -> Counter[Any]:
    return Counter(unpack(data))


def _pack_default_dict(value: defaultdict[Any, Any]) -> bytes:
    factory: Any = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "?")
    if name is not None and _FACTORIES.get(name) is not factory:
        raise UnsupportedValueError(
            f"a defaultdict that makes its values with {factory!r} cannot be stored, only with one"
            f" of {', '.join(_FACTORIES)}; pass dict(value)"
        )
    return pack([name, dict(value)])


def _unpack_default_dict(data: bytes) -> defaultdict[Any, Any]:
    name, items = unpack(data)
    return defaultdict(None if name is None else _FACTORIES[name], items)
