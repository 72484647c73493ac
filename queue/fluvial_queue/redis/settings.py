"""What `open` checks: the server's version and settings, and what they promise.

    durability  appendonly  appendfsync   an acknowledged write survives
    memory      no          -             nothing
    process     yes         no, everysec  the end of the server's process. (With everysec but for
                                          up to two seconds while the disk is slow; power loss
                                          costs about that much, too. With no: half a minute.)
    disk        yes         always        power loss

Where CONFIG is forbidden, as with many managed servers, the URL's `?durability=` is believed, else
`memory` is assumed.
"""

from __future__ import annotations

from typing import Any, Final

from fluvial_queue.contract import Durability, StoreError, StoreUnavailableError, UnsafeStoreError
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.link import Link

_LEAST_VERSION: Final = (7, 0)
_RANK: Final[tuple[Durability, ...]] = ("memory", "process", "disk", "replicated")


async def check_server(link: Link, address: Address) -> Durability:
    """Return the server's durability.

    Raises:
        UnsafeStoreError: it is too old, evicts keys, or is less durable than the URL says.
    """
    info = _parse_info(await link.call(("INFO",), writes=False))
    _check_version(info)
    _check_mode(info)
    config = await _config(link)
    policy = config.get("maxmemory-policy", info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise UnsafeStoreError(
            f"the store's maxmemory-policy is {policy}, which deletes runs when memory is short: "
            "run CONFIG SET maxmemory-policy noeviction (and put it into its configuration file)"
        )
    return _durability(config, address)


def _check_version(info: dict[str, str]) -> None:
    text = info.get("redis_version", "0")
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < _LEAST_VERSION:
        raise UnsafeStoreError(f"the store is Redis {text}; at least 7.0 or any Valkey is needed")


def _check_mode(info: dict[str, str]) -> None:
    if info.get("cluster_enabled") == "1":
        raise UnsafeStoreError(
            "the store is a node of a cluster (cluster-enabled yes), which is not supported yet"
        )
    if info.get("role", "master") != "master":
        raise StoreUnavailableError("the store is a replica: name the primary")


async def _config(link: Link) -> dict[str, str]:
    command = ("CONFIG", "GET", "maxmemory-policy", "appendonly", "appendfsync")
    try:
        reply: list[bytes] = await link.call(command, writes=False)
    except StoreUnavailableError:
        raise
    except StoreError:  # the server does not allow us to look
        return {}
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _durability(config: dict[str, str], address: Address) -> Durability:
    stated = address.durability
    if "appendonly" not in config:
        return stated or "memory"
    found: Durability = "memory"
    if config["appendonly"] == "yes":
        found = "disk" if config["appendfsync"] == "always" else "process"
    if stated is not None and _RANK.index(stated) > _RANK.index(found):
        raise UnsafeStoreError(
            f"the store's URL says durability={stated}, but with appendonly {config['appendonly']} "
            f"and appendfsync {config['appendfsync']} it is {found}: "
            "set appendonly yes, and appendfsync always for disk or no for process"
        )
    return found


def _parse_info(reply: Any) -> dict[str, str]:
    lines = reply.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
