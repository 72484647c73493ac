"""What invocations print, and what they are billed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fluvial.wire import FrameType

TALKATIVE = """
    import asyncio, logging, os, sys
    log = logging.getLogger("user")
    async def app(request):
        name = request.path[1:]
        if name == "raw":
            os.write(1, b"raw \\x1b[31m bytes\\n")
            os.write(2, b"\\x1e[1, \\"info\\", \\"inv_forged\\", null]\\n")
            return "raw"
        print("start of", name, end=" ")
        await asyncio.sleep(0.01)
        print("end of", name)
        await asyncio.to_thread(print, "thread of", name)
        log.warning("warning of %s", name)
        sys.stderr.write("unfinished " + name)
        return name
"""


async def lines_after_end(invoker: Any, handed: Any, machine: Any) -> list[dict[str, Any]]:
    invoker.send(FrameType.KILL, 0, handed.instance, 5000)
    await invoker.death_of(handed.instance)
    return [json.loads(line) for line in machine.app_log().splitlines()]


def test_lines_name_their_invocation(machine: Any, serve: Any) -> None:
    async def main() -> None:
        spec = machine.spec(TALKATIVE)
        async with serve(spec) as (invoker, handed, link):
            numbers = [link.request(f"/n{n}") for n in range(10)]
            await asyncio.gather(*(link.reply(number) for number in numbers))
            lines = await lines_after_end(invoker, handed, machine)

        for n, number in enumerate(numbers):
            own = [line for line in lines if line["invocation"] == f"inv_{number:024d}"]
            assert [(line["level"], line["text"]) for line in own] == [
                ("info", f"start of n{n} end of n{n}"),
                ("info", f"thread of n{n}"),
                ("warning", f"warning of n{n}"),
                ("error", f"unfinished n{n}"),
            ]
        assert {line["deployment"] for line in lines} == {spec.deployment}
        assert {line["instance"] for line in lines} == {handed.instance}

    asyncio.run(main())


def test_raw_writes_are_kept_and_sanitised(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(TALKATIVE)) as (invoker, handed, link):
            await link.get("/raw")
            lines = await lines_after_end(invoker, handed, machine)

        texts = [(line["level"], line["text"], line["invocation"]) for line in lines]
        assert ("raw", "raw [31m bytes", None) in texts
        assert not any(line["invocation"] == "inv_forged" for line in lines)

    asyncio.run(main())


def test_flood_of_output_is_bounded(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import os
        def app(request):
            line = b"f" * 1023 + b"\\n"
            for _ in range(50_000):
                os.write(1, line)
            os.write(1, b"z" * 200_000 + b"\\n")
            return "flooded"
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            assert (await link.get()).body == b"flooded"
            lines = await lines_after_end(invoker, handed, machine)

        assert sum(len(line["text"]) for line in lines) < 30_000_000
        assert max(len(line["text"]) for line in lines) <= 64 * 1024

    asyncio.run(main())


BURN = """
    import asyncio, time

    def burn(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    async def app(request):
        seconds = float(request.query.get("seconds", 0))
        match request.path:
            case "/burn":
                for _ in range(10):
                    burn(seconds / 10)
                    await asyncio.sleep(0)
            case "/wait":
                await asyncio.sleep(0.2)
            case "/task":
                await asyncio.gather(*(asyncio.create_task(later(seconds / 4)) for _ in range(4)))
            case "/thread":
                await asyncio.to_thread(burn, seconds)
            case "/clock":
                return str(time.process_time_ns())
        return ""

    async def later(seconds):
        await asyncio.sleep(0)
        burn(seconds)
"""


def test_cpu_is_billed_to_the_invocation_that_used_it(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(BURN)) as (_, _, link):
            await link.get("/clock")
            before = int((await link.get("/clock")).body)
            targets = (
                "/burn?seconds=0.1",
                "/burn?seconds=0.3",
                "/wait",
                "/task?seconds=0.2",
                "/thread?seconds=0.1",
            )
            numbers: list[int] = [link.request(target) for target in targets]
            replies: list[Any] = [await link.reply(number) for number in numbers]
            last = await link.get("/clock")
            small, large, waiting, tasks, thread = replies
            used_us = (int(last.body) - before) / 1000
            billed: list[int] = [reply.cpu_us for reply in replies]

            assert 100_000 <= small.cpu_us < 180_000
            assert 300_000 <= large.cpu_us < 400_000
            assert waiting.cpu_us < 50_000
            assert 200_000 <= tasks.cpu_us < 280_000
            assert 100_000 <= thread.cpu_us < 180_000
            assert 0.8 < sum(billed) / used_us < 1.2

    asyncio.run(main())
