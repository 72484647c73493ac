"""WSGI apps, handlers and FastAPI in real instances."""

from __future__ import annotations

import asyncio
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

from fluvial.wire import FrameType

FRAMEWORK = (
    "annotated_doc",
    "annotated_types",
    "anyio",
    "fastapi",
    "idna",
    "opentelemetry",
    "pydantic",
    "pydantic_core",
    "starlette",
    "typing_extensions.py",
    "typing_inspection",
)


def fastapi_layer(home: Path) -> str:
    """Make a layer of links to the FastAPI that is installed for the tests."""
    folder = home / "layers" / "fastapi"
    folder.mkdir(parents=True)
    site_packages = Path(sysconfig.get_path("purelib"))
    for name in FRAMEWORK:
        if (site_packages / name).exists():
            os.symlink(site_packages / name, folder / name)
    return folder.name


def test_fastapi_app_with_lifespan_sync_and_async_routes(machine: Any, serve: Any) -> None:
    layer = fastapi_layer(machine.home)
    spec = machine.spec(
        """
        import time
        from contextlib import asynccontextmanager
        from fastapi import FastAPI, Request
        from fastapi.responses import StreamingResponse
        from pydantic import BaseModel

        @asynccontextmanager
        async def lifespan(app):
            yield {"started": True}
            print("shut down")

        app = FastAPI(lifespan=lifespan)

        class Item(BaseModel):
            name: str

        @app.post("/items/{number}")
        async def item(number: int, item: Item, request: Request) -> dict:
            return {"number": number, "name": item.name, "started": request.state.started}

        @app.get("/burn")
        def burn() -> dict:
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass
            return {}

        @app.get("/stream")
        async def stream():
            async def parts():
                for n in range(3):
                    yield f"part {n} "
            return StreamingResponse(parts())
        """,
        layer=layer,
    )

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            body = json.dumps({"name": "a"}).encode()
            headers = {"content-type": "application/json"}
            reply = await link.get("/items/7", method="POST", body=body, headers=headers)
            wrong = await link.get("/items/x", method="POST", body=body, headers=headers)
            burnt = await link.get("/burn")
            streamed = await link.get("/stream")
            _, zygotes = await invoker.survey()
            invoker.send(FrameType.KILL, 0, handed.instance, 5000)
            reason = await invoker.death_of(handed.instance)

            assert handed.tier == "zygote"
            assert [each["layer"] for each in zygotes] == ["fastapi"]
            assert json.loads(reply.body) == {"number": 7, "name": "a", "started": True}
            assert wrong.status == 422
            assert 50_000 <= burnt.cpu_us < 500_000  # in anyio's thread, billed to the request
            assert (streamed.body, streamed.framing) == (b"part 0 part 1 part 2 ", 1)
            assert reason == "terminated"
        assert "shut down" in machine.app_log()

    asyncio.run(main())


WSGI = """
    import time
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/fail":
            raise ValueError("of the user")
        if path == "/bad-header":
            start_response("200 OK", [("x-a", "1\\n2")])
            return [b"x"] * 100
        if path == "/sleep":
            start_response("200 OK", [])(b"begun")
            time.sleep(0.2)
            return []
        if path == "/echo":
            body = environ["wsgi.input"].read()
        else:
            body = path.encode()
        print("printed by", path)
        start_response("200 OK", [("content-type", "text/plain")])
        return [body[:1], body[1:]]
"""


def test_wsgi_app(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(WSGI)) as (_, _, link):
            hello = await link.get("/hello")
            echoed = await link.get("/echo", method="POST", body=b"q" * 100_000)
            failed = await link.get("/fail")
            bad = await link.get("/bad-header")

            assert (hello.status, hello.body, hello.outcome) == (200, b"/hello", "ok")
            assert echoed.body == b"q" * 100_000
            assert (failed.status, failed.outcome) == (500, "error")
            assert (bad.status, bad.outcome) == (500, "error")

    asyncio.run(main())


def test_blocking_wsgi_calls_run_side_by_side(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(WSGI)) as (_, _, link):
            await link.get("/hello")
            loop = asyncio.get_running_loop()
            began = loop.time()
            replies = await asyncio.gather(*(link.get("/sleep") for _ in range(50)))
            seconds = loop.time() - began

            assert {reply.outcome for reply in replies} == {"ok"}
            assert seconds < 5  # one after the other: 10 s

    asyncio.run(main())


def test_cancelled_thread_keeps_its_place_until_it_ends(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(WSGI, max_concurrency=1)) as (_, _, link):
            await link.get("/hello")
            number = link.request("/sleep")
            await link.next(number, FrameType.RESPONSE)  # the thread has begun
            link.send(FrameType.CANCEL, number, "client_gone")
            finished = await link.next(number, FrameType.FINISHED)
            refused = await link.next(link.request("/hello"))

            assert finished.header[3] == "cancelled"
            assert refused.header[0] == FrameType.NACK
            assert refused.header[2] == "concurrency"

    asyncio.run(main())


HANDLER = """
    from fluvial.http import Request, Response

    def app(request: Request):
        match request.path:
            case "/text": return "text"
            case "/bytes": return b"bytes"
            case "/dict": return {"query": request.query, "agent": request.headers["user-agent"]}
            case "/tuple": return 201, "made"
            case "/response": return Response("r", 202, {"X-A": "1"})
            case "/none": return None
            case "/json": return request.json()
            case "/object": return object()
            case "/exit": raise SystemExit(3)
"""


def test_handler_results(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(HANDLER)) as (_, _, link):
            agent = {"user-agent": "tests"}
            text = await link.get("/text")
            raw = await link.get("/bytes")
            plain = await link.get("/dict?a=1&a=2&b=%20", headers=agent)
            made = await link.get("/tuple")
            response = await link.get("/response")
            nothing = await link.get("/none")
            posted = await link.get("/json", method="POST", body=b'{"a": [1]}')
            wrong = await link.get("/object")
            left = await link.get("/exit")

            assert (text.body, text.headers["content-type"]) == (
                b"text",
                "text/plain; charset=utf-8",
            )
            assert (raw.body, raw.headers["content-type"]) == (
                b"bytes",
                "application/octet-stream",
            )
            assert json.loads(plain.body) == {"query": {"a": "2", "b": " "}, "agent": "tests"}
            assert (made.status, made.body) == (201, b"made")
            assert (response.status, response.headers["x-a"]) == (202, "1")
            assert (nothing.status, nothing.body, nothing.framing) == (204, b"", 2)
            assert json.loads(posted.body) == {"a": [1]}
            assert (wrong.status, wrong.outcome) == (500, "error")
            assert (left.status, left.outcome) == (500, "error")

    asyncio.run(main())


def test_async_handler(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        async def app(request):
            await asyncio.sleep(0)
            return request.method, request.body.decode() if False else request.text
        async def app(request):
            await asyncio.sleep(0)
            return request.text.upper()
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            assert (await link.get(method="PUT", body=b"abc")).body == b"ABC"

    asyncio.run(main())
