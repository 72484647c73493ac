"""One file, one function: which files are functions, and which of them answers a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluvial.errors import ManifestError
from fluvial.file_functions import MAX_FILES, Routes, find_file_functions, route_of

TARGETS = (
    "api.index:app",
    "api.hello:handler",
    "api.users.index:app",
    "api.users.[id]:app",
    "api.users.me:app",
    "api.users.[id].posts.[post]:app",
    "api.users.me.posts.latest:app",
    "api.[any]:app",
)


def put(folder: Path, *names: str, text: str = "app = 1") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("path", "target", "segments"),
    [
        ("/api", "api.index:app", {}),
        ("/api/", "api.index:app", {}),
        ("/api/hello", "api.hello:handler", {}),
        ("/api/hello/", "api.hello:handler", {}),
        ("/api/other", "api.[any]:app", {"any": "other"}),
        ("/api/users", "api.users.index:app", {}),
        ("/api/users/7", "api.users.[id]:app", {"id": "7"}),
        ("/api/users/me", "api.users.me:app", {}),
        ("/api/users/a%2Fb", "api.users.[id]:app", {"id": "a/b"}),
        ("/api/users/me/posts/latest", "api.users.me.posts.latest:app", {}),
        # The literal branch leads nowhere, so the dynamic one is taken from there on.
        (
            "/api/users/me/posts/3",
            "api.users.[id].posts.[post]:app",
            {"id": "me", "post": "3"},
        ),
    ],
)
def test_the_most_specific_function_answers(
    path: str, target: str, segments: dict[str, str]
) -> None:
    assert Routes(TARGETS).match(path) == (target, segments)


@pytest.mark.parametrize("path", ["/", "/users", "/api/users/7/posts", "/api/a/b", "/api//posts"])
def test_other_paths_have_no_function(path: str) -> None:
    assert Routes(TARGETS).match(path) is None


def test_a_function_names_its_route() -> None:
    routes = [route_of(target) for target in TARGETS[:4]]

    assert routes == ["/api", "/api/hello", "/api/users", "/api/users/[id]"]


def test_a_file_is_a_function_if_it_defines_one(tmp_path: Path) -> None:
    put(tmp_path, "api/a.py", "api/b/[c].py", "api/_private.py", "api/.hidden/d.py")
    put(tmp_path, "api/__init__.py", "api/_lib/e.py", "api/read.me", "other/f.py")
    put(tmp_path, "api/models.py", text="x = 1")
    put(tmp_path, "api/jobs.py", text="@workflow\nasync def job(): ...")
    found = find_file_functions(tmp_path)

    assert found.targets == ("api.a:app", "api.b.[c]:app")
    assert found.workflows == ("api.jobs",)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["api/a.py", "api/a/index.py"], r"answers /api/a, and so does api/a"),
        (["api/[a].py", "api/[b]/c.py"], r"\[a\] and \[b\] stand for the same segment|keep one"),
        (["api/[...rest].py"], r"'\[\.\.\.rest\]' is no segment"),
        (["api/[[a]].py"], "is no segment"),
        (["api/a.b.py"], r"'a\.b' is no segment"),
    ],
)
def test_files_that_stand_for_no_path_of_their_own_are_refused(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    with pytest.raises(ManifestError, match=reason):
        find_file_functions(put(tmp_path, *names))


def test_there_are_not_too_many(tmp_path: Path) -> None:
    put(tmp_path, *(f"api/f{number}.py" for number in range(MAX_FILES + 1)))

    with pytest.raises(ManifestError, match=f"{MAX_FILES + 1} functions, above {MAX_FILES}"):
        find_file_functions(tmp_path)
