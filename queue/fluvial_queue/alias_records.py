"""Where an app's aliases stood, and how they moved.

The newest move stands in the app's record, so it is written with the move itself. Before the next
one replaces it, it goes into the history, which nothing on a hot path reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

PRODUCTION: Final = "production"
MAX_MOVES: Final = 100  # that a history keeps, of all aliases of an app together

MoveReason = Literal["deploy", "promote", "rollback", "rollout", "set", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One move of an alias."""

    alias: str
    before: str | None  # a deployment's id
    after: str | None  # None: the alias was removed
    at_ms: int
    by: str  # whoever asked for it, as the audit log names them
    reason: MoveReason

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.alias, self.before, self.after, self.at_ms, self.by, self.reason]

    @classmethod
    def from_list(cls, value: list[Any]) -> Self:
        """Return the move that `to_list` made `value` from."""
        alias, before, after, at_ms, by, reason = value[:6]
        return cls(alias=alias, before=before, after=after, at_ms=at_ms, by=by, reason=reason)


@dataclass(frozen=True, slots=True)
class LeftDeployment:
    """A deployment on which an alias stood, and when the last one left it."""

    deployment: str
    at_ms: int

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.deployment, self.at_ms]


@dataclass(frozen=True, slots=True)
class AliasHistory:
    """Kind `history`; the id is the app's name."""

    moves: tuple[AliasMove, ...] = ()  # oldest first

    def with_move(self, move: AliasMove) -> AliasHistory:
        """Return the history with its newest move, which it may hold already."""
        if move in self.moves:
            return self
        return AliasHistory((*self.moves, move)[-MAX_MOVES:])

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {"moves": [move.to_list() for move in self.moves]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        return cls(tuple(AliasMove.from_list(move) for move in value["moves"]))
