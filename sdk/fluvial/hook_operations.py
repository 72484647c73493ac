"""What a hook is to its run's journal: how it opens and closes, its payloads, and their answers.

Who *asks* (see `fluvial.talking`) waits for HOOK_ANSWERED, and the run owes it to them, unless it
ends: a payload that does not fit, or comes when the hook is closed, is refused here, by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fluvial.codec import encode
from fluvial.errors import (
    HookClosedError,
    HookConflictError,
    InvalidRequestError,
    NondeterminismError,
    SerializationError,
)
from fluvial.events import EventType
from fluvial.journal import Journal, Operation
from fluvial.loop import WorkflowLoop

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys

INVALID: Final = "invalid"  # why the runtime refuses
CLOSED: Final = "closed"


def answer_id(hook_id: int, resume: str) -> str:
    """Return what the answer to one payload is sealed for."""
    return f"{hook_id}/{resume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTerms:
    """What a hook is opened with."""

    read: Callable[[bytes], Any]  # plaintext → payload; raises SerializationError
    schema: Callable[[], dict[str, Any] | None]  # of payloads that come as JSON
    name: str = ""
    is_chosen: bool = False  # the user has chosen the token
    timeout_ms: int = 0
    metadata: bytes | None = None  # a plaintext
    meta: dict[str, Any] = field(default_factory=dict[str, Any])  # what else is written down


@dataclass(slots=True, eq=False)
class Delivery:
    """A payload that has come, and may have to be answered."""

    hook: HookOperation
    resume: str
    asks: bool  # who sent it waits for an answer
    value: Any = None
    error: SerializationError | None = None  # it is not what the hook takes
    is_answered: bool = False

    def answer(self, plaintext: bytes, *, ok: bool, why: str = "") -> None:
        """Answer whoever waits; where nobody does, nothing happens.

        Raises:
            InvalidRequestError: it was answered before.
        """
        if self.is_answered:
            raise InvalidRequestError("a request is answered once")
        self.is_answered = True
        if self.asks:
            journal, hook = self.hook.loop.journal, self.hook
            answer(journal, hook.id, hook.token, self.resume, plaintext, ok=ok, why=why)

    def refuse(self, reason: str, why: str) -> None:
        """Refuse it in the runtime's name, unless it is answered."""
        if not self.is_answered:
            self.answer(encode(reason), ok=False, why=why)

    def acknowledge(self) -> None:
        """Somebody has it who answers nothing."""
        if not self.is_answered:
            self.answer(encode(None), ok=True)


