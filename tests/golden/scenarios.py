"""How the golden logs are played: with which arguments, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from fluvial.workflows import Workflow
from tests.golden import workflows as golden
from tests.unit.fluvial.conftest import Action, Cancel, Resume, Wake


def _twice(number: int) -> int:
    return 2 * number


def _order(number: int) -> golden.Order:
    return golden.Order(number, golden.Colour.BLUE, Decimal("1.50"), ("x", "y"))


_LONG: Final = {"slow": 5000}  # milliseconds that a step takes
CHILDREN: Final[dict[str, Any]] = {
    "golden.child": _twice,
    "golden.failing_child": ValueError("no"),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One playing of a workflow."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...] = ()
    actions: Sequence[Action] = ()
    durations: Mapping[str, int] = field(default_factory=dict[str, int])


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "sequence": Scenario(golden.sequence, (4,)),
    "retries": Scenario(golden.retries),
    "gather": Scenario(golden.gather, durations={"slow": 7, "plain": 3}),
    "timeouts": Scenario(golden.timeouts, durations=_LONG),
    "hooks": Scenario(
        golden.hooks,
        actions=[
            Resume(
                10,
                {"number": 7, "colour": "red", "price": "1.5", "lines": ["x"]},
                token="order:7",
                as_json=True,
            ),
            Resume(20, 1),
            Resume(21, {"a": [1.5, None]}, as_json=True),
            Resume(30, "last"),
            Resume(40, None, token="taken", conflict=True),
        ],
    ),
    "talking": Scenario(
        golden.talking,
        actions=[
            Resume(0, None, token="held", conflict=True),
            Resume(10, _order(1), ask=True, resume="1"),
            Resume(20, _order(-1), ask=True, resume="2"),
            Resume(30, {"number": "x"}, ask=True, resume="3", as_json=True),
            Resume(40, _order(2), resume="4"),
            Resume(50, _order(9), ask=True, resume="5"),
        ],
    ),
    "cancelled": Scenario(golden.cancelled, actions=[Cancel(100)], durations=_LONG),
    "failed_steps": Scenario(golden.failed_steps),
    "failed": Scenario(golden.failed),
    "chance": Scenario(golden.chance),
    "tasks": Scenario(golden.tasks, durations={"slow": 2000}),
    "generators": Scenario(golden.generators),
    "groups": Scenario(golden.groups, durations=_LONG),
    "values": Scenario(
        golden.values,
        (
            golden.Order(1, golden.Colour.RED, Decimal("0.10"), ()),
            datetime(2024, 5, 17, 12, 30, tzinfo=UTC),
        ),
    ),
    "patches": Scenario(golden.patches),
    "children": Scenario(golden.children),
    "continued": Scenario(golden.continued, (3,)),
    "wake": Scenario(golden.wake, actions=[Wake(60_000)]),
    "early_end": Scenario(golden.early_end, durations=_LONG),
}
