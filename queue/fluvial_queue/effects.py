"""Effects: what a run asks for in another run, as messages of its own partition.

Another run lives in another partition, so what happens to it cannot be part of the commit that
asks for it (on a cluster it is another slot). The commit leaves an EFFECT message instead; the
owner carries it out, which is idempotent at the target, and then deletes the message. Effects
outlive their run. Those for one target are carried out in order.

    start      create a run: a child, or the next one after continue_as_new
    tell       send a run the end of its child
    cancel     ask a run to cancel         terminate  end it at once
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fluvial.events import Event, EventType
from fluvial_queue.contract import StartRun
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.views import ChildView, RunView

POLICIES: Final = frozenset({"cancel", "terminate", "abandon", "detach"})
LATEST: Final = "latest"  # instead of a deployment: the app's production at that moment

_STATUS: Final = {
    EventType.RUN_COMPLETED: "completed",
    EventType.RUN_FAILED: "failed",
    EventType.RUN_CANCELLED: "cancelled",
    EventType.RUN_TERMINATED: "terminated",
}
# What a child inherits unless its start says otherwise, and a continued run in any case.
_OPTIONS: Final = ("tags", "delay_ms", "deadline_ms", "retention_ms")


def start_child(view: RunView, event: Event) -> bytes:
    """Return the effect that starts the child that CHILD_SCHEDULED asks for."""
    asked = event.meta
    meta: dict[str, Any] = {"root": view.meta.get("root", view.run_id)}
    if asked["policy"] != "detach":
        meta |= {"parent": view.run_id, "operation": event.id}
    options: dict[str, Any] = {name: asked[name] for name in _OPTIONS if name in asked}
    if view.retention_ms is not None:
        options.setdefault("retention_ms", view.retention_ms)
    priority = asked.get("priority", view.priority)
    return _start(
        view,
        run_id=asked["run"],
        workflow=asked["workflow"],
        key=asked.get("key", ""),
        deployment=asked.get("deployment", view.deployment),
        meta=meta | ({"priority": priority} if priority else {}),
        options=options,
        payload=event.payload,
    )


def start_next(view: RunView, event: Event, tags: Mapping[str, str], now_ms: int) -> bytes:
    """Return the effect that starts the run that goes on in this one's place."""
    meta = dict(view.meta)
    meta["first"] = view.meta.get("first", view.run_id)
    meta["hops"] = view.meta.get("hops", 0) + 1
    options: dict[str, Any] = {"tags": dict(tags)}
    if view.retention_ms is not None:
        options["retention_ms"] = view.retention_ms
    if "deadline_at" in meta:
        options["deadline_ms"] = max(0, meta["deadline_at"] - now_ms)
    return _start(
        view,
        run_id=event.meta["run"],
        workflow=view.workflow,
        key="",
        deployment=event.meta.get("deployment", view.deployment),
        meta=meta,
        options=options,
        payload=event.payload,
    )


def tell_parent(view: RunView, event: Event) -> bytes | None:
    """Return the effect that tells a run's parent of its end; None: nobody is to be told."""
    parent = view.meta.get("parent")
    if parent is None or event.type not in _STATUS:
        return None
    meta = {
        "do": "tell",
        "run": parent,
        "operation": view.meta["operation"],
        "first": view.meta.get("first", view.run_id),
        "hops": view.meta.get("hops", 0),
        "child": view.run_id,
        "status": _STATUS[event.type],
        "reason": str(event.meta.get("reason", "")),
    }
    return Message(MessageKind.EFFECT, view.run_id, 0, 0, meta, event.payload).encode()


def close_child(view: RunView, child_id: int, child: ChildView) -> bytes | None:
    """Return what becomes of an unfinished child when its parent ends or gives it up."""
    if child.policy not in ("cancel", "terminate"):
        return None
    meta = {"do": child.policy, "run": child.run_id, "reason": "parent_ended"}
    return Message(MessageKind.EFFECT, view.run_id, child_id, 0, meta).encode()


def target_of(message: Message) -> str:
    """Return the run that an effect is for."""
    return str(message.meta["run"])


def is_start(message: Message) -> bool:
    """Whether an effect creates a run."""
    return bool(message.meta["do"] == "start")


def started_run(message: Message, app: str, deployment: str, now_ms: int) -> StartRun:
    """Return the run that a `start` effect creates."""
    asked, options = message.meta, message.meta["options"]
    meta = dict(asked["meta"])
    if "deadline_ms" in options:
        meta["deadline_at"] = now_ms + options["deadline_ms"]
    return StartRun(
        run_id=target_of(message),
        app=app,
        workflow=asked["workflow"],
        deployment=deployment,
        input=message.payload,
        key=asked["key"],
        meta=meta,
        is_carried=True,
        **options,
    )


def child_message(message: Message) -> bytes:
    """Return the message with which a `tell` effect reaches the parent."""
    about = {name: message.meta[name] for name in ("first", "hops", "child", "status", "reason")}
    parent, operation = target_of(message), int(message.meta["operation"])
    return Message(MessageKind.CHILD, parent, operation, 0, about, message.payload).encode()


def steering_message(message: Message) -> bytes:
    """Return the message with which a `cancel` or `terminate` effect reaches its target."""
    kind = MessageKind(message.meta["do"])
    return Message(kind, target_of(message), meta={"reason": message.meta["reason"]}).encode()


def _start(
    view: RunView,
    *,
    run_id: str,
    workflow: str,
    key: str,
    deployment: str,
    meta: dict[str, Any],
    options: dict[str, Any],
    payload: bytes,
) -> bytes:
    about = {
        "do": "start",
        "run": run_id,
        "workflow": workflow,
        "key": key,
        "deployment": deployment,
        "meta": meta,
        "options": options,
    }
    operation = meta.get("operation", 0)
    return Message(MessageKind.EFFECT, view.run_id, operation, 0, about, payload).encode()
