"""What invocations print, and what they are billed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fluvial.wire import FrameType

TALKATIVE = """
    import asyncio, concurrent.futures, logging, os, subprocess, sys, threading, warnings
    log = logging.getLogger("user")
    pool = concurrent.futures.ThreadPoolExecutor(2)
    async def app(request):
        name = request.path[1:]
        if name == "raw":
            os.write(1, b"raw \\x1b[31m bytes\\n")
            os.write(2, b"\\x1e[1, \\"info\\", \\"inv_forged\\", null]\\n")
            subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
            return "raw"
        loop = asyncio.get_running_loop()
        print("start of", name, end=" ")
        await asyncio.sleep(0.01)
        print("end of", name)
        await asyncio.to_thread(print, "to_thread of", name)
        await loop.run_in_executor(None, print, "executor of " + name)
        await loop.run_in_executor(pool, print, "own pool of " + name)
        thread = threading.Thread(target=print, args=("thread of", name))
        thread.start()
        await asyncio.to_thread(thread.join)
        sys.stdout.buffer.write(f"bytes of {name}\\n".encode())
        warnings.warn("odd of " + name)
        log.warning("warning of %s", name)
        sys.stderr.write("unfinished " + name)
        return name
"""
Records = list[dict[str, Any]]


async def lines_after_end(invoker: Any, handed: Any, machine: Any) -> Records:
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
            own = [line for line in lines if line.get("invocation") == f"inv_{number:024d}"]
            assert [(line["level"], line["stream"], line["message"]) for line in own] == [
                ("info", "stdout", f"start of n{n} end of n{n}"),
                ("info", "stdout", f"to_thread of n{n}"),
                ("info", "stdout", f"executor of n{n}"),
                ("info", "stdout", f"own pool of n{n}"),
                ("info", "stdout", f"thread of n{n}"),
                ("info", "stdout", f"bytes of n{n}"),
                ("warning", "stderr", f"UserWarning: odd of n{n}"),
                ("warning", "logging", f"warning of n{n}"),
                ("error", "stderr", f"unfinished n{n}"),
            ]
            assert {(line["kind"], line["function"]) for line in own} == {("http", "http")}
        assert {line["deployment"] for line in lines} == {spec.deployment}
        assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
        snapshots = {line["instance"] for line in lines} - {handed.instance}
        assert all(name.startswith("snp_") for name in snapshots)  # its warm-up request

    asyncio.run(main())


def test_raw_writes_are_kept_and_sanitised(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(TALKATIVE)) as (invoker, handed, link):
            await link.get("/raw")
            lines = await lines_after_end(invoker, handed, machine)

        raw = [line["message"] for line in lines if line["stream"] == "raw"]
        assert raw[0] == "raw [31m bytes"
        assert raw[2] == "from a child"
        assert not any(line.get("invocation") == "inv_forged" for line in lines)

    asyncio.run(main())


LOGGING = """
    import logging, sys
    from fluvial import context
    log = logging.getLogger("shop.orders")

    class Redacting(logging.Formatter):
        def format(self, record):
            return super().format(record).replace("hunter2", "***")

    class Odd:
        def __repr__(self):
            raise ValueError("no")

    async def app(request):
        match request.path:
            case "/plain":
                log.info("below the root's level")
                log.warning("charged %s", "o-1", extra={"order": "o-1", "cents": 420, "odd": Odd()})
                log.log(45, "between")
            case "/basic":
                logging.basicConfig(level="DEBUG", format="%(levelname)s %(message)s")
                log.debug("in detail", extra={"nested": {"a": [1, 2]}, "long": "x" * 100_000})
                try:
                    1 / 0
                except ZeroDivisionError:
                    log.exception("failed")
            case "/redacted":
                handler = logging.StreamHandler(sys.stdout)
                handler.setFormatter(Redacting("[%(name)s] %(message)s"))
                own = logging.getLogger("own")
                own.propagate = False
                own.addHandler(handler)
                own.error("password hunter2", extra={"password": "hunter2"})
            case "/failed":
                raise RuntimeError("of the app")
            case "/context":
                context()
                logging.getLogger("x").critical(context().id)
        return ""
