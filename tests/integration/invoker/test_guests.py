"""Functions written for other platforms, in real instances: each by its adapter."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

from fluvial.wire import FrameType

REQUEST_HANDLER = """
    from http.server import BaseHTTPRequestHandler

    class handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/fail":
                raise ValueError("of the user")
            if self.path == "/half":
                self.send_response(200)
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b"half")
                return
            if self.path == "/silent":
                return
            self.send_response(201)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Set-Cookie", "a=1")
            self.send_header("Set-Cookie", "b=2")
            self.end_headers()
            self.wfile.write(self.path.encode())
            self.wfile.write(f" from {self.client_address[0]}".encode())

        do_HEAD = do_GET

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def do_PUT(self):
            self.wfile.write(b"not HTTP at all\\r\\n\\r\\n")
"""


def test_request_handlers_of_the_standard_library(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(REQUEST_HANDLER, entrypoint="main:handler")) as (_, _, link):
            read = await link.get("/a%20b?c=d")
            head = await link.get("/a", method="HEAD")
            length = {"content-length": "300000"}
            posted = await link.get("/", method="POST", body=b"q" * 300_000, headers=length)
            missing = await link.get("/", method="PATCH")
            failed = await link.get("/fail")
            silent = await link.get("/silent")
            broken = await link.get("/", method="PUT")
            half = await link.get("/half")

            assert (read.status, read.outcome) == (201, "ok")
            assert read.body == b"/a%20b?c=d from 127.0.0.1"
            assert read.head.count(b"set-cookie: ") == 2
            assert b"server: BaseHTTP/" in read.head
            assert (head.status, head.body, head.outcome) == (201, b"", "ok")
            assert posted.body == b"q" * 300_000
            assert (missing.status, b"Unsupported method" in missing.body) == (501, True)
            assert (failed.status, failed.outcome) == (500, "error")
            assert (silent.status, silent.outcome) == (500, "error")
            assert (broken.status, broken.outcome) == (500, "error")
            assert (half.broken, half.outcome) == ("error", "error")
        await machine.logged("ValueError: of the user")
        await machine.logged("GET /a%20b?c=d HTTP/1.1")  # as the class itself writes it

    asyncio.run(main())


def test_a_request_handler_gets_a_chunked_body_with_its_length(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(REQUEST_HANDLER, entrypoint="main:handler")) as (_, _, link):
            number = link.request("/", method="POST", body=b"one ", more=True)
            link.send(FrameType.REQUEST_BODY, number, True, body=b"two ")
            link.send(FrameType.REQUEST_BODY, number, False, body=b"three")

            assert (await link.reply(number)).body == b"one two three"

    asyncio.run(main())


def test_a_request_handler_streams_both_ways(machine: Any, serve: Any) -> None:
    """What it writes is seen before it has read all of the request."""
    spec = machine.spec("""
        from http.server import BaseHTTPRequestHandler

        class handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.send_response(200)
                self.end_headers()
                for _ in range(3):
                    self.wfile.write(self.rfile.read(4).upper())
    """)

    async def main() -> None:
        async with serve(replace(spec, entrypoint="main:handler")) as (_, _, link):
            headers = {"content-length": "12"}
            number = link.request("/", method="POST", body=b"abcd", more=True, headers=headers)
            first = await link.next(number, FrameType.RESPONSE)
            link.send(FrameType.REQUEST_BODY, number, True, body=b"efgh")
            second = await link.next(number, FrameType.RESPONSE_BODY)
            link.send(FrameType.REQUEST_BODY, number, False, body=b"ijkl")
            third = await link.next(number, FrameType.RESPONSE_BODY)

            assert first.body.endswith(b"ABCD")
            assert (second.body, third.body) == (b"EFGH", b"IJKL")

    asyncio.run(main())


def test_a_request_handler_whose_client_is_gone_ends(machine: Any, serve: Any) -> None:
    spec = machine.spec(
        """
        from http.server import BaseHTTPRequestHandler

        class handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"x" * 65536)
                except OSError as error:
                    print("told:", error)
                    raise
    """,
        max_concurrency=1,
    )

    async def main() -> None:
        async with serve(replace(spec, entrypoint="main:handler")) as (_, _, link):
            number = link.request("/")
            await link.next(number, FrameType.RESPONSE)
            link.send(FrameType.CANCEL, number, "client_gone")
            while (await link.next(number)).type != FrameType.FINISHED:
                pass
            # Its place is free as soon as its thread has ended.
            async with asyncio.timeout(20):
                again = await link.next(link.request("/"))
                while again.type == FrameType.NACK:
                    await asyncio.sleep(0)
                    again = await link.next(link.request("/"))

            assert again.type == FrameType.RESPONSE
        await machine.logged("told: the client is gone")

    asyncio.run(main())


LAMBDA = """
    def handler(event, context):
        match event["rawPath"]:
            case "/event":
                return event
            case "/context":
                return {
                    "name": context.function_name,
                    "left": context.get_remaining_time_in_millis(),
                    "same": context.aws_request_id == event["requestContext"]["requestId"],
                    "memory": context.memory_limit_in_mb,
                }
            case "/fail":
                raise ValueError("of the user")
            case "/no-json":
                return {"a": object()}
            case "/bad":
                return {"statusCode": 999999, "body": "x"}
            case "/exit":
                raise SystemExit(3)
        return {
            "statusCode": 418,
            "headers": {"Content-Type": "image/x"},
            "cookies": ["a=1; Path=/", "b=2"],
            "body": event["body"],
            "isBase64Encoded": event["isBase64Encoded"],
        }
