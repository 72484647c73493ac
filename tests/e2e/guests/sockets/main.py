"""flask-sock: WebSockets beside pages, in a WSGI app."""

from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@app.get("/")
def index() -> str:
    """Answer as any page."""
    return "pages too"


@sock.route("/echo")
def echo(ws: object) -> None:
    """Send back what comes until "bye"; bytes backwards."""
    ws.send(f"hello {request.args.get('name', 'you')}")
    while (message := ws.receive()) != "bye":
        ws.send(message[::-1] if isinstance(message, bytes) else message)
