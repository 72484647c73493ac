"""The journal: numbers what a workflow asks for, and holds it against what the log recorded.

Invariants:

1.  An *operation* (step, timer, hook) is asked for at once and *settled* when the workflow is idle:
    only then does it get its id and its event. What was asked for and given up between two idle
    moments never existed. Settling happens after every single input, so it does not depend on how
    inputs were batched into turns.
2.  Ids count from 1 in the order of asking, over all kinds of operation.
3.  While replaying, every event must equal the next recorded output (type, id, name, token, delay),
    patches aside; and so must a step's arguments, where they are known. Then nothing is encrypted.
    A difference stops the replay; nothing is proposed.
4.  A closed journal takes nothing: asking raises GeneratorExit, which ends the `finally` block of
    a discarded coroutine that asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fluvial.codec import are_equal
from fluvial.errors import FluvialError, NondeterminismError
from fluvial.events import EventType, pack_event

if TYPE_CHECKING:  # cryptography is heavy, and user code that imports fluvial does not need it
    from fluvial.encryption import RunKeys

Recorded = tuple[int, int, dict[str, Any]]
"""An output of the log: type, id, meta."""

MAX_OUTPUTS: Final = 10_000  # per turn; what one answer may hold
MAX_OUTPUT_BYTES: Final = 48 * 1024 * 1024  # per turn; below a frame's limit
_NOTHING: Final[Mapping[int, bytes]] = MappingProxyType({})
_ADVICE: Final = (
    "; a workflow must depend on nothing but its input, its steps' results, its hooks and"
    " fluvial.now/random/uuid4"
)


class TurnTooLargeError(FluvialError):
    """A workflow asked for more than one turn can carry; it fails the run."""

    code = "turn_too_large"


class Operation:
    """Something durable that a workflow asked for; subclasses say how it is written down.

    `is_numbered`: it gets an id, and stays open until its end. Without, it is said and done: an
    event of the run itself, or, if it has an id from the start, of the operation of that id.
    `announces`: `announced` is called once its event is written down or has been compared.
    """

    __slots__ = ("id", "is_open")
    opens: ClassVar[EventType]
    closes: ClassVar[EventType]
    is_numbered: ClassVar[bool] = True
    announces: ClassVar[bool] = False

    def __init__(self) -> None:
        self.id = 0  # given when it is settled
        self.is_open = True

    def opening_meta(self) -> dict[str, Any]:
        """The meta of the event that opens it; compared on replay."""
        return {}

    def closing_meta(self) -> dict[str, Any]:
        """The meta of the event with which the workflow gives it up."""
        return {}

    def take_plaintext(self) -> bytes | None:
        """What must be sealed into the opening event; it is asked for once."""
        return None

    def seal(self, keys: RunKeys, plaintext: bytes) -> bytes:
        """Return the sealed form of what `take_plaintext` gave."""
        return keys.seal(plaintext, "step_input", self.id)

    def unseal(self, keys: RunKeys, sealed: bytes) -> bytes:
        """Return the plaintext of what `seal` made."""
        return keys.open(sealed, "step_input", self.id)

    def announced(self, meta: dict[str, Any]) -> None:
        """Hear the meta of the opening event: on a replay, as the log recorded it."""


class Journal:
    """What one run has asked for. Not safe for threads; one per live run."""

    __slots__ = (
        "_arguments",
        "_asked",
        "_count",
        "_keys",
        "_open",
        "_output_bytes",
        "_outputs",
        "_position",
        "_recorded",
        "at_ms",
        "is_closed",
        "is_replaying",
        "patches",
    )

    def __init__(
        self,
        keys: RunKeys,
        recorded: Sequence[Recorded] = (),
        patches: Iterable[str] = (),
        arguments: Mapping[int, bytes] = _NOTHING,
    ) -> None:
        self._keys = keys
        self._arguments = arguments
        self._recorded = recorded
        self._position = 0
        self._asked: list[tuple[Operation, bool]] = []
        self._open: dict[int, Operation] = {}
        self._outputs: list[bytes] = []
        self._output_bytes = 0
        self._count = 0
        self.at_ms = 0  # the time that outputs get
        self.is_closed = False
        self.is_replaying = True
        self.patches = dict.fromkeys(patches, True)  # see `fluvial.patches`

    @property
    def open_operations(self) -> int:
        """How many settled operations are unfinished."""
        return len(self._open)

    @property
    def upcoming(self) -> Recorded | None:
        """The recorded output that a replay has to ask for next."""
        position = self._position
        return self._recorded[position] if position < len(self._recorded) else None

    def ask(self, operation: Operation) -> None:
        """Note an operation; it is settled when the workflow is idle."""
        if self.is_closed:
            raise GeneratorExit
        self._asked.append((operation, False))

    def withdraw(self, operation: Operation) -> None:
        """Note that the workflow gives an operation up; without effect on a finished one."""
        if not operation.is_open or self.is_closed:
            return
        operation.is_open = False
        if operation.id:
            del self._open[operation.id]
            self._asked.append((operation, True))

    def note(self, operation: Operation) -> None:
        """Have an event without a number, that of `operation.closes`, written down in its place."""
        if self.is_closed:
            raise GeneratorExit
        self._asked.append((operation, True))

    def find(self, operation_id: int) -> Operation | None:
        """Return the open operation of that id; None if it was given up or is finished.

        Raises:
            NondeterminismError: the workflow never asked for it.
        """
        if not 1 <= operation_id <= self._count:
            raise NondeterminismError(
                f"the log has a result for operation {operation_id}, but the workflow has asked"
                f" for {self._count} only{_ADVICE}"
            )
        return self._open.get(operation_id)

    def finish(self, operation: Operation) -> None:
        """Note that an operation has its result."""
        operation.is_open = False
        self._open.pop(operation.id, None)

    def settle(self) -> None:
        """Number what was asked for since the last time, and write it down or compare it.

        Raises:
            NondeterminismError: a replay asks for something else than the log recorded.
            TurnTooLargeError: one turn asks for too much.
        """
        if not self._asked:
            return
        asked, self._asked = self._asked, []
        for operation, closing in asked:
            if closing:
                self.put(operation.closes, operation.id, operation.closing_meta())
            elif operation.is_open:
                if operation.is_numbered:
                    self._count += 1
                    operation.id = self._count
                    self._open[self._count] = operation
                self.put_opening(operation)

    def settle_last(self) -> None:
        """As `settle`, when the workflow has returned: what it only began is dropped."""
        self._asked = [e for e in self._asked if e[1] or not e[0].is_numbered]
        self.settle()

    def put(self, event_type: EventType, operation_id: int, meta: dict[str, Any]) -> None:
        """Write an event without payload down, or compare it with the recorded one."""
        if self.is_replaying:
            self.match(event_type, operation_id, meta)
        else:
            self.write(event_type, operation_id, b"", meta)

    def write(
        self, event_type: EventType, operation_id: int, payload: bytes, meta: dict[str, Any]
    ) -> None:
        """Add an output of this turn."""
        event = pack_event(event_type, self.at_ms, operation_id, payload, meta)
        self._outputs.append(event)
        self._output_bytes += len(event)
        if len(self._outputs) > MAX_OUTPUTS or self._output_bytes > MAX_OUTPUT_BYTES:
            raise TurnTooLargeError(
                f"the workflow asked for more than {MAX_OUTPUTS} operations or"
                f" {MAX_OUTPUT_BYTES} bytes at once; start them in smaller groups"
            )

    def take_outputs(self) -> list[bytes]:
        """Return the turn's outputs and forget them."""
        outputs, self._outputs = self._outputs, []
        self._output_bytes = 0
        return outputs

    def end_replay(self) -> None:
        """Say that all consumed inputs were fed; from now on outputs are new.

        Raises:
            NondeterminismError: recorded outputs are left over.
        """
        self.check_complete()
        self.is_replaying = False
        self._recorded = ()
        self._arguments = _NOTHING

    def check_complete(self) -> None:
        """Raises:
        NondeterminismError: recorded outputs are left over.
        """
        left = self.upcoming
        if left is not None:
            raise NondeterminismError(
                f"the log recorded {describe(*left)}, but the workflow does not ask for it"
                f" now{_ADVICE}"
            )

    def close(self) -> None:
        """Take nothing any more; forget everything."""
        self.is_closed = True
        self._asked.clear()
        self._open.clear()
        self._outputs.clear()

    def put_opening(self, operation: Operation) -> None:
        """Write the event that opens an operation down, or compare it with the recorded one."""
        meta = operation.opening_meta()
        plaintext = operation.take_plaintext()
        if self.is_replaying:
            recorded = self.upcoming if operation.announces else None
            self.match(operation.opens, operation.id, meta)
            if plaintext is not None and operation.id in self._arguments:
                self._match_arguments(operation, plaintext)
            if recorded is not None:
                meta = recorded[2]
        elif plaintext is None:
            self.write(operation.opens, operation.id, b"", meta)
        else:
            sealed = operation.seal(self._keys, plaintext)
            self.write(operation.opens, operation.id, sealed, meta)
        if operation.announces:
            operation.announced(meta)

    def match(self, event_type: EventType, operation_id: int, meta: dict[str, Any]) -> None:
        """Compare an output with the next one that the log recorded.

        Raises:
            NondeterminismError: it is another, or there is none.
        """
        position = self._position
        if position >= len(self._recorded):
            raise NondeterminismError(
                f"the workflow now asks for {describe(event_type, operation_id, meta)}, which the"
                f" log did not record at this point{_ADVICE}"
            )
        recorded = self._recorded[position]
        self._position = position + 1
        if recorded[0] != event_type or recorded[1] != operation_id or not _same(recorded, meta):
            raise NondeterminismError(
                f"the log recorded {describe(*recorded)}, the workflow now asks for"
                f" {describe(event_type, operation_id, meta)}{_ADVICE}"
            )

    def _match_arguments(self, operation: Operation, plaintext: bytes) -> None:
        recorded = operation.unseal(self._keys, self._arguments[operation.id])
        if not are_equal(plaintext, recorded):
            what = describe(operation.opens, operation.id, operation.opening_meta())
            raise NondeterminismError(
                f"the log recorded {what} with other arguments than the workflow now gives{_ADVICE}"
            )

    def match_last(
        self, event_type: EventType, error: BaseException | None, plaintext: bytes | None
    ) -> None:
        """Compare the event that ends the run while replaying.

        `error` has failed it; `plaintext` would be sealed into the event.
        """
        self.match(event_type, 0, {})


