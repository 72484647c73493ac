"""Whole applications from PyPI, unmodified, answer byte for byte as under a plain server.

Installing them takes longer than all else here, so `make applications` runs them, not `make test`.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.differential import Request, compare_all, compare_at_once
from tests.e2e.guest_apps import Guest, Visit, run_python, visit
from tests.e2e.installation import Platform

CLIENTS: Final = 100
EACH: Final = 2
SECONDS: Final = 30.0
JSON: Final = {"content-type": "application/json"}
MULTIPART: Final = {"content-type": "multipart/form-data; boundary=edge"}
# What a clock, or chance, decides.
VARIES: Final = frozenset({"expires", "set-cookie"})
_TOKEN: Final = re.compile(rb'csrfmiddlewaretoken" value="[^"]+"')
_TIMES: Final = re.compile(rb"[\d.]+ ?ms|\"query_ms\": ?[-\d.e]+")


def _form(**parts: bytes) -> bytes:
    lines = [
        b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (name.encode(), value)
        for name, value in parts.items()
    ]
    return b"".join(lines)


def _file(field: bytes, name: bytes, content: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="%b"; filename="%b"' % (field, name)
    return b"--edge\r\n%b\r\nContent-Type: a/b\r\n\r\n%b\r\n" % (head, content)


def _without_token(body: bytes) -> bytes:
    return _TOKEN.sub(b"", body)


def _without_times(body: bytes) -> bytes:
    return _TIMES.sub(b"", body)


# The shop: Django


def _make_shop(bundle: Path, layer: Path, data: Path) -> None:
    variables = {"SHOP_DATA": str(data), "DJANGO_SUPERUSER_PASSWORD": "pass"}
    run_python(bundle, layer, ["manage.py", "migrate", "--verbosity=0"], variables)
    user = ["--noinput", "--username=ann", "--email=ann@example.com"]
    run_python(bundle, layer, ["manage.py", "createsuperuser", *user], variables)


SHOP: Final = [
    Request(method="GET", path="/"),
    Request(method="GET", path="/items/2"),
    Request(method="GET", path="/items/99"),
    Request(method="GET", path="/rows/2000"),
    Request(method="GET", path="/rows/0"),
    Request(method="GET", path="/nothing/%C3%A9"),
    Request(method="GET", path="/mistake"),
    Request(method="GET", path="/mistake?handled"),
    Request(method="GET", path="/admin/", varies=VARIES),
    Request(method="GET", path="/admin/login/", same=_without_token, varies=VARIES),
    Request(method="GET", path="/visits", varies=VARIES),
    Request(method="GET", path="/static/admin/css/base.css"),
    Request(method="HEAD", path="/static/admin/css/base.css"),
    Request(method="GET", path="/static/admin/css/base.css?r", headers={"range": "bytes=10-99"}),
    Request(method="GET", path="/static/nothing.css"),
    Request(
        method="POST",
        path="/upload",
        body=_form(note=b"gr\xc3\xbc\xc3\x9fe")
        + _file(b"file", b"a b.bin", bytes(range(256)) * 4000)
        + b"--edge--\r\n",
        headers=MULTIPART,
    ),
]


def _use_shop(client: httpx.Client) -> list[object]:
    """Log in, add an item in the admin, find it, log out."""
    seen: list[object] = []

    def note(answer: httpx.Response) -> None:
        seen.append((answer.status_code, answer.headers.get("location")))

    def post(path: str, **fields: str) -> None:
        page = client.get(path)
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None, page.text
        fields["csrfmiddlewaretoken"] = token.group(1)
        note(client.post(path, data=fields, headers={"referer": str(page.url)}))

    seen += [client.get("/visits").json() for _ in range(3)]
    post("/admin/login/?next=/admin/", username="ann", password="wrong")
    post("/admin/login/?next=/admin/", username="ann", password="pass")
    post("/admin/stock/item/add/", name="Bank", cents="12000")
    note(client.post("/admin/stock/item/add/", data={"name": "x"}))  # without the token
    found = client.get("/admin/stock/item/", params={"q": "Bank"})
    seen.append("Bank" in found.text and "12000" in found.text)
    seen.append(client.get("/visits").json())
    note(client.get("/admin/stock/item/99/change/"))
    post("/admin/password_change/", old_password="x", new_password1="y", new_password2="z")
    client.cookies.clear()
    note(client.get("/admin/stock/item/"))
    return seen


# datasette


def _make_plants(bundle: Path) -> None:
    database = sqlite3.connect(bundle / "plants.db")
    database.execute("create table plants (id integer primary key, name text, cm real)")
    rows = [(number, f"plant {number} grün", number / 7) for number in range(1, 401)]
    database.executemany("insert into plants values (?, ?, ?)", rows)
    database.commit()
    database.close()


DATASETTE: Final = [
    Request(method="GET", path="/", same=_without_times),
    Request(method="GET", path="/plants.json", same=_without_times),
    Request(method="GET", path="/plants/plants", same=_without_times),
    Request(method="GET", path="/plants/plants.json?_size=5&_shape=array", same=_without_times),
    Request(method="GET", path="/plants/plants.csv?_stream=on"),
    Request(method="GET", path="/plants/plants/7.json", same=_without_times),
    Request(method="GET", path="/plants/plants/9999.json", same=_without_times),
    Request(method="GET", path="/plants.json?sql=select+sum(cm)+from+plants", same=_without_times),
    Request(method="GET", path="/plants.json?sql=drop+table+plants", same=_without_times),
    Request(method="GET", path="/-/static/app.css"),
    Request(method="HEAD", path="/plants.json"),
    Request(method="GET", path="/nothing"),
]

# pypiserver


def _make_index(bundle: Path, layer: Path, data: Path) -> None:
    for version in (1, 2):
        (data / f"seed-{version}.0.tar.gz").write_bytes(b"seed %d" % version * 1000)


PYPI: Final = [
    Request(method="GET", path="/simple/"),
    Request(method="GET", path="/simple/seed/"),
    Request(method="GET", path="/simple/Seed"),
    Request(method="GET", path="/simple/nothing/"),
    Request(method="GET", path="/packages/"),
    Request(method="GET", path="/packages/seed-1.0.tar.gz", varies=frozenset({"last-modified"})),
    Request(method="HEAD", path="/packages/seed-2.0.tar.gz", varies=frozenset({"last-modified"})),
    Request(
        method="GET",
        path="/packages/seed-2.0.tar.gz?r",
        headers={"range": "bytes=5-20"},
        varies=frozenset({"last-modified"}),
    ),
    Request(method="GET", path="/packages/../main.py"),
    Request(method="GET", path="/packages/nothing-1.0.tar.gz"),
    Request(method="GET", path="/seed/json"),
    Request(method="POST", path="/", body=b"x=1", headers={"content-type": "text/plain"}),
]


def _use_index(client: httpx.Client) -> list[object]:
    """Upload a package, find it, download it, remove it."""
    content = bytes(range(256)) * 8000
    body = _form(**{":action": b"file_upload", "name": b"up", "version": b"1.0"})
    body += _file(b"content", b"up-1.0.tar.gz", content) + b"--edge--\r\n"
    seen: list[object] = []
    uploaded = client.post("/", content=body, headers=MULTIPART)
    listed = client.get("/simple/up/")
    fetched = client.get("/packages/up-1.0.tar.gz")
    removed = client.post("/", data={":action": "remove_pkg", "name": "up", "version": "1.0"})
    seen += [(uploaded.status_code, uploaded.text), (listed.status_code, listed.text)]
    seen += [fetched.status_code, fetched.content == content]
    seen += [(removed.status_code, removed.text), client.get("/simple/up/").status_code]
    return seen


# Notes: FastAPI over SQLAlchemy


NOTES: Final = [
    Request(method="POST", path="/notes", body=b'{"title": "one"}', headers=JSON),
    Request(method="POST", path="/notes?2", body='{"title": "zwölf"}'.encode(), headers=JSON),
    Request(method="POST", path="/notes?3", body=b'{"title": 3}', headers=JSON),
    Request(method="GET", path="/notes"),
    Request(method="GET", path="/notes?like=z%25"),
    Request(method="GET", path="/notes/1"),
    Request(method="GET", path="/notes/99"),
    Request(method="GET", path="/count"),
    Request(method="GET", path="/openapi.json"),
]

# Rooms: python-socketio by long polling


def _poll(client: httpx.Client, sid: str) -> list[str]:
    answer = client.get(f"/socket.io/?EIO=4&transport=polling&sid={sid}")
    return [_without_sid(packet) for packet in answer.text.split("\x1e")]


def _without_sid(packet: str) -> str:
    return re.sub(r'"sid":"[^"]+"', '"sid"', packet)


def _talk(client: httpx.Client) -> list[object]:
    """Two people meet in a room by long polling."""
    people: list[str] = []
    seen: list[object] = []
    for _ in range(2):
        hello = client.get("/socket.io/?EIO=4&transport=polling")
        opened = cast("dict[str, Any]", json.loads(hello.text[1:]))
        people.append(opened.pop("sid"))
        seen.append((hello.status_code, opened))
    for sid in people:
        path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
        seen.append(client.post(path, content=b"40").text)
        seen.append(_packets(client, sid, 2))
        seen.append(client.post(path, content=b'421["join","hall"]').text)
        seen.append(_packets(client, sid, 1))
    path = f"/socket.io/?EIO=4&transport=polling&sid={people[0]}"
    seen.append(client.post(path, content='42["say","hall","grüß"]'.encode()).text)
    seen += [_packets(client, sid, 1) for sid in people]
    wrong = client.get("/socket.io/?EIO=4&transport=polling&sid=nobody")
    seen.append((wrong.status_code, wrong.text))
    return seen


def _packets(client: httpx.Client, sid: str, count: int) -> list[str]:
    packets: list[str] = []
    while len(packets) < count:
        packets += _poll(client, sid)
    return packets


def _open(client: httpx.Client, path: str) -> ClientConnection:
    """Open a WebSocket to where `client` leads."""
    base = client.base_url
    connection = socket.create_connection((base.host, base.port or 80))
    uri = f"ws://{client.headers['host']}{path}"
    return connect(uri, sock=connection, open_timeout=SECONDS, proxy=None)


def _talk_over_websockets(client: httpx.Client) -> list[object]:
    """Somebody joins a room and is heard there, over one WebSocket."""
    with _open(client, "/socket.io/?EIO=4&transport=websocket") as person:
        opened: dict[str, Any] = json.loads(str(person.recv(SECONDS))[1:])
        del opened["sid"]
        person.send("40")
        greeted = sorted(_without_sid(str(person.recv(SECONDS))) for _ in range(2))
        person.send('421["join","hall"]')
        joined = person.recv(SECONDS)
        person.send('42["say","hall","grüß"]')
        return [opened, greeted, joined, person.recv(SECONDS)]


def _echo(client: httpx.Client) -> list[object]:
    """Text, bytes and much of it come back; the app closes."""
    with _open(client, "/echo?name=ann") as person:
        seen: list[object] = [person.recv(SECONDS)]
        for message in ("grüß dich", b"\x00\x01\xff", "long " * 40_000, ""):
            person.send(message)
            seen.append(person.recv(SECONDS))
        person.send("bye")
        with pytest.raises(ConnectionClosed):
            person.recv(SECONDS)
        seen.append(person.close_code)
    return seen


ROOMS: Final = [
    Request(method="GET", path="/socket.io/?EIO=3&transport=polling"),
    Request(method="GET", path="/socket.io/?EIO=4&transport=polling&sid=nobody"),
    Request(method="OPTIONS", path="/socket.io/?EIO=4&transport=polling"),
    Request(method="GET", path="/elsewhere"),
]
SOCKETS: Final = [
    Request(method="GET", path="/"),
    Request(method="GET", path="/nothing"),
]

GUESTS: Final = [
    Guest(
        name="shop",
        server="asgi",
        target="shop.asgi:application",
        requests=SHOP,
        variable="SHOP_DATA",
        prepare=_make_shop,
    ),
    Guest(name="datasette", server="asgi", requests=DATASETTE, add_files=_make_plants),
    Guest(name="pypi", server="wsgi", requests=PYPI, variable="PYPI_PACKAGES", prepare=_make_index),
    Guest(name="notes", server="asgi", requests=NOTES, variable="NOTES_DATA"),
    Guest(name="rooms", server="asgi", requests=ROOMS),
    Guest(name="sockets", server="wsgi", requests=SOCKETS),
]
USES: Final[dict[str, Callable[[httpx.Client], list[object]]]] = {
    "shop": _use_shop,
    "pypi": _use_index,
    "rooms": lambda client: _talk(client) + _talk_over_websockets(client),
    "sockets": _echo,
}


@pytest.fixture(scope="module", params=GUESTS, ids=lambda guest: guest.name)
def visiting(request: pytest.FixtureRequest, running: Platform) -> Iterator[Visit]:
    """Each application in both places."""
    with visit(running, request.param) as made:
        yield made


def test_answers_are_those_of_a_plain_server(visiting: Visit) -> None:
    visiting.running.wait_for_zero(visiting.app)
    with visiting.app.client() as client:
        assert compare_all(visiting.guest.requests, visiting.plain, client) == []


def test_answers_to_a_hundred_clients_are_those_of_a_plain_server(visiting: Visit) -> None:
    requests, make_client = visiting.guest.requests, visiting.app.client

    assert compare_at_once(requests, visiting.plain, make_client, CLIENTS, EACH) == []


def test_what_people_do_with_it_goes_as_on_a_plain_server(visiting: Visit) -> None:
    use = USES.get(visiting.guest.name, _ask_once)
    with visiting.make_plain() as plain, visiting.app.client() as client:
        assert use(client) == use(plain)


def _ask_once(client: httpx.Client) -> list[object]:
    return [client.get("/").status_code]
