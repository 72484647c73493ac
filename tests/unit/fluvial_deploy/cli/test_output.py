"""How the command line shows one thing."""

from __future__ import annotations

import pytest

from fluvial_deploy.cli.output import show


def test_text_of_several_lines_stays_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show({"run_id": "run_1", "reason": "now\n  - recorded: a\n  + now: \x1b[2J"}, as_json=False)

    assert capsys.readouterr().out.splitlines() == [
        "run_id  run_1",
        "reason  now",
        "          - recorded: a",
        "          + now: \N{REPLACEMENT CHARACTER}[2J",
    ]
