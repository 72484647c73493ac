"""Events as the control API shows them."""

from __future__ import annotations

import pytest

from fluvial.events import Event, EventType
from fluvial.hook_tokens import named_token, secret_token
from fluvial_gateway.control.views import event_view


def test_of_a_sealed_progress_only_its_size_is_shown() -> None:
    meta = {"attempt": 1, "reason": "heartbeat", "progress": bytes(1000)}

    shown = event_view(3, Event(EventType.ATTEMPT_LOST, 0, 7, meta=meta), shows_secrets=False)

    assert shown["meta"] == {"attempt": 1, "reason": "heartbeat", "progress_bytes": 1000}


RUN = "run_0000000000000000000000000a"
SECRET = secret_token(RUN, bytes(15))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (SECRET, SECRET[: -len("a" * 24)] + "…"),
        (named_token(RUN, "move"), named_token(RUN, "move")),
        ("order:7", "order:7"),
    ],
)
def test_a_token_that_is_a_right_is_hidden_from_those_who_do_not_have_it(
    token: str, shown: str
) -> None:
    event = Event(EventType.HOOK_OPENED, 0, 1, meta={"token": token})

    assert event_view(0, event, shows_secrets=False)["meta"] == {"token": shown}
    assert event_view(0, event, shows_secrets=True)["meta"] == {"token": token}
