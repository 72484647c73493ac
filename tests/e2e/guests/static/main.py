"""The file server of the standard library, with forms."""

import functools
import json
from http.server import SimpleHTTPRequestHandler
from pathlib import Path


class handler(SimpleHTTPRequestHandler):
    """Serves the files beside this module, and says what it was sent."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=Path(__file__).parent)

    def do_POST(self) -> None:
        """Answer with the request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = {"path": self.path, "type": self.headers["Content-Type"], "bytes": len(body)}
        answer = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = functools.partialmethod(SimpleHTTPRequestHandler.send_error, 409)
