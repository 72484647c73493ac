"""What a start may say beside the arguments, checked: it comes from user code or from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import StartRun
from fluvial_queue.proposals import (
    MAX_DELAY_MS,
    MAX_PRIORITY,
    InvalidProposalError,
    check_tags,
)

MAX_SINGLETON_CHARACTERS: Final = 512
OnConflict = Literal["reject", "existing", "replace"]
ON_CONFLICT: Final[tuple[OnConflict, ...]] = ("reject", "existing", "replace")
_TIMES: Final = ("delay_ms", "deadline_ms", "retention_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How a run is started; times are milliseconds from now on."""

    delay_ms: int = 0
    at_ms: int | None = None  # instead of a delay: a moment, in Unix time
    deadline_ms: int | None = None
    retention_ms: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    is_latest: bool = False
    singleton: str = ""
    on_conflict: OnConflict = "reject"

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> StartOptions:
        """Return the options that a map of plain values holds; other keys are left alone.

        Raises:
            InvalidRequestError: one of them is wrong; the message names it and its limit.
        """
        times = {name: _milliseconds(plain, name) for name in _TIMES if plain.get(name) is not None}
        return cls(
            **times,
            tags=tags_of(plain.get("tags")),
            priority=_priority(plain.get("priority", 0)),
            is_latest=plain.get("deployment") == "latest",
            singleton=_singleton(plain.get("singleton")),
            on_conflict=_on_conflict(plain.get("on_conflict", "reject")),
        )

    def applied(self, run: StartRun, now_ms: int) -> StartRun:
        """Return a start as these options want it; `now_ms` is the store's time.

        Raises:
            InvalidRequestError: its deadline would pass before it begins, or it would never begin.
        """
        meta = dict(run.meta)
        delay_ms = self.delay_ms if self.at_ms is None else max(0, self.at_ms - now_ms)
        if delay_ms > MAX_DELAY_MS:
            raise InvalidRequestError("at: expected a time within the next hundred years")
        if self.deadline_ms is not None and self.deadline_ms <= delay_ms:
            raise InvalidRequestError(
                f"deadline: {self.deadline_ms} ms from now on would pass before the run begins, in "
                f"{delay_ms} ms"
            )
        if self.priority:
            meta["priority"] = self.priority
        if self.deadline_ms is not None:
            meta["deadline_at"] = now_ms + self.deadline_ms
        if delay_ms:
            meta["start_at"] = now_ms + delay_ms
        return replace(
            run,
            meta=meta,
            tags=self.tags,
            delay_ms=delay_ms,
            deadline_ms=self.deadline_ms,
            retention_ms=self.retention_ms,
        )


NO_OPTIONS: Final = StartOptions()


def tags_of(value: object) -> dict[str, str]:
    """Return tags: names and texts.

    Raises:
        InvalidRequestError: they are something else, or too many, or too long.
    """
    if value is None:
        return {}
    tags = tag_change_of(value)
    if None in tags.values():
        raise InvalidRequestError("tags: a new run has no tags to take away")
    return cast("dict[str, str]", tags)


def tag_change_of(value: object) -> dict[str, str | None]:
    """Return a change of tags: names and texts, or None to take one away.

    Raises:
        InvalidRequestError: it is something else, or too much.
    """
    try:
        return check_tags(value)
    except InvalidProposalError as error:
        raise InvalidRequestError(str(error)) from None


def _milliseconds(plain: Mapping[str, Any], name: str) -> int:
    value: Any = plain[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_DELAY_MS:
        raise InvalidRequestError(f"{name}: expected 0 to {MAX_DELAY_MS} (a hundred years)")
    return value


def _priority(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_PRIORITY:
        raise InvalidRequestError(f"priority: expected -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return value


def _singleton(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_SINGLETON_CHARACTERS:
        raise InvalidRequestError(
            f"singleton: expected text of 1 to {MAX_SINGLETON_CHARACTERS} characters"
        )
    return value


def _on_conflict(value: object) -> OnConflict:
    for known in ON_CONFLICT:
        if value == known:
            return known
    raise InvalidRequestError(f"on_conflict: expected one of {', '.join(ON_CONFLICT)}")
