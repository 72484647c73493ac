"""The repository keeps its shape: packaging, documents and commands agree with each other."""

from __future__ import annotations

import queue
import re
import subprocess
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.mutants.listing import MUTANTS

REPO = Path(__file__).parents[1]
PACKAGES = {
    "sdk": "fluvial",
    "queue": "fluvial_queue",
    "gateway": "fluvial_gateway",
    "invoker": "fluvial_invoker",
    "deploy": "fluvial_deploy",
}
HOME_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root)/[\w.-]+")
TEXT_BYTES = 1_000_000  # no source file is larger; a larger one is data
README_LINES = 120
PAGES = sorted(path.relative_to(REPO).as_posix() for path in REPO.glob("docs/*.md"))
DOCUMENTS = [*PAGES, "README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"]


@pytest.mark.parametrize(("root", "package"), PACKAGES.items())
def test_source_root_exposes_only_its_package(root: str, package: str) -> None:
    importable = {
        path.stem
        for path in (REPO / root).iterdir()
        if path.is_dir() or path.suffix == ".py"
        if path.name != "__pycache__"
    }

    assert importable == {package}


def test_import_queue_is_the_standard_library() -> None:
    assert Path(queue.__file__ or "").parent == Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("package", [f"{root}/{name}" for root, name in PACKAGES.items()])
def test_package_is_marked_as_typed(package: str) -> None:
    assert (REPO / package / "py.typed").is_file()


def test_tracked_files_name_no_paths_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(REPO)}:{number}: {line.strip()}"
        for path in _tracked_files()
        for number, line in enumerate(_text(path).splitlines(), 1)
        if HOME_PATH.search(line) or str(REPO) in line
    ]

    assert found == []


def test_tracked_files_are_not_generated() -> None:
    generated = re.compile(r"(__pycache__|\.egg-info|\.pyc$|\.venv/|\.fluvial/|_cache/)")
    names = [path.relative_to(REPO).as_posix() for path in _tracked_files()]

    found = [name for name in names if generated.search(name)]

    assert found == []


@pytest.mark.parametrize("path", sorted({mutant.path for mutant in MUTANTS}))
def test_every_mutant_still_applies(path: str) -> None:
    source = (REPO / path).read_text("utf-8")

    for mutant in MUTANTS:
        if mutant.path == path:
            assert mutant.apply_to(source) != source


def test_version_is_the_newest_of_the_changelog() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    headings = re.findall(r"^## \[([^\]]+)\]", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")

    assert newest == project["version"] == version("fluvial")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_make_commands_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (REPO / document).read_text(), re.MULTILINE))

    assert named <= targets


def test_readme_is_short() -> None:
    assert len((REPO / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = REPO / document
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())

    missing = [link for link in links if not (path.parent / link).exists()]

    assert missing == []


def test_ci_runs_the_tests() -> None:
    script = REPO / ".ci" / "run"

    assert script.stat().st_mode & 0o111
    assert "make --no-print-directory test" in script.read_text()


def _tracked_files() -> list[Path]:
    """Return what is under version control, or everything in an unpacked source archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=REPO, capture_output=True, check=False
    )
    if listed.returncode != 0:
        folders = [*PACKAGES, "tests", "examples", "docs"]
        return [path for name in folders for path in (REPO / name).rglob("*") if path.is_file()]
    names = listed.stdout.decode().split("\0")
    return [REPO / name for name in names if name and (REPO / name).is_file()]


def _text(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > TEXT_BYTES or b"\0" in data[:1024]:
        return ""
    return data.decode("utf-8", "replace")
