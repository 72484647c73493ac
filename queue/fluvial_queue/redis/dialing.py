"""How a connection is made: dial, authenticate, send the greeting, all within one deadline."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from fluvial_queue.contract import StoreError, StoreFullError, StoreUnavailableError
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.protocol import Call, Wire
from fluvial_queue.redis.room import DiskRoom

Command = Sequence[str | bytes | int]

CONNECT_SECONDS: Final = 5.0


async def connect(address: Address, make_wire: Callable[[], Wire], greeting: list[Command]) -> Wire:
    """Return a connection on which every command of `greeting` has succeeded.

    Raises:
        StoreUnavailableError: no server answers, or it is still loading.
        StoreError: it refuses us.
    """
    wire = make_wire()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await _dial(address, wire)
            await _greet(wire, [*_credentials(address), *greeting])
    except StoreError:
        wire.abort()
        raise
    except OSError as error:  # TimeoutError and ssl.SSLError are such
        wire.abort()
        raise _unreachable(address, error) from error
    except BaseException:
        wire.abort()
        raise
    if wire.closed.done():
        raise StoreUnavailableError(f"{address} closed the connection at once")
    return wire


def _unreachable(address: Address, error: OSError) -> StoreUnavailableError:
    if address.folder is not None and not DiskRoom(address.folder).allows_a_server:
        return StoreFullError("the store's disk is full and the store has stopped: make room")
    return StoreUnavailableError(f"cannot reach {address}: {error!r}")


async def _dial(address: Address, wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    if address.path:
        await loop.create_unix_connection(lambda: wire, address.path)
        return
    tls = ssl.create_default_context(cafile=address.ca_file) if address.is_tls else None
    transport, _ = await loop.create_connection(lambda: wire, address.host, address.port, ssl=tls)
    # A peer that vanished without a word is found out even by a subscription, which never writes.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _greet(wire: Wire, greeting: list[Command]) -> None:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Any]] = []
    for command in greeting:
        future: asyncio.Future[Any] = loop.create_future()
        wire.send(Call(hiredis.pack_command(tuple(command)), False, future))
        futures.append(future)
    await asyncio.gather(*futures)


def _credentials(address: Address) -> list[Command]:
    commands: list[Command] = []
    if address.password is not None:
        user = [] if address.username is None else [address.username]
        commands.append(("AUTH", *user, address.password))
    if address.database:
        commands.append(("SELECT", address.database))
    return commands
