"""The keyring: keys are made, rotated, destroyed and frozen, and wrapped by a KMS command."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_invoker.key_file_format import KeyForm
from fluvial_invoker.key_files import KeyFile, KeyringError
from fluvial_invoker.keyring import (
    KeyIsCurrentError,
    KeyNotFoundError,
    Keyring,
    LoadedKeys,
    NoKmsError,
)
from fluvial_invoker.kms import KmsCommand, KmsError
from fluvial_invoker.root_keys import RootKey
from tests.unit.fluvial_invoker.test_kms import TURNING

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


async def loaded(keyring: Keyring, app: str = "demo") -> LoadedKeys:
    await keyring.load(app)
    return keyring.loaded(app)


def roots(keys: LoadedKeys) -> dict[str, bytes]:
    return {key_id: bytes(root.material) for key_id, root in keys.roots.items()}


def counting_kms(folder: Path) -> tuple[KmsCommand, Path]:
    """A KMS command that keeps a list of what it was asked."""
    asked = folder / "asked"
    log = f"import sys; open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
    return KmsCommand([sys.executable, "-c", log + TURNING]), asked


def test_keys_are_made_once_and_read_back(tmp_path: Path) -> None:
    first = run(loaded(Keyring(tmp_path / "keyring")))
    again = run(loaded(Keyring(tmp_path / "keyring")))

    assert roots(first) == roots(again)
    assert len(roots(first)[first.content.current]) == 32


def test_apps_have_different_keys(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    one, two = run(keyring.content("one")), run(keyring.content("two"))

    assert one.keys[0].public_key != two.keys[0].public_key
    assert run(keyring.content("one")) == one


@pytest.mark.parametrize("app", ["", "..", "a/b", "A", "a\0", "../x", "a" * 41, "a\n"])
def test_name_that_is_no_app_touches_no_file(tmp_path: Path, app: str) -> None:
    keyring = Keyring(tmp_path / "keyring")
    for operation in (keyring.load, keyring.content, keyring.freeze, keyring.rewrap):
        with pytest.raises((InvalidRequestError, NoKmsError)):
            run(operation(app))

    assert not (tmp_path / "keyring").exists()


def test_a_rotation_adds_a_key_and_keeps_the_old_one(tmp_path: Path) -> None:
    async def main() -> None:
        keyring = Keyring(tmp_path)
        before = roots(await loaded(keyring))
        await keyring.rotate("demo", "00000001")
        after = keyring.loaded("demo")

        assert after.content.current == "00000001"
        assert list(after.roots) == [*before, "00000001"]
        assert roots(after).items() > before.items()
        assert roots(await loaded(Keyring(tmp_path))) == roots(after)

    run(main())


def test_a_rotation_that_is_asked_for_again_is_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        one, other = Keyring(tmp_path), Keyring(tmp_path)
        await one.rotate("demo", "00000001")
        await one.rotate("demo", "00000001")
        await other.rotate("demo", "00000001")

        assert len((await one.content("demo")).keys) == 2
        assert roots(await loaded(one)) == roots(await loaded(other))

    run(main())


@pytest.mark.parametrize("key_id", ["", "1", "0000000G", "../../aa", "00000001x"])
def test_a_key_id_that_is_none_is_refused(tmp_path: Path, key_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="not a key id"):
        run(Keyring(tmp_path).rotate("demo", key_id))


def test_what_another_invoker_has_changed_is_read_again(tmp_path: Path) -> None:
    async def main() -> None:
        one, other = Keyring(tmp_path), Keyring(tmp_path)
        await loaded(one)
        await other.rotate("demo", "00000001")
        await one.rotate("demo", "00000002")
        keys = await loaded(other)

        assert keys.content.current == "00000002"
        assert list(keys.roots)[1:] == ["00000001", "00000002"]

    run(main())


def test_a_destroyed_key_is_gone_from_disk_and_from_memory(tmp_path: Path) -> None:
    async def main() -> None:
        keyring = Keyring(tmp_path)
        await keyring.rotate("demo", "00000001")
        keys = keyring.loaded("demo")
        old_id, held = next(iter(keys.roots.items()))
        root = bytes(held.material)
        await keyring.destroy("demo", old_id)
        await keyring.destroy("demo", old_id)  # once more changes nothing
        after = await loaded(keyring)

        assert not any(held.material)
        assert list(after.roots) == ["00000001"]
        assert list(after.destroyed) == [old_id]
        assert root not in KeyFile(tmp_path, "demo").path.read_bytes()

    run(main())


def test_the_current_key_and_an_unknown_one_are_not_destroyed(tmp_path: Path) -> None:
    async def main() -> None:
        keyring = Keyring(tmp_path)
        current = (await keyring.content("demo")).current
        with pytest.raises(KeyIsCurrentError, match="rotate first"):
            await keyring.destroy("demo", current)
        with pytest.raises(KeyNotFoundError, match="no key 'k9'"):
            await keyring.destroy("demo", "k9")

        assert list((await loaded(keyring)).roots) == [current]

    run(main())


def test_a_key_can_be_destroyed_that_was_never_loaded_here(tmp_path: Path) -> None:
    async def main() -> None:
        first = await loaded(Keyring(tmp_path))
        await Keyring(tmp_path).rotate("demo", "00000001")
        await Keyring(tmp_path).destroy("demo", first.content.current)

        assert list((await loaded(Keyring(tmp_path))).roots) == ["00000001"]

    run(main())


def test_freezing_is_written_down_and_undone(tmp_path: Path) -> None:
    async def main() -> None:
        keyring = Keyring(tmp_path)
        await keyring.freeze("demo")
        since = (await loaded(Keyring(tmp_path))).content.frozen_ms
        await keyring.freeze("demo")
        assert (await keyring.content("demo")).frozen_ms == since
        await keyring.thaw("demo")

        assert since is not None
        assert (await loaded(Keyring(tmp_path))).content.frozen_ms is None

    run(main())


def test_a_key_that_is_not_what_it_was_is_damage(tmp_path: Path) -> None:
    async def main() -> None:
        file = KeyFile(tmp_path, "demo")
        current = (await Keyring(tmp_path).content("demo")).current
        data = bytearray(file.path.read_bytes())
        data[-1] ^= 1
        file.path.write_bytes(data)

        with pytest.raises(KeyringError, match=f"{current} of app demo is not what it was"):
            await Keyring(tmp_path).load("demo")

    run(main())


def test_a_file_that_goes_away_is_not_replaced_while_its_keys_are_in_memory(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        keyring = Keyring(tmp_path)
        before = roots(await loaded(keyring))
        file = KeyFile(tmp_path, "demo").path
        copy = file.read_bytes()
        file.unlink()
        for operation in (keyring.load, keyring.content, keyring.freeze):
            with pytest.raises(KeyringError, match="has gone away: put it back"):
                await operation("demo")
        assert not file.exists()
        file.write_bytes(copy)

        assert roots(await loaded(keyring)) == before

    run(main())


# The KMS command


def test_wrapped_keys_are_in_no_file_and_open_again(tmp_path: Path) -> None:
    async def main() -> None:
        kms, _ = counting_kms(tmp_path)
        keyring = Keyring(tmp_path / "keyring", kms)
        await keyring.rotate("demo", "00000001")
        keys = keyring.loaded("demo")
        written = KeyFile(tmp_path / "keyring", "demo").path.read_bytes()

        assert all(key.form is KeyForm.WRAPPED for key in keys.content.keys)
        for root in roots(keys).values():
            for form in (root, root.hex().encode(), base64.b64encode(root)):
                assert form not in written
        assert roots(await loaded(Keyring(tmp_path / "keyring", kms))) == roots(keys)

    run(main())


def test_a_key_is_unwrapped_once(tmp_path: Path) -> None:
    async def main() -> None:
        kms, asked = counting_kms(tmp_path)
        await Keyring(tmp_path / "keyring", kms).load("demo")
        asked.unlink()
        keyring = Keyring(tmp_path / "keyring", kms)
        for _ in range(3):
            await keyring.load("demo")
        current = keyring.loaded("demo").content.current
        await keyring.freeze("demo")
        await keyring.load("demo")

        assert asked.read_text().splitlines() == [f"unwrap demo {current}"]

    run(main())


def test_plain_keys_are_wrapped_by_a_rewrap(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "keyring"
        before = roots(await loaded(Keyring(folder)))
        kms, _ = counting_kms(tmp_path)
        keyring = Keyring(folder, kms)
        await keyring.rotate("demo", "00000001")  # one is plain now, one is wrapped
        mixed = roots(await loaded(Keyring(folder, kms)))
        await keyring.rewrap("demo")
        written = KeyFile(folder, "demo").path.read_bytes()

        assert mixed.items() > before.items()
        assert roots(keyring.loaded("demo")) == mixed
        assert roots(await loaded(Keyring(folder, kms))) == mixed
        assert not any(root in written for root in mixed.values())

    run(main())


def test_a_key_file_of_the_first_version_can_be_wrapped(tmp_path: Path) -> None:
    async def main() -> None:
        root = bytes(range(32))
        old = {"version": 1, "current": "k1", "roots": {"k1": base64.b64encode(root).decode()}}
        (tmp_path / "demo.key").write_text(json.dumps(old))
        kms, _ = counting_kms(tmp_path)
        await Keyring(tmp_path, kms).rewrap("demo")

        assert base64.b64encode(root) not in (tmp_path / "demo.key").read_bytes()
        assert roots(await loaded(Keyring(tmp_path, kms))) == {"k1": root}

    run(main())


def test_wrapped_keys_need_the_command(tmp_path: Path) -> None:
    async def main() -> None:
        kms, _ = counting_kms(tmp_path)
        await Keyring(tmp_path, kms).load("demo")
        keyring = Keyring(tmp_path)

        with pytest.raises(NoKmsError, match="--kms-command"):
            await keyring.load("demo")
        with pytest.raises(NoKmsError):
            await keyring.rewrap("demo")
        assert (await keyring.content("demo")).keys[0].form is KeyForm.WRAPPED

    run(main())


def test_a_command_that_returns_another_key_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        kms, _ = counting_kms(tmp_path)
        await Keyring(tmp_path, kms).load("demo")
        other = KmsCommand([sys.executable, "-c", "print('x' * 31)"])

        with pytest.raises(KeyringError, match="is not what it was"):
            await Keyring(tmp_path, other).load("demo")

    run(main())


def test_a_key_that_cannot_be_unwrapped_can_be_destroyed(tmp_path: Path) -> None:
    async def main() -> None:
        kms, _ = counting_kms(tmp_path)
        keyring = Keyring(tmp_path, kms)
        old = (await loaded(keyring)).content.current
        await keyring.rotate("demo", "00000001")
        broken = KmsCommand([sys.executable, "-c", "import sys; sys.exit(1)"])
        with pytest.raises(KmsError, match="exit status 1"):
            await Keyring(tmp_path, broken).load("demo")
        await Keyring(tmp_path, broken).destroy("demo", old)

        assert list((await loaded(keyring)).roots) == ["00000001"]

    run(main())


def test_a_failing_command_makes_no_key(tmp_path: Path) -> None:
    async def main() -> None:
        await Keyring(tmp_path).load("demo")
        before = (tmp_path / "demo.key").read_bytes()
        broken = Keyring(tmp_path, KmsCommand([sys.executable, "-c", "import sys; sys.exit(1)"]))
        for operation in (broken.rotate("demo", "00000001"), broken.rewrap("demo")):
            with pytest.raises(KmsError):
                await operation
        with pytest.raises(KmsError):
            await broken.load("other")

        assert (tmp_path / "demo.key").read_bytes() == before
        assert not (tmp_path / "other.key").exists()

    run(main())


def test_a_root_key_does_not_show_itself() -> None:
    root = RootKey(bytearray(b"r" * 32))

    assert "rr" not in repr(root)
