"""What the data plane accepts from clients: sizes, and the time that everything may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of one data-plane listener."""

    target_bytes: int = 8 * 1024
    header_bytes: int = 16 * 1024  # the header block, without the request line
    headers: int = 64
    body_bytes: int = 100 * 1024 * 1024
    chunk_line_bytes: int = 256  # a chunk's size and its extensions
    chunk_extension_bytes: int = 4 * 1024  # of all chunks of a body together
    trailer_bytes: int = 4 * 1024
    pipelined_bytes: int = 64 * 1024  # held while a response is awaited; then the client waits
    discarded_bytes: int = 256 * 1024  # of a body that nobody reads, before the connection closes
    connections: int = 10_000

    header_seconds: float = 10.0  # from a request's first byte to the end of its head
    keep_alive_seconds: float = 75.0
    body_idle_seconds: float = 30.0
    body_seconds: float = 600.0  # from the end of the head to the end of the body
    write_stall_seconds: float = 30.0  # for a full write buffer to drain
    hang_up_seconds: float = 1.0  # between looks at whether a client that is not read has gone
    linger_seconds: float = 5.0  # for the client to read our last words
    resolution_seconds: float = 0.5  # how exactly these times are kept

    trusted_peers: tuple[str, ...] = ()  # networks (CIDR) whose x-forwarded-* headers are believed
