"""Which deployments of an app are kept, and which may go: a rule with a number and an age.

A deployment is kept if it is one of the newest so many of its app, or younger than so long, or if
an alias stands on it or did until lately, or a rollout leads to it. What is left may go where no
run needs it; that is looked at by whoever deletes it (`removals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fluvial_gateway.aliases import aliases_of
from fluvial_queue.records import AppRecord, DeploymentRecord

_DAY_MS: Final = 24 * 3600 * 1000
DEFAULT_PIN_MS: Final = _DAY_MS // 2


@dataclass(frozen=True, slots=True)
class KeepingRule:
    """How many of an app's newest deployments are kept, and how long each is in any case."""

    count: int = 20
    age_ms: int = 30 * _DAY_MS

    def of(self, app: AppRecord) -> KeepingRule:
        """Return the rule for an app: its own where it has one."""
        return KeepingRule(
            self.count if app.keep_count is None else app.keep_count,
            self.age_ms if app.keep_ms is None else app.keep_ms,
        )


def pin_ms(app: AppRecord) -> int:
    """Return how long clients may go on with a deployment that no alias stands on any more."""
    return DEFAULT_PIN_MS if app.pin_ms is None else app.pin_ms


def pinnable(app: AppRecord, now_ms: int) -> set[str]:
    """Return the deployments with which clients may go on although no alias stands on them now."""
    retiring = {entry.deployment for entry in app.retiring}
    lately = {entry.deployment for entry in app.left if now_ms < entry.at_ms + pin_ms(app)}
    return lately - retiring


def superfluous(
    app: AppRecord, deployments: Sequence[DeploymentRecord], rule: KeepingRule, now_ms: int
) -> list[DeploymentRecord]:
    """Return those of an app's deployments that need not be kept, oldest first.

    Args:
        app: whose they are.
        deployments: all of the app's, newest first.
        rule: the platform's.
        now_ms: the store's time.
    """
    rule = rule.of(app)
    named = {*aliases_of(app).values(), app.previous}
    named.update(entry.deployment for entry in app.retiring)
    named.update(pinnable(app, now_ms))
    if app.rollout is not None and app.rollout.is_active:
        named.add(app.rollout.deployment)
    return [
        deployment
        for deployment in reversed(deployments[rule.count :])
        if deployment.created_ms + rule.age_ms < now_ms and deployment.spec.deployment not in named
    ]
