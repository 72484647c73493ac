"""Which deployments of an app need not be kept."""

from __future__ import annotations

import pytest

from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial_gateway.keeping import KeepingRule, superfluous
from fluvial_queue.records import AppRecord, DeploymentRecord

NOW_MS = 1000


def deployment(number: int) -> DeploymentRecord:
    """A deployment that was made `number` ms after the beginning."""
    spec = DeploymentSpec(
        deployment=f"dpl_{number}",
        app="shop",
        bundle="",
        layer="",
        entrypoint=None,
        workflows=(),
        instance=InstanceSettings(),
    )
    return DeploymentRecord(spec=spec, created_ms=number)


ALL = [deployment(number) for number in (900, 500, 400, 300, 200)]
APP = AppRecord(app="shop", production="dpl_900")


@pytest.mark.parametrize(
    ("app", "rule", "expected"),
    [
        (APP, KeepingRule(1, 0), [200, 300, 400, 500]),
        (APP, KeepingRule(3, 0), [200, 300]),
        (APP, KeepingRule(1, 650), [200, 300]),
        (APP, KeepingRule(9, 0), []),
        (AppRecord(app="shop", production="dpl_200"), KeepingRule(1, 0), [300, 400, 500]),
        (AppRecord(app="shop", previous="dpl_300"), KeepingRule(1, 0), [200, 400, 500]),
        (AppRecord(app="shop", aliases={"qa": "dpl_400"}), KeepingRule(1, 0), [200, 300, 500]),
        (AppRecord(app="shop", keep_count=4), KeepingRule(1, 0), [200]),
        (AppRecord(app="shop", keep_ms=750), KeepingRule(1, 0), [200]),
    ],
    ids=[
        *("all but the newest", "all but the newest three", "all that are old enough"),
        *("none", "not production", "not the one before", "not an alias's"),
        *("by the app's own number", "by the app's own age"),
    ],
)
def test_what_is_old_and_unnamed_is_superfluous(
    app: AppRecord, rule: KeepingRule, expected: list[int]
) -> None:
    found = superfluous(app, ALL, rule, NOW_MS)

    assert [each.created_ms for each in found] == expected
