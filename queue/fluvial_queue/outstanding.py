"""A run's messages that exist in the store, sorted by what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluvial_queue.contract import Lease, message_order
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.views import RunView


@dataclass(slots=True)
class Outstanding:
    """A run's messages that exist in the store, by what can be done with them."""

    all: dict[str, Message] = field(default_factory=dict[str, Message])
    epochs: dict[str, int] = field(default_factory=dict[str, int])
    inputs: dict[str, Message] = field(default_factory=dict[str, Message])  # to be recorded
    waiting: dict[str, Message] = field(default_factory=dict[str, Message])  # steps not dispatched
    turns: dict[str, Message] = field(default_factory=dict[str, Message])  # wake-ups not dispatched
    effects: dict[str, Message] = field(default_factory=dict[str, Message])  # not carried out
    steps: dict[tuple[int, int], str] = field(
        default_factory=dict[tuple[int, int], str]
    )  # (step, attempt) → the message that asks for it; a second one is only deleted

    def add(self, message_id: str, message: Message, epoch: int) -> None:
        """Take in a message that exists in the store."""
        self.all[message_id] = message
        self.epochs[message_id] = epoch
        if message.kind is MessageKind.STEP:
            self.waiting[message_id] = message
            self.steps.setdefault((message.id, message.attempt), message_id)
        elif message.kind is MessageKind.TURN:
            self.turns[message_id] = message
        elif message.kind is MessageKind.EFFECT:
            self.effects[message_id] = message
        else:
            self.inputs[message_id] = message

    def remove(self, message_id: str) -> None:
        """Forget a message that was handled."""
        message = self.all.pop(message_id, None)
        if message is None:
            return
        del self.epochs[message_id]
        self.inputs.pop(message_id, None)
        self.waiting.pop(message_id, None)
        self.turns.pop(message_id, None)
        self.effects.pop(message_id, None)
        key = message.id, message.attempt
        if self.steps.get(key) == message_id:
            del self.steps[key]

    def without_effects(self) -> list[str]:
        """Return the messages that end with the run."""
        return [id_ for id_, m in self.all.items() if m.kind is not MessageKind.EFFECT]

    def sort_effects(self) -> None:
        """Have the effects in the order in which they were added to the store."""
        order = sorted(self.effects, key=message_order)
        self.effects = {message_id: self.effects[message_id] for message_id in order}

    def put_back(self, message_id: str) -> None:
        """Make a dispatched message dispatchable again."""
        message = self.all.get(message_id)
        if message is not None:
            self.add(message_id, message, self.epochs[message_id])

    def is_moot(self, message_id: str, message: Message, view: RunView) -> bool:
        """Whether a step's message asks for an attempt that is over, or asked for already."""
        step = view.steps.get(message.id)
        if step is None or step.attempt != message.attempt:
            return True
        return self.steps.setdefault((message.id, message.attempt), message_id) != message_id

    def may_have_started(self, message_id: str, lease: Lease) -> bool:
        """Whether an earlier owner has, perhaps, dispatched this message."""
        epoch = self.epochs[message_id]
        return epoch > lease.rested_epoch and epoch not in (0, lease.epoch)

    def take_startable(self, view: RunView, lease: Lease) -> list[tuple[str, Message]]:
        """Take the steps that may start now; what must be recorded or dropped first stays."""
        taken = [
            (message_id, message)
            for message_id, message in self.waiting.items()
            if not self.is_moot(message_id, message, view)
            and not self.may_have_started(message_id, lease)
        ]
        if len(taken) == len(self.waiting):
            self.waiting = {}
        for message_id, _ in taken if self.waiting else ():
            del self.waiting[message_id]
        return taken
