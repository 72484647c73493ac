from __future__ import annotations

import json
import logging

from fluvial_gateway.logs import JsonFormatter

TOKEN = "flv_" + "A-z_0" * 8


def _line(message: str, *arguments: object, **extra: object) -> dict[str, object]:
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, __file__, 1, message, arguments, None, extra=extra
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_line_has_what_was_said_and_its_extra() -> None:
    line = _line("deployed %s", "it", app="shop", number=3, odd={1, 2} and frozenset({1}))

    assert line["message"] == "deployed it"
    assert line["level"] == "info"
    assert (line["app"], line["number"]) == ("shop", 3)
    assert line["odd"] == "frozenset({1})"


def test_secrets_are_redacted_wherever_they_stand() -> None:
    line = _line(
        f"token {TOKEN}\nnext",
        url="redis://user:hunter2@host:1/0",
        header="Bearer abcdefghijklmnopqrstuv",
    )

    assert TOKEN not in str(line)
    assert "hunter2" not in str(line)
    assert "abcdefghijklm" not in str(line)
    assert line["url"] == "redis://[redacted]@host:1/0"


def test_a_password_with_an_at_sign_is_redacted_to_its_end() -> None:
    line = _line("cannot reach redis://user:hun@ter2@host:1/0")

    assert line["message"] == "cannot reach redis://[redacted]@host:1/0"


def test_traceback_is_one_field() -> None:
    try:
        raise ValueError(TOKEN)
    except ValueError as error:
        record = logging.LogRecord("t", logging.ERROR, "f", 1, "m", (), (type(error), error, None))
    line = json.loads(JsonFormatter().format(record))

    assert "ValueError" in line["traceback"]
    assert TOKEN not in line["traceback"]
