from importlib.metadata import version
from pathlib import Path

from fluvial_invoker.layers import conflicts


def install(layer: Path, name: str, release: str) -> None:
    folder = layer / f"{name}-{release}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")


def test_same_version_and_strangers_do_not_conflict(tmp_path: Path) -> None:
    install(tmp_path, "msgpack", version("msgpack"))
    install(tmp_path, "flask", "1.0")

    assert conflicts(tmp_path) == ()


def test_another_version_of_a_lent_package_conflicts(tmp_path: Path) -> None:
    install(tmp_path, "Msgpack", "0.1")

    assert conflicts(tmp_path) == (f"msgpack 0.1 (the platform has {version('msgpack')})",)


def test_empty_or_missing_layer_has_no_conflicts(tmp_path: Path) -> None:
    assert conflicts(tmp_path) == conflicts(tmp_path / "nowhere") == ()
