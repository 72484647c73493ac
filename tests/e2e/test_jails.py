"""An app that asks for a jail gets one, by the whole platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.e2e.histories import start_run, wait_for_result
from tests.e2e.installation import Platform

APP: Final = Path(__file__).parent / "apps" / "jailed"


def test_requests_and_runs_are_served_in_a_jail(running: Platform) -> None:
    app = running.deploy(APP)
    with app.client() as client:
        answer = client.get("/").raise_for_status().text
    result = wait_for_result(running, start_run(running, app.name, "looking"))

    assert answer == "1"
    assert result["status"] == "completed", running.logs()
    assert result["result"] == [1, 0]


def test_the_doctor_says_which_tiers_there_are(running: Platform) -> None:
    found = json.loads(running.command("doctor", "--json").stdout)
    details = {finding["check"]: finding["detail"] for finding in found}

    assert details["isolation"].startswith("process")