class HookOperation(Operation):
    """An open hook of a workflow."""

    __slots__ = (
        "deliveries",
        "ending",
        "holder",
        "is_ours",
        "known",
        "loop",
        "recorded",
        "terms",
        "timer",
        "token",
    )
    opens = EventType.HOOK_OPENED
    closes = EventType.HOOK_CLOSED
    announces = True

    def __init__(self, loop: WorkflowLoop, token: str, terms: HookTerms) -> None:
        super().__init__()
        self.loop = loop
        self.token = token
        self.terms = terms
        self.recorded: dict[str, Any] = {}  # the meta of the event, once that is written down
        self.known: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.is_ours = not terms.is_chosen  # it is known that no other run has the token
        self.holder: str | None = None  # the run that has the token, where that is another
        self.ending: Exception | None = None  # why nothing more comes
        self.timer: asyncio.TimerHandle | None = None
        # asyncio's queue: a payload is never lost when the task that waits for it is cancelled.
        # None stands for the end.
        self.deliveries: asyncio.Queue[Delivery | None] = asyncio.Queue()

    def opening_meta(self) -> dict[str, Any]:
        terms = self.terms
        meta: dict[str, Any] = {"token": self.token, "chosen": terms.is_chosen, **terms.meta}
        if terms.name:
            meta["name"] = terms.name
        if terms.timeout_ms:
            meta["timeout_ms"] = terms.timeout_ms
        if not self.loop.journal.is_replaying and (schema := terms.schema()) is not None:
            meta["schema"] = schema
        return meta

    def closing_meta(self) -> dict[str, Any]:
        return {"token": self.token}

    def take_plaintext(self) -> bytes | None:
        return self.terms.metadata

    def seal(self, keys: RunKeys, plaintext: bytes) -> bytes:
        return keys.seal(plaintext, "hook_metadata", self.id)

    def unseal(self, keys: RunKeys, sealed: bytes) -> bytes:
        return keys.open(sealed, "hook_metadata", self.id)

    def announced(self, meta: dict[str, Any]) -> None:
        """The log's token is the hook's: a forked run goes on with those of its origin."""
        if self.terms.is_chosen and meta["token"] != self.token:
            raise NondeterminismError(
                f"the log recorded another token for the hook of operation {self.id}: a chosen"
                " token must depend on nothing but the workflow's input and results"
            )
        self.token = str(meta["token"])
        self.recorded = meta
        self.known.set_result(None)

    def receive(self, plaintext: bytes, meta: dict[str, Any]) -> None:
        """Hand a payload to whoever waits, in the order of the log."""
        self.is_ours = True
        delivery = Delivery(self, str(meta.get("resume", "")), bool(meta.get("ask")))
        try:
            delivery.value = self.terms.read(plaintext)
        except SerializationError as error:
            if delivery.asks:  # who sent it is told, so nobody else need be
                delivery.refuse(str(error), INVALID)
                return
            delivery.error = error
        self.deliveries.put_nowait(delivery)

    def lose(self, meta: dict[str, Any]) -> None:
        """Another run holds the token: every wait fails."""
        self.holder = str(meta.get("run", ""))
        self.end(HookConflictError(self.token, self.holder))

    async def take(self) -> Delivery:
        """Return the next payload.

        Raises:
            HookConflictError, TimeoutError, HookClosedError: nothing more comes.
        """
        delivery = await self.deliveries.get()
        if delivery is None:
            self.deliveries.put_nowait(None)  # for whoever waits next
            raise self.ending or HookClosedError(self.token)
        return delivery

    def end(self, ending: Exception) -> None:
        """Say why nothing more comes, once; what has come can still be taken."""
        if self.ending is None:
            self.ending = ending
            self.deliveries.put_nowait(None)
            if self.timer is not None:
                self.timer.cancel()

    def drop(self) -> None:
        """Forget what nobody has taken; who asked is told."""
        while not self.deliveries.empty():
            delivery = self.deliveries.get_nowait()
            if delivery is not None and not self.loop.journal.is_closed:
                delivery.refuse(_CLOSED_TEXT, CLOSED)
        self.deliveries.put_nowait(None)


class AnswerOperation(Operation):
    """The answer to one payload; written down with the id of its hook."""

    __slots__ = ("_meta", "_plaintext", "_resume")
    opens = EventType.HOOK_ANSWERED
    is_numbered = False

    def __init__(self, hook_id: int, resume: str, plaintext: bytes, meta: dict[str, Any]) -> None:
        super().__init__()
        self.id = hook_id
        self._resume = resume
        self._plaintext = plaintext
        self._meta = meta

    def opening_meta(self) -> dict[str, Any]:
        return self._meta

    def take_plaintext(self) -> bytes:
        plaintext, self._plaintext = self._plaintext, b""
        return plaintext

    def seal(self, keys: RunKeys, plaintext: bytes) -> bytes:
        return keys.seal(plaintext, "hook_answer", answer_id(self.id, self._resume))

    def unseal(self, keys: RunKeys, sealed: bytes) -> bytes:
        return keys.open(sealed, "hook_answer", answer_id(self.id, self._resume))


def answer(
    journal: Journal,
    hook_id: int,
    token: str,
    resume: str,
    plaintext: bytes,
    *,
    ok: bool,
    why: str = "",
) -> None:
    """Have the answer to one payload written down."""
    meta: dict[str, Any] = {"token": token, "resume": resume, "ok": ok}
    if why:
        meta["why"] = why
    journal.ask(AnswerOperation(hook_id, resume, plaintext, meta))


def refuse_late(journal: Journal, hook_id: int, meta: dict[str, Any]) -> None:
    """Tell who asked that the hook was closed before what they sent got there."""
    if meta.get("ask"):
        token, resume = str(meta["token"]), str(meta["resume"])
        answer(journal, hook_id, token, resume, encode(_CLOSED_TEXT), ok=False, why=CLOSED)


_CLOSED_TEXT: Final = "the hook was closed before the workflow took this"