"""


def test_logging_keeps_level_logger_and_fields(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(LOGGING, log_invocations=True)) as (invoker, handed, link):
            numbers = {}
            for path in ("/plain", "/basic", "/redacted", "/failed?secret=1", "/context"):
                numbers[path] = link.request(path)
                await link.reply(numbers[path])
            lines = await lines_after_end(invoker, handed, machine)

        def of(path: str, stream: str) -> Records:
            name = f"inv_{numbers[path]:024d}"
            return [x for x in lines if x.get("invocation") == name and x["stream"] == stream]

        charged, between = of("/plain", "logging")
        assert (charged["level"], charged["logger"]) == ("warning", "shop.orders")
        assert charged["message"] == "charged o-1"
        assert charged["fields"] == {
            "order": "o-1",
            "cents": 420,
            "odd": "<Odd: not shown, ValueError>",
        }
        assert (between["level"], between["message"]) == ("error", "between")

        detail, failed = of("/basic", "logging")
        assert (detail["level"], detail["message"]) == ("debug", "in detail")
        assert detail["fields"]["nested"] == {"a": [1, 2]}
        assert len(detail["fields"]["long"]) == 1024
        assert failed["message"].startswith("failed\nTraceback")
        assert failed["message"].endswith("ZeroDivisionError: division by zero")

        (redacted,) = of("/redacted", "logging")
        assert redacted["message"] == "[own] password ***"
        assert "fields" not in redacted
        assert "hunter2" not in json.dumps(lines)

        (named,) = of("/context", "logging")
        assert named["message"] == named["invocation"]

        # What the manifest asks for: a record of each invocation that has ended.
        (plain,) = of("/plain", "system")
        assert plain["level"] == "info"
        assert plain["fields"]["event"] == "finished"
        assert (plain["fields"]["outcome"], plain["fields"]["status"]) == ("ok", 200)
        assert plain["fields"]["duration_ms"] > 0
        assert plain["fields"]["active_cpu_ms"] > 0
        assert plain["fields"]["memory_bytes"] > 1_000_000
        trouble, report = of("/failed?secret=1", "system")
        assert "RuntimeError: of the app" in trouble["message"]
        assert (report["level"], report["fields"]["status"]) == ("error", 500)
        assert report["fields"]["path"] == "/failed"

    asyncio.run(main())


def test_the_life_of_an_instance_is_in_its_log(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(TALKATIVE)) as (invoker, handed, link):
            await link.get("/n")
            lines = await lines_after_end(invoker, handed, machine)

        ready, ended = (line for line in lines if line.get("kind") == "instance")
        assert (ready["fields"]["event"], bool(ready["fields"]["tier"])) == ("ready", True)
        assert ready["fields"]["phases_ms"]["import"] >= 0
        assert (ended["fields"]["event"], ended["level"]) == ("ended", "info")
        assert ended["fields"]["reason"] == "terminated"
        assert ended is lines[-1]

    asyncio.run(main())


def test_the_end_of_an_instance_that_crashed_is_an_error_in_its_log(
    machine: Any, serve: Any
) -> None:
    spec = machine.spec("""
        import os, signal
        def app(request):
            os.write(2, b"last words")
            os.kill(os.getpid(), signal.SIGSEGV)
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            link.request("/")
            await invoker.death_of(handed.instance)
            words, ended = [json.loads(line) for line in machine.app_log().splitlines()][-2:]

        assert words["message"] == "last words"
        assert (ended["level"], ended["fields"]["reason"]) == ("error", "signal:11")

    asyncio.run(main())


def test_a_gateway_that_watches_an_app_hears_that_its_log_has_grown(
    machine: Any, serve: Any
) -> None:
    async def main() -> None:
        async with serve(machine.spec(TALKATIVE)) as (invoker, _, link):
            invoker.send(FrameType.WATCH_LOGS, 0, ["other"])
            await link.get("/n1")
            invoker.send(FrameType.WATCH_LOGS, 0, ["demo", "other"])
            invoker.send(FrameType.SURVEY, 1)
            await invoker.next(kind=FrameType.SURVEYED)
            await link.get("/n2")
            told = await invoker.next(kind=FrameType.LOGGED)

            assert told.header[2] == "demo"
            assert "n2" in machine.app_log()

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

        assert sum(len(line["message"]) for line in lines) < 30_000_000
        assert max(len(line["message"]) for line in lines) <= 64 * 1024

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
