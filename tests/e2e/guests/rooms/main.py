"""python-socketio: rooms of people who talk, by long polling or over a WebSocket."""

import socketio

server = socketio.AsyncServer(async_mode="asgi", ping_interval=60)
app = socketio.ASGIApp(server)


@server.event
async def connect(sid: str, environ: dict[str, object]) -> None:
    """Greet."""
    await server.emit("welcome", {"path": environ["PATH_INFO"]}, to=sid)


@server.event
async def join(sid: str, room: str) -> str:
    """Enter a room; the answer is an acknowledgement."""
    await server.enter_room(sid, room)
    return f"in {room}"


@server.event
async def say(sid: str, room: str, text: str) -> None:
    """Tell everybody in a room."""
    await server.emit("said", {"text": text}, room=room)