_COMPARED: Final[dict[int, tuple[str, ...]]] = {
    EventType.STEP_SCHEDULED: ("name",),
    EventType.TIMER_SET: ("delay_ms",),
    EventType.HOOK_OPENED: ("chosen", "name"),  # a made token is taken from the log: see `hooks`
    EventType.HOOK_ANSWERED: ("resume", "ok"),
    EventType.CHILD_SCHEDULED: ("workflow",),
    EventType.TAGS_SET: ("tags",),
}


def _same(recorded: Recorded, meta: dict[str, Any]) -> bool:
    known = recorded[2]
    for key in _COMPARED.get(recorded[0], ()):  # noqa: SIM110 - hot: a generator costs 0.4 µs
        if known.get(key) != meta.get(key):
            return False
    return True


def describe(event_type: int, operation_id: int, meta: dict[str, Any]) -> str:
    """Name an event for people, without user data (a hook's token may hold some)."""
    detail = ""
    if event_type == EventType.STEP_SCHEDULED:
        detail = f" {meta.get('name')}"
    elif event_type == EventType.CHILD_SCHEDULED:
        detail = f" {meta.get('workflow')}"
    elif event_type == EventType.TIMER_SET:
        detail = f" {meta.get('delay_ms')} ms"
    place = f" (operation {operation_id})" if operation_id else ""
    return EventType(event_type).name + detail + place
