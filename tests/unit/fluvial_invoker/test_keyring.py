import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_invoker.keyring import Keyring, KeyringError


def test_keys_are_made_once_and_read_back(tmp_path: Path) -> None:
    first = Keyring(tmp_path / "keyring").roots("demo")
    again = Keyring(tmp_path / "keyring").roots("demo")

    assert first == again
    current, roots = first
    assert len(roots[current]) == 32


def test_only_the_owner_can_read_a_key_file(tmp_path: Path) -> None:
    Keyring(tmp_path / "keyring").roots("demo")

    (file,) = (tmp_path / "keyring").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_racing_creators_agree(tmp_path: Path) -> None:
    def make() -> tuple[str, dict[str, bytes]]:
        return Keyring(tmp_path).roots("demo")

    with ThreadPoolExecutor(8) as pool:
        keys = [future.result() for future in [pool.submit(make) for _ in range(50)]]

    assert all(each == keys[0] for each in keys)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.key"]


def test_apps_have_different_keys(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)

    assert keyring.public_key("one") != keyring.public_key("two")
    assert keyring.public_key("one") == keyring.public_key("one")


@pytest.mark.parametrize("app", ["", "..", "a/b", "A", "a\0", "../x", "a" * 41, "a\n"])
def test_name_that_is_no_app_touches_no_file(tmp_path: Path, app: str) -> None:
    with pytest.raises(InvalidRequestError):
        Keyring(tmp_path / "keyring").roots(app)

    assert not (tmp_path / "keyring").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"version": 1}',
        b'{"version": 2, "current": "a", "roots": {"a": "' + b"A" * 43 + b'="}}',
        b'{"version": 1, "current": "b", "roots": {"a": "' + b"A" * 43 + b'="}}',
        b'{"version": 1, "current": "a", "roots": {"a": "QUJD"}}',
        b'{"version": 1, "current": "a", "roots": "c2VjcmV0"}',
    ],
)
def test_damaged_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo.key"
    path.write_bytes(content)

    with pytest.raises(KeyringError, match=r"demo\.key") as caught:
        Keyring(tmp_path).roots("demo")
    assert path.read_bytes() == content
    assert "c2VjcmV0" not in str(caught.value)


def test_file_names_its_format(tmp_path: Path) -> None:
    Keyring(tmp_path).roots("demo")

    plain = json.loads((tmp_path / "demo.key").read_text())
    assert plain["version"] == 1
    assert set(plain) == {"version", "current", "roots"}
