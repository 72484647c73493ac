"""An ordinary FastAPI service: lifespan, streams, uploads, background work, errors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Cookie, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    """Prepare what every request may use."""
    yield {"greeting": "hello", "jobs": []}


app = FastAPI(title="Service", lifespan=lifespan)


class Item(BaseModel):
    """What `PUT /items/{number}` takes."""

    name: str
    price: float
    tags: list[str] = []


@app.get("/")
async def root(request: Request) -> dict[str, str]:
    return {"greeting": request.state.greeting}


@app.put("/items/{number}")
async def put_item(number: int, item: Item, q: str | None = None) -> dict[str, Any]:
    return {"number": number, "item": item, "q": q}


@app.get("/scope")
async def scope(request: Request) -> dict[str, Any]:
    """Tell what a server must tell an app, as far as two servers must agree on it."""
    known = request.scope
    names = ("type", "http_version", "method", "scheme", "path", "root_path")
    told: dict[str, Any] = {name: known[name] for name in names}
    told["raw_path"] = known["raw_path"].decode("latin-1")
    told["query_string"] = known["query_string"].decode("latin-1")
    told["client_host"] = known["client"][0]
    return told


@app.get("/items/{path:path}/tail")
async def tail(path: str) -> dict[str, str]:
    return {"path": path}


@app.get("/lines/{count}")
async def lines(count: int) -> StreamingResponse:
    async def produce() -> AsyncIterator[str]:
        for number in range(count):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(produce(), media_type="text/plain")


@app.get("/broken-stream")
async def broken_stream() -> StreamingResponse:
    """Begin a response and fail in the middle of it."""

    async def produce() -> AsyncIterator[str]:
        yield "a beginning\n"
        raise RuntimeError("no end")

    return StreamingResponse(produce(), media_type="text/plain")


@app.post("/digest")
async def digest(request: Request) -> dict[str, Any]:
    """Read a body of any size piece by piece."""
    sha, size = hashlib.sha256(), 0
    async for chunk in request.stream():
        sha.update(chunk)
        size += len(chunk)
    return {"sha256": sha.hexdigest(), "bytes": size}


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@app.get("/cookies")
async def cookies(response: Response, seen: Annotated[str | None, Cookie()] = None) -> Any:
    response.set_cookie("seen", "yes", httponly=True)
    response.set_cookie("theme", "dark", path="/cookies")
    return {"seen": seen}


@app.get("/away")
async def away() -> RedirectResponse:
    return RedirectResponse("/?from=away", 307)


@app.delete("/items/{number}", status_code=204)
async def delete_item(number: int) -> None:
    return None


@app.get("/not-modified")
async def not_modified() -> Response:
    return Response(status_code=304, headers={"etag": '"one"'})


@app.get("/teapot")
async def teapot() -> Any:
    raise HTTPException(418, "short and stout", headers={"x-kind": "teapot"})


@app.get("/crash")
async def crash() -> Any:
    raise RuntimeError("a defect of the application")


@app.get("/unicode/{word}")
async def unicode(word: str) -> PlainTextResponse:
    return PlainTextResponse(f"«{word}» ✓", headers={"x-latin": "caf\xe9"})


@app.post("/jobs/{name}", status_code=202)
async def add_job(name: str, request: Request, background: BackgroundTasks) -> dict[str, str]:
    """Answer at once and do the work afterwards."""

    async def work() -> None:
        await asyncio.sleep(0.05)
        request.state.jobs.append(name)

    background.add_task(work)
    return {"accepted": name}


@app.get("/jobs")
async def jobs(request: Request) -> list[str]:
    done: list[str] = request.state.jobs
    return done
