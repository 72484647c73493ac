"""`StartOptions`: what a start may say beside the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from fluvial.durations import Duration, to_seconds
from fluvial.errors import InvalidRequestError

MAX_TAGS: Final = 64  # as many as Vercel's attributes
MAX_TAG_CHARACTERS: Final = 256
MAX_PRIORITY: Final = 100
MAX_SINGLETON_CHARACTERS: Final = 512

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How a run is started.

    `delay` or `at`: when it begins; it exists, and can be cancelled, from now on.
    `deadline`: how long it may take from now on; then it is cancelled (its clean-up still runs).
    `tags`: names and values in clear, by which runs are found; `fluvial.set_tags` changes them.
    `priority`: runs with a greater one go first where steps of a deployment wait; -100 to 100.
    `retention`: how long it can be looked at once it has ended; default: the platform's.
    `deployment`: "pinned" (the caller's own) or "latest" (the app's production at that moment).
    `singleton`: at most one run of the app with this text is alive; `on_conflict` says what
    happens where there is one: the start is refused, returns that run, or cancels it first.

    Only for a start inside a workflow, which makes a child run:

    `on_parent_end`: what becomes of the child when its parent ends before it.
    `detached`: nobody waits for it, and it goes on by itself.
    """

    delay: Duration | None = None
    at: datetime | None = None
    deadline: Duration | None = None
    tags: Tags = field(default_factory=dict[str, str])
    priority: int | None = None
    retention: Duration | None = None
    deployment: Literal["pinned", "latest"] = "pinned"
    singleton: str | None = None
    on_conflict: Literal["reject", "existing", "replace"] = "reject"
    on_parent_end: Literal["cancel", "terminate", "abandon"] = "cancel"
    detached: bool = False

    def __post_init__(self) -> None:
        if self.delay is not None and self.at is not None:
            raise InvalidRequestError("a start has a delay or a time (at), not both")
        if self.at is not None and self.at.tzinfo is None:
            raise InvalidRequestError(f"at needs a datetime with a time zone, got {self.at!r}")
        check_tags(self.tags)
        if self.priority is not None and abs(self.priority) > MAX_PRIORITY:
            raise InvalidRequestError(
                f"priority must be -{MAX_PRIORITY} to {MAX_PRIORITY}, got {self.priority}"
            )
        if self.singleton is not None and not 1 <= len(self.singleton) <= MAX_SINGLETON_CHARACTERS:
            raise InvalidRequestError(
                f"singleton must have 1 to {MAX_SINGLETON_CHARACTERS} characters"
            )

    def delay_ms(self, now_seconds: float) -> int:
        """How long from now on the run's begin waits; `now_seconds` is Unix time."""
        if self.at is not None:
            return max(0, round((self.at.timestamp() - now_seconds) * 1000))
        return 0 if self.delay is None else _milliseconds(self.delay, "delay")

    def to_meta(self, now_seconds: float) -> dict[str, Any]:
        """Return what differs from the defaults, as plain values for the platform."""
        meta: dict[str, Any] = {}
        if delay_ms := self.delay_ms(now_seconds):
            meta["delay_ms"] = delay_ms
        if self.deadline is not None:
            meta["deadline_ms"] = _milliseconds(self.deadline, "deadline")
        if self.retention is not None:
            meta["retention_ms"] = _milliseconds(self.retention, "retention")
        if self.tags:
            meta["tags"] = dict(self.tags)
        if self.priority is not None:
            meta["priority"] = self.priority
        if self.deployment == "latest":
            meta["deployment"] = "latest"
        if self.singleton is not None:
            meta |= {"singleton": self.singleton, "on_conflict": self.on_conflict}
        return meta

    def to_request(self) -> dict[str, Any]:
        """Return what differs from the defaults as the control API takes it; what is only for
        children is left out."""
        request: dict[str, Any] = {}
        for name, span in self._spans():
            if span is not None:
                request[name] = to_seconds(span, name)
        if self.at is not None:
            request["at"] = self.at.isoformat()
        if self.tags:
            request["tags"] = dict(self.tags)
        if self.priority is not None:
            request["priority"] = self.priority
        if self.deployment == "latest":
            request["deployment"] = "latest"
        if self.singleton is not None:
            request |= {"singleton": self.singleton, "on_conflict": self.on_conflict}
        return request

    def _spans(self) -> list[tuple[str, Duration | None]]:
        return [
            ("delay", self.delay),
            ("deadline", self.deadline),
            ("retention", self.retention),
        ]


def check_tags(tags: Mapping[str, str | None]) -> None:
    """Refuse tags that are too many, too long, or not texts.

    Raises:
        InvalidRequestError: the message names the tag and the limit.
    """
    if len(tags) > MAX_TAGS:
        raise InvalidRequestError(f"a run has at most {MAX_TAGS} tags, got {len(tags)}")
    for name, value in tags.items():
        for text in (name, "" if value is None else value):
            if type(text) is not str or len(text) > MAX_TAG_CHARACTERS:
                raise InvalidRequestError(
                    f"tag {name!r}: names and values are texts of at most"
                    f" {MAX_TAG_CHARACTERS} characters"
                )
        if not name:
            raise InvalidRequestError("a tag's name must not be empty")


def _milliseconds(duration: Duration, what: str) -> int:
    return round(to_seconds(duration, what) * 1000)


DEFAULT_OPTIONS: Final = StartOptions()
