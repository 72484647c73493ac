"""Checks: what a *check* invocation asks and answers.

A check replays the log of a run on whatever deployment it is sent to and proposes nothing, so it
disturbs neither the run nor its live coroutine. The frames are those of `fluvial.invocations`; the
answer's body is a msgpack array of texts: the verdict, its detail, and then warnings.

Verdicts:

    ok          the code asks for what the log recorded
    diverged    it does not; the detail is the diff
    unreadable  the log cannot be replayed here at all: its key is gone, or it is damaged
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import msgpack

from fluvial.errors import WireError
from fluvial.invocations import MAX_REASON_CHARACTERS, Revealed, pack_events, unpack_events

CHECK: Final = "check"  # the kind of invocation
MAX_WARNINGS: Final = 20
_MAX_WARNING_CHARACTERS: Final = 1000
_VERDICTS: Final = frozenset({"ok", "diverged", "unreadable"})

Verdict = Literal["ok", "diverged", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """Replay a log, of which earlier turns have consumed the first `consumed` inputs."""

    run_id: str
    app: str
    workflow: str
    consumed: int
    compares_values: bool  # the arguments of steps and the result too; differences are warnings
    events: Sequence[bytes]
    partitions: int = 1  # of the store

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {
            "run": self.run_id,
            "app": self.app,
            "workflow": self.workflow,
            "consumed": self.consumed,
            "values": self.compares_values,
            "partitions": self.partitions,
        }
        return CHECK, meta, pack_events(self.events)

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> CheckRequest:
        return cls(
            run_id=meta["run"],
            app=meta["app"],
            workflow=meta["workflow"],
            consumed=meta["consumed"],
            compares_values=meta["values"],
            events=unpack_events(body),
            partitions=meta.get("partitions", 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check has found; for people, without data of the run."""

    verdict: Verdict
    detail: str = ""
    warnings: Sequence[str] = ()  # at most MAX_WARNINGS

    def to_body(self) -> bytes:
        return msgpack.packb([self.verdict, self.detail, *self.warnings[:MAX_WARNINGS]])

    @classmethod
    def from_texts(cls, texts: Sequence[Revealed]) -> CheckReport:
        """Return the report that an answer's texts are.

        Raises:
            WireError: they are none.
        """
        found = [text for text in texts if isinstance(text, str)]
        if len(found) < 2 or len(found) != len(texts) or found[0] not in _VERDICTS:
            raise WireError("the answer to a check is not a report")
        return cls(
            verdict=cast("Verdict", found[0]),  # checked against _VERDICTS above
            detail=found[1][:MAX_REASON_CHARACTERS],
            warnings=[text[:_MAX_WARNING_CHARACTERS] for text in found[2 : 2 + MAX_WARNINGS]],
        )
