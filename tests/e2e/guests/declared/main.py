"""A function that takes CloudEvents, without a package that would decorate it."""


def on_event(event: object) -> None:
    """Refuse one kind of event."""
    if event["type"] == "bad" or event.get_data() not in (b"data", {"a": 1}):
        raise ValueError(event.get_data())
