"""What of the network an instance may use, as the manifest says it and as settings keep it.

Kept as a text: "all", "none", or the TCP ports that may be dialled, such as "443,5432".
"""

from __future__ import annotations

from typing import Final, cast

ALL_NETWORK: Final = "all"
NO_NETWORK: Final = "none"
MAX_PORTS: Final = 64
_LAST_PORT: Final = 65535


def parse_network(value: object) -> str:
    """Return the text for true, false or a list of ports.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        return ALL_NETWORK if value else NO_NETWORK
    ports = cast("list[object]", value) if isinstance(value, list) else []
    numbers = {port for port in ports if isinstance(port, int) and not isinstance(port, bool)}
    if not 0 < len(ports) <= MAX_PORTS or len(numbers) < len(set(map(repr, ports))):
        raise ValueError(f"must be true, false or a list of 1 to {MAX_PORTS} TCP ports")
    if min(numbers) < 1 or max(numbers) > _LAST_PORT:
        raise ValueError(f"must have ports from 1 to {_LAST_PORT}")
    return ",".join(map(str, sorted(numbers)))


def ports_of(network: str) -> tuple[int, ...] | None:
    """Return the TCP ports that may be dialled; None: there is no list."""
    if network in (ALL_NETWORK, NO_NETWORK):
        return None
    return tuple(map(int, network.split(",")))
