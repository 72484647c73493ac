"""Exceptions as data: class, arguments, attributes, text, notes, traceback text, causes, members.

An exception comes back as itself where its class is imported already and derives from Exception;
else as a `RemoteError` that carries its name and text. No constructor of a user's class runs: the
object is made by the builtin class that it derives from, and gets its attributes back. What cannot
be stored of it is left behind, and a note says so. The traceback travels as text, as a note.

The body of an exception is an array of records: its own, and that of every exception that it leads
to as cause, context, member of a group, argument or attribute. They refer to each other by number,
so that each is written once and is one object again. Inside a record's arguments and attributes,
the body of an exception is such a number.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

from fluvial.builtin_errors import (
    arguments_of,
    built_in_state_of,
    new_error,
    set_arguments,
    set_built_in_state,
)
from fluvial.classes import extra_state, find_class, name_of, slots_of
from fluvial.errors import FluvialError, RemoteError
from fluvial.packing import (
    Code,
    UnsupportedValueError,
    define_family,
    pack,
    pack_array,
    pack_map,
    unpack,
)

MAX_TRACEBACK_CHARACTERS: Final = 16 * 1024
MAX_TEXT_CHARACTERS: Final = 8 * 1024
MAX_CHAIN: Final = 16  # causes and contexts in a row
MAX_NOTES: Final = 8
MAX_EXCEPTIONS: Final = 1000  # of one body
_FULL_TRACEBACKS: Final = 32  # what comes later in the body has short ones
_SHORT_TRACEBACK_CHARACTERS: Final = 1024
_ATTEMPTS: Final = 3  # to find out which exceptions cannot speak; then all that did not
_NOTE: Final = "remote traceback (most recent call last):\n"


def define_failures() -> None:
    """Add exceptions to the table."""
    define_family(
        Code.EXCEPTION, lambda cls: issubclass(cls, BaseException), pack_failure, unpack_failure
    )


class _Current(threading.local):
    packing: _Packing | None = None
    unpacking: _Unpacking | None = None


_current = _Current()


def pack_failure(error: BaseException) -> bytes:
    """Return the body of an exception."""
    if _current.packing is not None:
        return pack(_current.packing.number_of(error))
    _current.packing = packing = _Packing()
    try:
        return packing.body_of(error)
    finally:
        _current.packing = None


def unpack_failure(data: bytes) -> BaseException:
    """Return the exception of a body; raises whatever the decoders raise on bad data."""
    content: Any = unpack(data)
    if _current.unpacking is not None:
        return _current.unpacking.referred(content)
    if len(content) > MAX_EXCEPTIONS:
        raise ValueError(f"more than {MAX_EXCEPTIONS} exceptions")
    try:
        return _unpack_audible(content)
    finally:
        _current.unpacking = None


def _unpack_audible(records: list[list[Any]]) -> BaseException:
    """Make the exceptions so that each can be asked for its text."""
    mute: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    for _ in range(_ATTEMPTS):
        unpacking = _Unpacking(records, mute)
        silent = unpacking.silent()
        if not silent:
            return unpacking.errors[0]
        mute |= {max(silent)}  # the innermost: others may only repeat what it says
    return _Unpacking(records, mute | silent).errors[0]


class _Packing:
    """The exceptions of one body, while it is written."""

    def __init__(self) -> None:
        self._errors: list[tuple[BaseException, int]] = []  # with its place in a row of causes
        self._numbers: dict[int, int] = {}

    def body_of(self, error: BaseException) -> bytes:
        self.number_of(error)
        records: list[bytes] = []
        while len(records) < len(self._errors):
            records.append(self._record(*self._errors[len(records)], len(records)))
        return pack_array(records)

    def number_of(self, error: BaseException, place: int = 0) -> int:
        number = self._numbers.get(id(error))
        if number is None:
            number = len(self._errors)
            if number >= MAX_EXCEPTIONS:
                raise UnsupportedValueError(f"leads to more than {MAX_EXCEPTIONS} exceptions")
            self._numbers[id(error)] = number
            self._errors.append((error, place))
        return number

    def _record(self, error: BaseException, place: int, number: int) -> bytes:
        notes = _notes(error)
        cause = self._linked(error.__cause__, place)
        context = self._linked(error.__context__, place)
        group = self._group(error, notes)
        arguments = [] if group else [_pack_argument(each) for each in arguments_of(error)]
        built_in, _ = _pack_state(built_in_state_of(error))
        own, lost = _pack_state(_own_state(error))
        if lost:
            notes.append(f"left behind, as it cannot be stored: {', '.join(lost)}")
        most = (
            MAX_TRACEBACK_CHARACTERS if number < _FULL_TRACEBACKS else _SHORT_TRACEBACK_CHARACTERS
        )
        fields: list[Any] = [
            name_of(type(error)),
            text_of(error)[:MAX_TEXT_CHARACTERS],
            group,
            pack_array(arguments),
            built_in,
            own,
            _traceback(error)[-most:],
            notes,
            cause,
            context,
            error.__suppress_context__,
        ]
        return pack(fields)

    def _linked(self, error: BaseException | None, place: int) -> int | None:
        if error is None or place >= MAX_CHAIN:
            return None
        with suppress(UnsupportedValueError):  # no room: the chain ends here
            return self.number_of(error, place + 1)
        return None

    def _group(self, error: BaseException, notes: list[str]) -> list[Any] | None:
        if not isinstance(error, BaseExceptionGroup):
            return None
        group = cast("BaseExceptionGroup[BaseException]", error)
        numbers: list[int] = []
        for member in group.exceptions:
            try:
                numbers.append(self.number_of(member))
            except UnsupportedValueError:
                left = len(group.exceptions) - len(numbers)
                notes.append(f"left behind: {left} more exceptions of the group")
                break
        return [text_of(group.message), numbers]


def _pack_argument(value: object) -> bytes:
    try:
        return pack(value)
    except Exception:  # noqa: BLE001 - whatever it is: an error must cross without it
        return pack(f"<{type(value).__qualname__}>")


def _pack_state(state: Mapping[str, Any]) -> tuple[bytes, list[str]]:
    """The packed attributes, and the names of those that cannot be stored."""
    parts: list[tuple[bytes, bytes]] = []
    lost: list[str] = []
    for name, value in state.items():
        try:
            parts.append((pack(name), pack(value)))
        except Exception:  # noqa: BLE001 - as above
            lost.append(f"{name} ({type(value).__qualname__})")
    return pack_map(parts), lost


def _own_state(error: BaseException) -> dict[str, Any]:
    """The attributes that Python code gave it, in `__dict__` and slots."""
    cls: Any = type(error)
    only_here = cls.only_here if issubclass(cls, FluvialError) else frozenset[str]()
    held = {k: v for k, v in vars(error).items() if k not in only_here}
    state = extra_state(cls, held)
    for name in slots_of(cls):
        with suppress(AttributeError):
            state[name] = getattr(error, name)
    return state


def text_of(value: object) -> str:
    """Return `str(value)`, whatever the class makes of that, as text that has a UTF-8 form."""
    try:
        text = str(value)
    except Exception as broken:  # noqa: BLE001 - __str__ is the user's code
        text = f"<its __str__ raised {type(broken).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _notes(error: BaseException) -> list[str]:
    """What was added to it, the traceback of an earlier crossing included."""
    notes: Any = getattr(error, "__notes__", [])
    if not isinstance(notes, (list, tuple)):
        return []
    some = cast("list[Any]", notes)[:MAX_NOTES]
    return [text_of(note)[-MAX_TRACEBACK_CHARACTERS:] for note in some]


def _traceback(error: BaseException) -> str:
    """The frames only: the last line (class and text) is recorded on its own."""
    if error.__traceback__ is None:
        return ""
    return text_of("".join(traceback.format_tb(error.__traceback__)))


class _Unpacking:
    """The exceptions of one body, made again: first all objects, then what they hold.

    Those in `mute` become RemoteErrors.
    """

    def __init__(self, records: list[list[Any]], mute: frozenset[int]) -> None:
        self._records = records
        self._mute = mute
        self._made: dict[int, BaseException] = {}
        for number in reversed(range(len(records))):  # members mostly come after their group
            self._make(number, frozenset())
        self.errors = [self._made[number] for number in range(len(records))]
        _current.unpacking = self
        for error, record in zip(self.errors, records, strict=True):
            _restore(error, *record[3:6])
            _add_notes(error, *record[6:8])
        self._link([record[8:] for record in records])

    def referred(self, number: int) -> BaseException:
        """The exception that an argument or attribute refers to."""
        return self.errors[number]

    def silent(self) -> frozenset[int]:
        """The numbers of those that raise when asked for their text: they miss what they lost."""
        return frozenset(n for n, error in enumerate(self.errors) if not _speaks(error))

    def _make(self, number: int, within: frozenset[int]) -> BaseException:
        if number in self._made:
            return self._made[number]
        name, text, group = self._records[number][:3]
        cls = None if number in self._mute else _exception_class(name)
        made = None
        if group is not None:
            message, numbers = group
            deeper = within | {number}
            members = [self._make(each, deeper) for each in numbers if each not in deeper]
            made = _make_group(cls, message, members)
        elif cls is not None and issubclass(cls, Exception):
            made = new_error(cls)
        if made is None:
            made = RemoteError(name.replace(":", "."), text)
        self._made[number] = made
        return made

    def _link(self, links: list[list[Any]]) -> None:
        tangled = _tangled([link[:2] for link in links])
        for number, (*targets, is_suppressed) in enumerate(links):
            error = self.errors[number]
            for name, target in zip(("__cause__", "__context__"), targets, strict=True):
                if target is not None and (target > number or number not in tangled):
                    BaseException.__setattr__(error, name, self.errors[target])
            # Last: to set a cause suppresses the context.
            BaseException.__setattr__(error, "__suppress_context__", is_suppressed)


def _tangled(links: list[list[int | None]]) -> set[int]:
    """The exceptions that lead back to themselves, and what these lead to.

    Among them a link may only go to a later one: library code follows chains until they end.
    """
    incoming = Counter(target for link in links for target in link if target is not None)
    tangled = set(range(len(links)))
    if not incoming.keys() <= tangled:
        raise ValueError("a link to no exception")
    free = [number for number in tangled if not incoming[number]]
    while free:
        number = free.pop()
        tangled.discard(number)
        for target in links[number]:
            if target is not None:
                incoming[target] -= 1
                if not incoming[target]:
                    free.append(target)
    return tangled


def _exception_class(name: str) -> type[BaseException] | None:
    cls = find_class(name)
    return cls if cls is not None and issubclass(cls, BaseException) else None


def _make_group(
    cls: type[BaseException] | None, message: str, members: list[BaseException]
) -> BaseException | None:
    if not members:
        return None
    # A BaseExceptionGroup becomes an ExceptionGroup: its members are Exceptions now.
    is_group = cls is not None and issubclass(cls, ExceptionGroup)
    wanted: Any = cast("Any", cls) if is_group else ExceptionGroup
    made: BaseException = BaseExceptionGroup.__new__(wanted, message, members)
    return made


def _restore(error: Any, arguments: bytes, built_in: bytes, own: bytes) -> None:
    cls = cast("Any", type(error))
    if cls is RemoteError and error.args:
        return  # it stands for another class, which has other attributes
    slots = slots_of(cls)
    set_built_in_state(error, unpack(built_in))
    if not issubclass(cls, BaseExceptionGroup):
        set_arguments(error, tuple(unpack(arguments)))
    for name, value in unpack(own).items():
        if name in slots:
            BaseException.__setattr__(error, name, value)
        elif not name.startswith("__"):
            error.__dict__[name] = value


def _add_notes(error: Any, frames: str, notes: list[str]) -> None:
    if frames:
        notes = [*notes, _NOTE + frames]
    if notes:
        # Not add_note: a frozen dataclass would refuse it.
        BaseException.__setattr__(error, "__notes__", notes)


def _speaks(error: BaseException) -> bool:
    try:
        str(error)
    except Exception:  # noqa: BLE001 - __str__ is the user's code
        return False
    return True
