"""A class of the standard library."""

from http.server import BaseHTTPRequestHandler


class handler(BaseHTTPRequestHandler):
    """Knows one user."""

    def do_GET(self) -> None:
        """Tell who."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"me")
