"""The embedded server: its files, its lock, its end."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_queue import open_store
from fluvial_queue.contract import Durability, StoreError, StoreUnavailableError
from fluvial_queue.redis.embedded import EmbeddedValkey

if TYPE_CHECKING:
    from tests.integration.queue.conftest import Lab

DURABLE: list[Durability] = ["process", "disk"]
ALL: list[Durability] = ["memory", *DURABLE]


@pytest.mark.parametrize("durability", ALL)
def test_store_finds_the_durability_that_the_server_has(lab: Lab, durability: Durability) -> None:
    async def main() -> None:
        server = await lab.server(durability)
        store = await lab.opened(open_store(server.url.partition("?")[0]))

        assert store.durability == durability

    lab.run(main)


@pytest.mark.parametrize("durability", DURABLE)
def test_data_survives_a_stop(lab: Lab, durability: Durability) -> None:
    async def main() -> None:
        server = await lab.server(durability)
        store = await lab.opened(open_store(server.url))
        await store.put_record("app", "a", {"v": 1})
        await store.close()
        await server.stop()
        assert server.pid is None
        await server.start()
        await store.open()

        assert await store.get_record("app", "a") is not None

    lab.run(main)


def test_partitions_are_chosen_once(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()
        first = await lab.opened(open_store(f"{server.url}&partitions=8"))
        second = await lab.opened(open_store(f"{server.url}&partitions=16"))

        assert (first.partitions, second.partitions) == (8, 8)

    lab.run(main)


def test_only_its_user_may_connect(lab: Lab) -> None:
    async def main() -> None:
        await lab.server()

        assert stat.S_IMODE((lab.folder / "s").stat().st_mode) == 0o700

    lab.run(main)


def test_second_server_on_one_directory_is_refused(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()
        other = EmbeddedValkey(lab.folder, durability="disk", socket_path=lab.folder / "other")

        with pytest.raises(StoreUnavailableError, match=rf"pid {server.pid}\b"):
            await other.start(predecessor_seconds=0.05)
        store = await lab.opened(open_store(server.url))
        assert await store.now_ms() > 0

    lab.run(main)


def test_cut_off_append_only_file_is_loaded(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("disk")
        store = await lab.opened(open_store(server.url))
        await store.put_record("app", "a", {"v": 1})
        await lab.kill(server)
        (log,) = (lab.folder / "appendonlydir").glob("*.incr.aof")
        with log.open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf a val")
        await server.start()

        await store.close()
        await store.open()
        assert await store.get_record("app", "a") is not None

    lab.run(main)


def test_server_that_cannot_start_says_why(lab: Lab) -> None:
    async def main() -> None:
        folder = lab.folder / "appendonlydir"
        folder.mkdir()
        (folder / "appendonly.aof.manifest").write_text("garbage\n")

        with pytest.raises(StoreUnavailableError, match="manifest"):
            await lab.server("disk")

    lab.run(main)


def test_server_started_twice_is_refused(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()

        with pytest.raises(StoreError, match="already"):
            await server.start()

    lab.run(main)


def test_too_long_socket_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="socket path"):
        EmbeddedValkey(tmp_path, durability="disk", socket_path=tmp_path / ("x" * 120))


def test_replicated_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="durability"):
        EmbeddedValkey(tmp_path, durability="replicated", socket_path=tmp_path / "s")


def test_server_ends_with_its_parent_and_the_next_one_takes_over(lab: Lab) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from fluvial_queue.redis.embedded import EmbeddedValkey

        async def main():
            folder = Path({str(lab.folder)!r})
            server = EmbeddedValkey(folder, durability="disk", socket_path=folder / "s")
            await server.start()
            print(server.pid, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )

    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)

        async def main() -> None:
            await lab.server("disk")  # waits for the former one to end
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(0)

        lab.run(main)
    os.close(descriptor)