"""


def test_lambda_handlers_behind_a_function_url(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(LAMBDA, entrypoint="main:handler")) as (_, _, link):
            seen = await link.get("/event?a=1", headers={"cookie": "c=1"})
            about = await link.get("/context", deadline_ms=20_000)
            kind = {"content-type": "image/png"}
            echoed = await link.get("/", method="POST", body=b"\xff\x00", headers=kind)
            failures = [await link.get(f"/{name}") for name in ("fail", "no-json", "bad")]
            left = await link.get("/exit")

            event = json.loads(seen.body)
            assert seen.headers["content-type"] == "application/json"
            assert (event["rawQueryString"], event["cookies"]) == ("a=1", ["c=1"])
            found = json.loads(about.body)
            assert 0 < found.pop("left") <= 20_000
            assert found == {"name": "demo", "same": True, "memory": "512"}
            assert (echoed.status, echoed.body) == (418, b"\xff\x00")
            assert echoed.headers["content-type"] == "image/x"
            assert echoed.head.count(b"set-cookie: ") == 2
            for failure in failures:
                assert (failure.status, failure.outcome) == (502, "error")
                assert failure.body == b"Internal Server Error"
            assert left.outcome == "error"
            assert (await link.get("/context")).status == 200
        await machine.logged("ValueError: of the user")

    asyncio.run(main())


def test_an_async_lambda_handler_is_awaited(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        async def app(event, context):
            await asyncio.sleep(0)
            return event["body"]
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            answer = await link.get("/", method="POST", body=b"text")

            assert json.loads(answer.body) == "text"

    asyncio.run(main())


def test_the_declared_interface_wins(machine: Any, serve: Any) -> None:
    """Both take two arguments; their names say WSGI, the deployment says Lambda."""
    spec = machine.spec("def app(environ, start_response): return sorted(environ)[:1]")

    async def main() -> None:
        async with serve(replace(spec, interface="lambda")) as (_, _, link):
            assert json.loads((await link.get("/")).body) == ["headers"]

    asyncio.run(main())


FILES = {
    "api/index": "def app(environ, start_response):\n"
    "    start_response('200 OK', [])\n"
    "    return [b'wsgi ', environ['QUERY_STRING'].encode()]\n",
    "api/users/[id]": "print('imported users')\n"
    "async def app(scope, receive, send):\n"
    "    if scope['type'] == 'lifespan':\n"
    "        assert (await receive())['type'] == 'lifespan.startup'\n"
    "        scope['state']['started'] = 'yes'\n"
    "        await send({'type': 'lifespan.startup.complete'})\n"
    "        await receive()\n"
    "        print('shut down')\n"
    "        await send({'type': 'lifespan.shutdown.complete'})\n"
    "        return\n"
    "    told = repr((scope['path_params'], scope['query_string'], scope['state']))\n"
    "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
    "    await send({'type': 'http.response.body', 'body': told.encode()})\n",
    "api/users/me": "def handler(request): return request.path\n",
    "api/old": "from http.server import BaseHTTPRequestHandler\n"
    "class Handler(BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200)\n"
    "        self.end_headers()\n"
    "        self.wfile.write(b'http.server')\n",
    "api/broken": "app = 1/0\n",
}
START_UP = """
    tries = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            tries.append(1)
            failed = len(tries) == 1
            await send({"type": f"lifespan.startup.{'failed' if failed else 'complete'}"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % len(tries)})
