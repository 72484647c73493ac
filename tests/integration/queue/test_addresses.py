"""Ways to reach a server, and settings that are refused."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluvial_queue import open_store
from fluvial_queue.contract import StoreError, StoreUnavailableError, UnsafeStoreError

if TYPE_CHECKING:
    from tests.integration.queue.conftest import Lab


def free_port() -> int:
    """A TCP port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_tcp_with_password_and_database(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()
        port = free_port()
        await lab.command(server.url, "CONFIG", "SET", "bind", "127.0.0.1", "port", port)
        await lab.command(server.url, "CONFIG", "SET", "requirepass", "p@ss")
        store = await lab.opened(open_store(f"redis://:p%40ss@127.0.0.1:{port}/3"))
        await store.put_record("app", "a", {})
        same = await lab.opened(open_store(f"{server.url.replace('//', '//:p%40ss@')}&db=3"))
        other = await lab.opened(open_store(f"redis://default:p%40ss@127.0.0.1:{port}/0"))

        assert await same.get_record("app", "a") is not None
        assert await other.get_record("app", "a") is None
        with pytest.raises(StoreError, match="NOAUTH"):
            await open_store(f"redis://127.0.0.1:{port}").open()
        with pytest.raises(StoreError, match="WRONGPASS"):
            await open_store(f"redis://:wrong@127.0.0.1:{port}").open()

    lab.run(main)


def test_nobody_there_is_unavailable(lab: Lab) -> None:
    async def main() -> None:
        with pytest.raises(StoreUnavailableError, match=r"cannot reach redis://127\.0\.0\.1"):
            await open_store(f"redis://:secret@127.0.0.1:{free_port()}").open()
        with pytest.raises(StoreUnavailableError, match="cannot reach unix:///"):
            await open_store(f"unix://{lab.folder}/nothing").open()

    lab.run(main)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_server_is_refused(lab: Lab, policy: str) -> None:
    async def main() -> None:
        server = await lab.server()
        await lab.command(server.url, "CONFIG", "SET", "maxmemory-policy", policy)

        with pytest.raises(UnsafeStoreError, match=rf"maxmemory-policy is {policy}.*noeviction"):
            await open_store(server.url).open()

    lab.run(main)


def test_server_less_durable_than_the_url_says_is_refused(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("process")
        url = server.url.replace("durability=process", "durability=disk")

        with pytest.raises(UnsafeStoreError, match=r"appendfsync no it.*appendfsync always"):
            await open_store(url).open()

    lab.run(main)


def test_stated_durability_is_believed_where_config_is_forbidden(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("disk")
        plain = server.url.partition("?")[0]
        rules = ("on", ">pw", "~*", "&*", "+@all", "-config")
        await lab.command(server.url, "ACL", "SETUSER", "managed", *rules)
        url = plain.replace("//", "//managed:pw@")
        stated = await lab.opened(open_store(f"{url}?durability=disk"))
        unstated = await lab.opened(open_store(url))

        assert (stated.durability, unstated.durability) == ("disk", "memory")
        await lab.command(server.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
        with pytest.raises(UnsafeStoreError, match="maxmemory-policy"):
            await open_store(url).open()

    lab.run(main)


def test_store_of_another_format_is_refused(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()
        await lab.command(server.url, "HSET", "{fv:meta}", "format", "0")

        with pytest.raises(UnsafeStoreError, match="format 0"):
            await open_store(server.url).open()

    lab.run(main)


def test_replica_is_refused_until_it_is_primary(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(server.url))
        await lab.command(server.url, "REPLICAOF", "127.0.0.1", free_port())
        with pytest.raises(StoreUnavailableError):
            await store.put_record("app", "a", {})
        with pytest.raises(StoreUnavailableError, match="replica"):
            await open_store(server.url).open()
        await lab.command(server.url, "REPLICAOF", "NO", "ONE")

        assert await store.put_record("app", "a", {}) == 1

    lab.run(main)


def write_certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_tls_is_spoken_and_the_certificate_checked(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server()
        certificate = write_certificate(lab.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_unix_connection(lab.folder / "s")
            await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

        front = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
        port = front.sockets[0].getsockname()[1]
        url = f"rediss://localhost:{port}"
        store = await lab.opened(open_store(f"{url}?ca={certificate}"))
        await store.put_record("app", "a", {})

        assert await store.get_record("app", "a") is not None
        with pytest.raises(StoreUnavailableError, match="certificate"):
            await open_store(url).open()
        await store.close()
        assert server.pid is not None
        front.close()

    lab.run(main)
