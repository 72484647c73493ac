"""What the manifest may say of the network."""

from __future__ import annotations

import pytest

from fluvial.networks import parse_network, ports_of


@pytest.mark.parametrize(
    ("value", "text", "ports"),
    [
        (True, "all", None),
        (False, "none", None),
        ([443], "443", (443,)),
        ([5432, 443, 443], "443,5432", (443, 5432)),
    ],
)
def test_a_network_is_kept_as_text(value: object, text: str, ports: tuple[int, ...] | None) -> None:
    assert parse_network(value) == text
    assert ports_of(text) == ports


@pytest.mark.parametrize(
    "value", ["all", 443, [], [0], [65536], ["443"], [True], [443, "80"], list(range(1, 100)), None]
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_network(value)