"""
TARGETS = (
    "api.index:app",
    "api.users.[id]:app",
    "api.users.me:handler",
    "api.old:Handler",
    "api.broken:app",
)


def test_files_are_functions_with_paths_of_their_own(machine: Any, serve: Any) -> None:
    spec = replace(
        machine.spec("", snapshot="off"),
        entrypoint=None,
        files=TARGETS,
        bundle=machine.bundle(**FILES),
    )

    def imports(instance: str) -> int:  # not those of a snapshot
        own = [line for line in machine.app_log().splitlines() if instance in line]
        return sum("imported users" in line for line in own)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            index = await link.get("/api?a=1")
            assert imports(handed.instance) == 0
            numbers = [link.request(f"/api/users/{user}") for user in ("a%2Fb?id=evil&x=%20", "7")]
            both = [await link.reply(number) for number in numbers]
            mine = await link.get("/api/users/me/")
            old = await link.get("/api/old")
            broken = [await link.get("/api/broken") for _ in range(2)]
            nothing = await link.get("/elsewhere")
            invoker.send(FrameType.KILL, 0, handed.instance, 5000)
            await invoker.death_of(handed.instance)

            assert index.body == b"wsgi a=1"
            assert both[0].body == b"({'id': 'a/b'}, b'x=%20&id=a%2Fb', {'started': 'yes'})"
            assert both[1].body == b"({'id': '7'}, b'id=7', {'started': 'yes'})"
            assert mine.body == b"/api/users/me/"
            assert old.body == b"http.server"
            assert [(each.status, each.outcome) for each in broken] == [(500, "error")] * 2
            assert (nothing.status, nothing.outcome) == (404, "ok")
        await machine.logged("ZeroDivisionError")
        await machine.logged("shut down")
        assert imports(handed.instance) == 1

    asyncio.run(main())


def test_base64_of_an_event_is_the_bytes_that_were_sent(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(LAMBDA, entrypoint="main:handler")) as (_, _, link):
            sent = bytes(range(256)) * 1000
            seen = await link.get("/event", method="PUT", body=sent)

            event = json.loads(seen.body)
            assert event["isBase64Encoded"]
            assert base64.b64decode(event["body"]) == sent

    asyncio.run(main())


def test_a_start_up_that_fails_is_tried_again(machine: Any, serve: Any) -> None:
    bundle = machine.bundle(**{"api/late": START_UP})
    spec = replace(machine.spec(""), entrypoint=None, files=("api.late:app",), bundle=bundle)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            answers = [await link.get("/api/late") for _ in range(3)]

            assert [answer.status for answer in answers] == [500, 200, 200]
            assert [answer.body for answer in answers[1:]] == [b"2", b"2"]
        await machine.logged("lifespan start-up failed")

    asyncio.run(main())
