"""What a run shows of itself while it goes on: its tags, and its published state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fluvial.codec import encode
from fluvial.context import metadata, platform
from fluvial.errors import NotInWorkflowError
from fluvial.events import EventType
from fluvial.journal import Operation
from fluvial.loop import current_loop
from fluvial.options import check_tags

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys


class TagsOperation(Operation):
    """A change of the run's tags by its own workflow."""

    __slots__ = ("_tags",)
    opens = EventType.TAGS_SET
    is_numbered = False

    def __init__(self, tags: Mapping[str, str | None]) -> None:
        super().__init__()
        self._tags = dict(tags)

    def opening_meta(self) -> dict[str, Any]:
        return {"tags": self._tags}


class StateOperation(Operation):
    """What a run publishes of itself; bound to how many times it has done so."""

    __slots__ = ("_number", "_plaintext")
    opens = EventType.STATE_PUBLISHED
    is_numbered = False

    def __init__(self, plaintext: bytes, number: int) -> None:
        super().__init__()
        self._plaintext = plaintext
        self._number = number

    def opening_meta(self) -> dict[str, Any]:
        return {"number": self._number}

    def take_plaintext(self) -> bytes:
        plaintext, self._plaintext = self._plaintext, b""
        return plaintext

    def seal(self, keys: RunKeys, plaintext: bytes) -> bytes:
        return keys.seal(plaintext, "state", 0, self._number)

    def unseal(self, keys: RunKeys, sealed: bytes) -> bytes:
        return keys.open(sealed, "state", 0, self._number)


async def set_tags(tags: Mapping[str, str | None]) -> None:
    """Set tags of the run that is running here, a workflow or a step of it; None takes one away.

    Tags are stored in clear: they are what runs are searched by.

    Raises:
        InvalidRequestError: too many tags, or too long ones.
        NotInWorkflowError: neither a workflow nor a step is running here.
    """
    check_tags(tags)
    loop = current_loop()
    if loop is not None:
        loop.journal.ask(TagsOperation(tags))
        return
    run_id = metadata().run_id
    await platform("set_tags").call("tag", {"run_id": run_id, "tags": dict(tags)})


def publish(state: Any) -> None:
    """Let everybody who may see the run read `state` as its present state (`Run.state()`).

    The last one counts; it is kept, encrypted, in the event log. Reading it wakes nothing.

    Raises:
        NotInWorkflowError: no workflow is running here.
        SerializationError: the value cannot be stored; the path names what cannot.
    """
    loop = current_loop()
    if loop is None:
        raise NotInWorkflowError("fluvial.publish() works in workflows only")
    loop.scope.states += 1
    loop.journal.ask(StateOperation(encode(state, "state"), loop.scope.states))
