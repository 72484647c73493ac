"""What a bundle's requirements mean, and which layers are shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluvial_deploy.builder.refusals import DependenciesFailedError
from fluvial_deploy.builder.requirements import (
    Requirements,
    declared_requirements,
    has_lock,
    locked_requirements,
)


def declared(directory: Path, **files: str) -> Requirements | None:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return declared_requirements(directory)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chess==1.10.0\nhttpx>=0.28  # client\n", "chess==1.10.0\nhttpx>=0.28\n"),
        ("# only\n\n   \n", None),
        ("fluvial==0.1.0\nchess\n", "chess\n"),
        ("Fluvial[dev] >= 0.1\nchess\n", "chess\n"),
        ("fluvial @ https://example.com/fluvial.whl\nchess", "chess\n"),
        ("fluvial\n", None),
        ("fluvial-extras\nfluvialite\n", "fluvial-extras\nfluvialite\n"),
        ("chess==1.10.0 \\\n    --hash=sha256:aa\n", "chess==1.10.0      --hash=sha256:aa\n"),
        ("\ufeffchess\r\n", "chess\n"),
        ("x @ https://example.com/x#sha256=1", "x @ https://example.com/x#sha256=1\n"),
    ],
)
def test_requirements_txt(tmp_path: Path, text: str, expected: str | None) -> None:
    found = declared(tmp_path, requirements__txt=text)

    assert (found.text if found else None) == expected


def test_included_files_become_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/base.txt").write_text("httpx\n-r ../requirements.txt\n")
    found = declared(tmp_path, requirements__txt="-r more/base.txt\nchess\n")

    assert found is not None
    assert found.text == "httpx\nchess\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-r /etc/passwd", "no such file in the bundle"),
        ("-r ../outside.txt", "no such file in the bundle"),
        ("-r missing.txt", "no such file in the bundle"),
        ("-e .", "local packages"),
        (".", "local packages"),
        ("./vendor/x.whl", "local packages"),
        ("vendor/x.whl", "local packages"),
        ("/opt/x.whl", "local packages"),
        ("file:///etc", "local packages"),
        ("x @ file:///opt/x.whl", "local packages"),
        ("x@./x.whl", "local packages"),
        ("-c constraints.txt", "constraints are not supported"),
        ("--index-url https://example.com", "options are not supported here; set indexes"),
        ("--no-binary :all:", "options are not supported"),
        ("chess --index-url https://example.com", "options other than --hash"),
        ("chess -r /etc/passwd", "options other than --hash"),
        ("x @ https://example.com/${UV_INDEX_PASSWORD}/x.whl", "variables are not supported"),
        ("chess\x00", "control characters"),
        ("chess \\\n-r /etc/passwd", "options other than --hash"),
    ],
)
def test_what_a_bundle_cannot_ask_for(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "outside.txt").write_text("chess")
    (tmp_path / "bundle").mkdir()

    with pytest.raises(DependenciesFailedError, match=reason):
        declared(tmp_path / "bundle", requirements__txt=f"chess\n{line}\n")


def test_project_dependencies(tmp_path: Path) -> None:
    text = '[project]\ndependencies = ["httpx>=0.28", "fluvial>=0.1", "chess"]'
    found = declared(tmp_path, pyproject__toml=text)

    assert found is not None
    assert (found.source, found.text) == ("pyproject.toml", "httpx>=0.28\nchess\n")


@pytest.mark.parametrize("value", ["3", "['x', 3]", "['x\\n-r y']", "{}"])
def test_project_dependencies_that_are_no_list_of_strings(tmp_path: Path, value: str) -> None:
    text = f"[project]\ndependencies = {value}".replace("'", '"')

    with pytest.raises(DependenciesFailedError, match=r"\[project\] dependencies: must be"):
        declared(tmp_path, pyproject__toml=text)


def test_requirements_txt_goes_before_pyproject(tmp_path: Path) -> None:
    text = '[project]\ndependencies = ["httpx"]'
    found = declared(tmp_path, pyproject__toml=text, requirements__txt="chess")

    assert found is not None
    assert found.source == "requirements.txt"


def test_nothing_is_asked_for(tmp_path: Path) -> None:
    assert declared(tmp_path) is None
    assert not has_lock(tmp_path)


def test_a_lock_without_fluvial_and_its_hashes() -> None:
    exported = (
        "fluvial==0.1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "chess==1.10.0 \\\n    --hash=sha256:cc\n"
    )
    found = locked_requirements(exported)

    assert found is not None
    assert found.text == "chess==1.10.0 \\\n--hash=sha256:cc\n"


def test_a_lock_with_local_packages_is_refused() -> None:
    with pytest.raises(DependenciesFailedError, match="local packages"):
        locked_requirements("-e ./libs/shared\nchess==1.10.0\n")


def test_layers_are_shared_by_equal_requirements_alone() -> None:
    one = Requirements("requirements.txt", "chess\n")
    same = Requirements("pyproject.toml", "chess\n")
    other = Requirements("requirements.txt", "httpx\n")

    assert one.key(source_builds=False) == same.key(source_builds=False)
    assert one.key(source_builds=False) != other.key(source_builds=False)
    assert one.key(source_builds=False) != one.key(source_builds=True)


@pytest.mark.parametrize("end", ["\\r", "\\u000b", "\\u0085", "\\u2028"])
def test_a_project_dependency_is_one_line_for_the_installer_too(tmp_path: Path, end: str) -> None:
    text = f'[project]\ndependencies = ["chess{end}--index-url https://example.com"]'

    with pytest.raises(DependenciesFailedError, match=r"control characters|options other"):
        declared(tmp_path, pyproject__toml=text)


@pytest.mark.parametrize("line", ["    -r /etc/passwd", "    --index-url https://example.com"])
def test_a_lock_cannot_smuggle_options_behind_a_requirement(line: str) -> None:
    with pytest.raises(DependenciesFailedError, match="options other than --hash"):
        locked_requirements(f"chess==1.10.0 \\\n{line}\n")
