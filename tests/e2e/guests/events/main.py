"""A target of functions-framework that takes CloudEvents."""

import functions_framework
from cloudevents.http import CloudEvent


@functions_framework.cloud_event
def on_event(event: CloudEvent) -> None:
    """Refuse one kind of event."""
    if event["type"] == "bad":
        raise ValueError(event.data)
