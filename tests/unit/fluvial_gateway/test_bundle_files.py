"""What a deleted deployment leaves on disk, and what others have too."""

from __future__ import annotations

from pathlib import Path

from fluvial_gateway.bundle_files import BundleFiles, Parts

OLD = Parts("blob-1", "bundle-1", "layer-1")


def home(folder: Path) -> BundleFiles:
    """A home with the files of `OLD`, and with others."""
    for name in ("blobs", "bundles", "layers"):
        (folder / name).mkdir()
    (folder / "blobs" / "blob-1").write_bytes(b"archive")
    for name in ("bundles/bundle-1", "bundles/bundle-2", "layers/layer-1"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "file").write_bytes(b"x")
    return BundleFiles(folder, folder / "blobs")


def names(folder: Path) -> set[str]:
    """What lies in the three folders."""
    return {str(path.relative_to(folder)) for path in folder.glob("*/*")}


def test_what_nobody_else_has_goes(tmp_path: Path) -> None:
    files = home(tmp_path)
    removed = files.remove(OLD, [Parts("blob-2", "bundle-2", "layer-1")])

    assert removed == ["blobs/blob-1", "bundles/bundle-1"]
    assert names(tmp_path) == {"bundles/bundle-2", "layers/layer-1"}


def test_removing_twice_is_removing_once(tmp_path: Path) -> None:
    files = home(tmp_path)
    assert len(files.remove(OLD, [])) == 3

    assert files.remove(OLD, []) == []


def test_a_deployment_without_a_layer_takes_none_along(tmp_path: Path) -> None:
    files = home(tmp_path)
    files.remove(Parts("blob-1", "bundle-1", ""), [])

    assert names(tmp_path) == {"bundles/bundle-2", "layers/layer-1"}


def test_what_was_left_half_removed_goes_with_the_next(tmp_path: Path) -> None:
    files = home(tmp_path)
    (tmp_path / "bundles" / "bundle-2").rename(tmp_path / "bundles" / ".gone-bundle-2")
    files.remove(OLD, [])

    assert names(tmp_path) == set()
