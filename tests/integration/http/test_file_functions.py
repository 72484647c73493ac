"""WebSockets of functions that have files of their own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.integration.http.served import PATIENCE_SECONDS, served
from tests.integration.invoker.conftest import Machine

FILES = {
    "api/rooms/[name]": "async def app(scope, receive, send):\n"
    "    assert scope['type'] == 'websocket', 'has no lifespan'\n"
    "    await receive()\n"
    "    await send({'type': 'websocket.accept'})\n"
    "    name = scope['path_params']['name']\n"
    "    await send({'type': 'websocket.send', 'text': f'{name} {scope[\"query_string\"]}'})\n"
    "    await send({'type': 'websocket.close'})\n",
    "api/plain": "def handler(request): return 'plain'\n",
}


def test_the_file_of_a_path_serves_its_websockets(shared_machine: Machine) -> None:
    spec = replace(
        shared_machine.spec(""),
        entrypoint=None,
        files=("api.plain:handler", "api.rooms.[name]:app"),
        bundle=shared_machine.bundle(**FILES),
    )

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), served(shared_machine, spec) as site:
            async with connect(site.url("/api/rooms/hall?a=1")) as person:
                assert await person.recv() == "hall b'a=1&name=hall'"
            with pytest.raises(InvalidStatus, match="404"):
                await connect(site.url("/api/elsewhere"))
            with pytest.raises(InvalidStatus, match="501"):
                await connect(site.url("/api/plain"))
            assert await site.get("/api/plain") == b"plain"

    asyncio.run(main())
