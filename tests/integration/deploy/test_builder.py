"""The builder as a program: archives in, reports or clear refusals out, no rests behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from fluvial.bundle import pack
from fluvial.wire import FrameType
from fluvial.wire import pack as pack_frame
from tests.e2e.processes import descendants

ASGI = "async def app(scope, receive, send): ...\n"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


def put(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_a_bundle_with_dependencies_is_built(builder: Any, source: Path) -> None:
    put(source, main__py=f"import shout\nassert shout.TEXT == 'HELLO'\n{ASGI}")
    put(source, requirements__txt="fluvial==99\nshout==1.0\n")
    answer = builder.build(source)

    report = answer.report
    assert report, (answer.code, answer.message)
    assert report["manifest"]["name"] == "app"
    functions: dict[str, Any] = {
        "entrypoint": "main:app",
        "interface": "asgi",
        "workflows": [],
        "steps": [],
        "crons": [],
        "files": [],
    }
    assert report["functions"] == functions
    assert names(builder.home / "layers" / report["layer"]) >= {"greet.py", "shout.py"}
    assert any("installing the dependencies of requirements.txt" in line for line in answer.log)
    assert any("shout==1.0" in line for line in answer.log)
    assert names(builder.home / "layers") == {report["layer"]}
    assert names(builder.home / "bundles") == {report["bundle"]}


def test_bytecode_needs_no_look_at_the_source(builder: Any, source: Path) -> None:
    put(source, main__py=ASGI, requirements__txt="greet")
    report = builder.build(source).report

    bundle, layer = (builder.home / f"{kind}s" / report[kind] for kind in ("bundle", "layer"))
    for folder in (bundle, layer):
        (compiled,) = (folder / "__pycache__").glob("*.pyc")
        data = compiled.read_bytes()
        assert data[:4] == MAGIC_NUMBER
        assert int.from_bytes(data[4:8], "little") == 0b01  # hash-based, unchecked
        assert str(folder).encode() in data  # tracebacks name the final folder


def test_the_second_build_of_equal_content_changes_nothing(builder: Any, source: Path) -> None:
    put(source, main__py=ASGI, requirements__txt="greet")
    first = builder.build(source).report
    made = [(builder.home / kind).stat().st_mtime_ns for kind in ("bundles", "layers")]
    answer = builder.build(source)

    assert answer.report == first
    assert [(builder.home / kind).stat().st_mtime_ns for kind in ("bundles", "layers")] == made
    assert "dependencies of requirements.txt: already installed" in answer.log


def test_a_layer_is_shared_by_bundles(builder: Any, source: Path) -> None:
    put(source, main__py=ASGI, requirements__txt="greet  # one\n")
    first = builder.build(source).report
    put(source, main__py=ASGI + "# two", requirements__txt="greet\n")
    second = builder.build(source).report

    assert first["bundle"] != second["bundle"]
    assert first["layer"] == second["layer"] != ""


@pytest.mark.parametrize(
    ("text", "interface"),
    [
        (ASGI, "asgi"),
        ("class App:\n async def __call__(self, scope, receive, send): ...\napp = App()", "asgi"),
        ("def app(environ, start_response): ...", "wsgi"),
        ("class App:\n def __call__(self, environ, start_response): ...\napp = App()", "wsgi"),
        ("def handler(request): ...", "handler"),
        ("async def handler(request): ...", "handler"),
        ("import functools\ndef f(a, request): ...\nhandler = functools.partial(f, 1)", "handler"),
        (
            "import http.server\nclass handler(http.server.BaseHTTPRequestHandler): ...",
            "http.server",
        ),
        ("def handler(event, context): ...", "lambda"),
    ],
)
def test_the_interface_is_recognised(builder: Any, source: Path, text: str, interface: str) -> None:
    report = builder.build(put(source, main__py=text)).report

    assert report["functions"]["interface"] == interface


def test_the_declared_interface_is_checked(builder: Any, source: Path) -> None:
    put(source, main__py="def app(a, b): ...", fluvial__toml="interface = 'lambda'")
    assert builder.build(source).report["functions"]["interface"] == "lambda"

    put(source, fluvial__toml="interface = 'handler'")
    answer = builder.build(source)
    assert answer.code == "no_entrypoint"
    assert "main:app: is a function, which cannot be called as 'handler'" in answer.message


def test_functions_in_files_are_all_imported(builder: Any, source: Path) -> None:
    (source / "api" / "users").mkdir(parents=True)
    put(source / "api", index__py="def app(environ, start_response): ...")
    (source / "api" / "users" / "[id].py").write_text("def handler(request): ...")
    answer = builder.build(source)
    functions = answer.report["functions"]

    assert (functions["entrypoint"], functions["interface"]) == (None, None)
    assert functions["files"] == ["api.index:app", "api.users.[id]:handler"]
    assert "found 2 function(s) below /api" in answer.log

    (source / "api" / "users" / "[id].py").write_text("app = 1")
    answer = builder.build(source)
    assert answer.code == "no_entrypoint"
    assert "api.users.[id]:app: is a int: expected an ASGI" in answer.message


@pytest.mark.parametrize(
    ("files", "code", "expected"),
    [
        ({"x.txt": ""}, "no_entrypoint", "none of app.py, index.py"),
        ({"main.py": "app = 3"}, "no_entrypoint", "main:app: is a int: expected an ASGI"),
        (
            {"main.py": "def app(a, b, c, d): ..."},
            "no_entrypoint",
            "main:app: is a function with 4 positional parameters",
        ),
        (
            {"main.py": "", "fluvial.toml": "app = 'main:server'"},
            "no_entrypoint",
            "main:server: main has no 'server'",
        ),
        (
            {"main.py": "", "fluvial.toml": "workflows = ['main']"},
            "no_entrypoint",
            "main: no workflow is defined there",
        ),
        ({"main.py": ASGI, "fluvial.toml": "nmae = 1"}, "manifest_invalid", "did you mean 'name'"),
        ({"main.py": "def app("}, "manifest_invalid", "main.py: is not valid Python"),
        (
            {"main.py": "import nonesuch\n" + ASGI},
            "import_failed",
            "ModuleNotFoundError: No module named 'nonesuch'",
        ),
        (
            {"main.py": "from inner import app", "inner.py": "1/0"},
            "import_failed",
            'File "inner.py", line 1, in <module>',
        ),
        ({"main.py": "from inner import app", "inner.py": "def ("}, "import_failed", "SyntaxError"),
        (
            {"main.py": ASGI + "raise SystemExit(3)"},
            "import_failed",
            "the module ended the process",
        ),
        (
            {"main.py": ASGI + "import os; os._exit(3)"},
            "import_failed",
            "ended its process (status 3)",
        ),
        (
            {"main.py": ASGI + "import os; os.kill(os.getpid(), 9)"},
            "import_failed",
            "ended its process (status -9)",
        ),
        ({"main.py": ASGI, "requirements.txt": "nonesuch"}, "dependencies_failed", "nonesuch"),
        ({"main.py": ASGI, "requirements.txt": "greet==2"}, "dependencies_failed", "greet==2"),
        ({"main.py": ASGI, "requirements.txt": "-e ."}, "dependencies_failed", "local packages"),
    ],
)
def test_a_mistake_is_refused_with_its_code(
    builder: Any, source: Path, files: dict[str, str], code: str, expected: str
) -> None:
    for name, text in files.items():
        (source / name).write_text(text)
    answer = builder.build(source)

    assert (answer.code, expected in answer.message) == (code, True), answer.message
    assert str(builder.home) not in answer.message
    assert names(builder.home / "bundles") == set()
    assert all(not name.startswith(".") for name in names(builder.home / "layers"))


def test_the_traceback_shows_the_bundles_own_part(builder: Any, source: Path) -> None:
    put(source, main__py=f"import json\njson.loads('x')\n{ASGI}")
    answer = builder.build(source)

    assert answer.message.splitlines()[:3] == [
        "importing the bundle failed:",
        "Traceback (most recent call last):",
        '  File "main.py", line 2, in <module>',
    ]
    assert "importlib" not in answer.message


def test_a_package_without_a_wheel_is_not_built(builder: Any, source: Path, wheels: Path) -> None:
    marker = source.parent / "executed"
    project = source.parent / "evil-1.0"
    project.mkdir()
    put(project, setup__py=f"open({str(marker)!r}, 'w')\n", pyproject__toml="")
    subprocess.run(
        ["tar", "czf", str(wheels / "evil-1.0.tar.gz"), "-C", str(source.parent), "evil-1.0"],
        check=True,
    )
    put(source, main__py=ASGI, requirements__txt="evil")
    answer = builder.build(source)

    assert answer.code == "dependencies_failed"
    assert not marker.exists()


def test_what_the_bundle_prints_is_log(builder: Any, source: Path) -> None:
    put(source, main__py=f"print('hi \\x1b[31mred')\n{ASGI}")
    answer = builder.build(source)

    assert answer.report
    assert "hi red" in answer.log


def test_the_import_sees_no_environment_and_not_the_platform(builder: Any, source: Path) -> None:
    lines = [
        "import os, sys",
        "assert not [k for k in os.environ if k[:3] in ('UV_', 'PIP')], os.environ",
        "assert {k for k in os.environ if k[:3] == 'FLU'} == {'FLUVIAL', 'FLUVIAL_APP', "
        "'FLUVIAL_BUILD'}, os.environ",
        "import fluvial.errors, msgpack",
        "for name in ('redis', 'starlette', 'fluvial_gateway', 'fluvial_deploy', 'httpx'):",
        "    try:",
        "        __import__(name)",
        "    except ImportError:",
        "        continue",
        "    raise AssertionError(name)",
    ]
    answer = builder.build(put(source, main__py="\n".join([*lines, ASGI])))

    assert answer.report, answer.message


def test_the_import_sees_the_manifests_variables_and_placeholders_for_the_apps(
    builder: Any, source: Path
) -> None:
    lines = [
        "import os",
        "assert os.environ['COLOUR'] == 'red'",
        "assert os.environ['TOKEN'] == '<TOKEN is known when the app runs>'",
        "assert os.environ['FLUVIAL_APP'] == 'app'",
    ]
    put(source, main__py="\n".join([*lines, ASGI]), fluvial__toml='[env]\nCOLOUR = "red"')
    answer = builder.build(source, variables=("TOKEN",))

    assert answer.report, answer.message
    assert answer.report["manifest"]["environment"] == {"COLOUR": "red"}


@pytest.mark.parametrize(
    "line",
    [
        "url = os.environ.get('URL', 'sqlite://'); assert '://' in url",
        "if 'FLUVIAL_BUILD' not in os.environ: int(os.environ['URL'])",
    ],
    ids=["default", "guard"],
)
def test_code_that_cannot_use_a_placeholder_may_do_without(
    builder: Any, source: Path, line: str
) -> None:
    put(source, main__py=f"import os\n{line}\n{ASGI}")
    answer = builder.build(source, variables=("URL",))

    assert answer.report, answer.message


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("int(os.environ['PORT'])", "PORT, URL hold placeholders: read them where they are used"),
        ("os.environ['OTHER']", "the variable OTHER is not set: `fluvial secret set app OTHER`"),
        ("{}['OTHER']", "PORT, URL hold placeholders"),
    ],
    ids=["placeholder", "missing", "another-key"],
)
def test_an_import_that_needs_a_variable_is_told_what_to_do(
    builder: Any, source: Path, line: str, advice: str
) -> None:
    put(source, main__py=f"import os\n{line}\n{ASGI}")
    answer = builder.build(source, variables=("PORT", "URL"))

    assert answer.code == "import_failed"
    assert advice in answer.message


@pytest.mark.parametrize(
    ("greedy", "reason"),
    [
        ("held = bytearray(3 * 1024**3)", "MemoryError"),
        ("import os; open(os.environ['HOME'] + '/x', 'wb').truncate(1024**3)", "File too large"),
    ],
)
def test_an_import_cannot_take_the_machine(
    builder: Any, source: Path, greedy: str, reason: str
) -> None:
    put(
        source, main__py=f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{greedy}\n"
    )
    put(source, fluvial__toml='workflows = ["main"]\n')
    answer = builder.build(source)

    assert answer.code == "import_failed"
    assert reason in answer.message


CRONS = """
from fluvial import Cron, Tick, workflow

@workflow(cron=Cron("0 3 * * *", timezone="Europe/Berlin", kwargs={"keep": 3}))
async def nightly(keep: int, tick: Tick) -> None: ...

@workflow
async def weekly() -> None: ...
"""
WEEKLY = """
[[cron]]
workflow = "main:weekly"
schedule = "@weekly"
"""


def test_crons_of_the_code_and_the_manifest_are_reported(builder: Any, source: Path) -> None:
    answer = builder.build(put(source, main__py=CRONS, fluvial__toml=WEEKLY))

    assert answer.report, answer.message
    nightly, weekly = answer.report["functions"]["crons"]
    assert (nightly["name"], nightly["timezone"], nightly["kwargs"], nightly["tick"]) == (
        "nightly",
        "Europe/Berlin",
        {"keep": 3},
        "tick",
    )
    assert (weekly["name"], weekly["workflow"], weekly["schedule"]) == (
        "weekly",
        "weekly",
        "@weekly",
    )
    assert "crons" not in answer.report["manifest"]
    assert "found 2 workflow(s), 2 cron(s)" in answer.log


@pytest.mark.parametrize(
    ("code", "manifest", "refusal", "expected"),
    [
        (CRONS.replace("0 3", "0 33"), "", "import_failed", "hour '33' is not possible"),
        (CRONS.replace('"keep": 3', '"keep": "x"'), "", "cron_invalid", "is not a valid int"),
        (CRONS, WEEKLY.replace("weekly", "monthly", 1), "cron_invalid", "'main:monthly' is not"),
        (CRONS, WEEKLY.replace("@weekly", "@reboot"), "manifest_invalid", "cron[0] schedule"),
        (ASGI, WEEKLY, "cron_invalid", "'main:weekly' is not registered by this bundle; known"),
    ],
)
def test_a_wrong_cron_refuses_the_deploy(
    builder: Any, source: Path, code: str, manifest: str, refusal: str, expected: str
) -> None:
    answer = builder.build(put(source, main__py=code, fluvial__toml=manifest))

    assert (answer.code, expected in answer.message) == (refusal, True), answer.message


def test_crons_that_a_bundle_forges_are_refused(builder: Any, source: Path) -> None:
    forged = "import fluvial.timetable\nfluvial.timetable.timetable = lambda *_: [Forged()]\n"
    forged += "class Forged:\n    def to_dict(self): return {'name': '../x', 'schedule': 3}\n"
    answer = builder.build(put(source, main__py=CRONS + forged))

    assert answer.code == "cron_invalid"


def test_many_crons_with_arguments_fit(builder: Any, source: Path) -> None:
    table = WEEKLY + f"args = ['{'x' * 600}']\n"
    tables = [f"{table}name = 'n{number}'\n" for number in range(90)]
    code = CRONS.replace("weekly()", "weekly(text: str)")
    answer = builder.build(put(source, main__py=code, fluvial__toml="\n".join(tables)))

    assert answer.report, answer.message
    assert len(answer.report["functions"]["crons"]) == 91


def test_an_altered_archive_is_refused(builder: Any, source: Path) -> None:
    put(source, main__py=ASGI)
    archive = builder.home / "blobs"
    archive.mkdir()
    (archive / "broken").write_bytes(b"not an archive")
    answer = builder.build_archive(archive / "broken")

    assert answer.code == "bundle_invalid"
    assert names(builder.home / "bundles") == set()


def test_threads_of_the_bundle_do_not_keep_the_inspection_alive(builder: Any, source: Path) -> None:
    text = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"

    assert builder.build(put(source, main__py=text + ASGI)).report


def test_concurrent_builds_are_all_answered(builder: Any, tmp_path: Path) -> None:
    archives: list[Path] = []
    for number in range(4):
        source = tmp_path / f"source-{number}"
        source.mkdir()
        put(source, main__py=f"{ASGI}# {number}", requirements__txt="greet")
        archives.append(pack(source, tmp_path / f"{number}.zst").archive)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(builder.build_archive, archives))

    assert all(answer.report for answer in answers)
    assert len(names(builder.home / "bundles")) == 4
    assert len(names(builder.home / "layers")) == 1


def test_a_caller_who_hangs_up_cancels_its_build(builder: Any, source: Path) -> None:
    fifo = builder.home / "started"
    os.mkfifo(fifo)
    text = f"open({str(fifo)!r}, 'w').close()\nimport time\ntime.sleep(600)\n{ASGI}"
    put(source, main__py=text)
    packed = pack(source, builder.home / "archive")
    request = {"archive": str(packed.archive), "digest": packed.digest, "name": "app"}
    with builder.dial() as connection:
        connection.sendall(pack_frame(FrameType.BUILD, 7, request))
        fifo.read_text()  # returns when the import has begun
    (source / "main.py").write_text(ASGI)

    assert builder.build(source).report  # not behind the sleeper
    assert packed.digest not in names(builder.home / "bundles")


def test_it_ends_by_itself_when_nothing_is_asked(
    starter: Callable[..., Any], tmp_path: Path
) -> None:
    builder = starter(tmp_path, FLUVIAL_BUILDER_IDLE="0.2")

    assert builder.process.wait(20) == 0
    assert builder.socket_path.exists()  # it belongs to the supervisor


def test_it_does_not_end_during_a_build(
    starter: Callable[..., Any], tmp_path: Path, source: Path
) -> None:
    builder = starter(tmp_path, FLUVIAL_BUILDER_IDLE="0.2")
    put(source, main__py=f"import time\ntime.sleep(0.6)\n{ASGI}")

    assert builder.build(source).report
    assert builder.process.wait(20) == 0


def test_imports_that_are_prepared_know_nothing_of_the_bundle_before(
    starter: Callable[..., Any], tmp_path: Path, source: Path, wheels: Path
) -> None:
    home = tmp_path / "dev"
    home.mkdir()
    offline = {"PIP_FIND_LINKS": str(wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
    builder = starter(home, FLUVIAL_BUILDER_DEV="1", **offline)
    flow = "from fluvial import workflow\n@workflow\nasync def first(): ...\n"
    put(source, main__py=f"import helper, os\nos.environ['LEFT'] = 'x'\n{flow}", helper__py="")
    put(source, fluvial__toml='workflows = ["main"]\n[env]\nCOLOUR = "red"\n')
    assert builder.build(source).report["functions"]["workflows"] == ["first"]
    [waiting] = descendants(builder.process.pid)

    (source / "helper.py").unlink()
    (source / "fluvial.toml").unlink()
    lines = [
        "import os, sys",
        f"assert os.getpid() == {waiting}, 'it was not prepared'",
        "assert 'helper' not in sys.modules and not {'COLOUR', 'LEFT'} & {*os.environ}",
        "assert os.getcwd() == os.path.dirname(__file__)",
    ]
    answer = builder.build(put(source, main__py="\n".join([*lines, ASGI])))
    assert answer.report, answer.message
    assert answer.report["functions"]["workflows"] == []

    [waiting] = descendants(builder.process.pid)
    lines = ["import os, shout", f"assert os.getpid() != {waiting}, 'of another layer'"]
    put(source, main__py="\n".join([*lines, ASGI]), requirements__txt="shout==1.0\n")
    answer = builder.build(source)
    assert answer.report, answer.message

    [waiting] = descendants(builder.process.pid)
    builder.process.terminate()
    assert builder.process.wait(20) == 0
    assert not Path(f"/proc/{waiting}").exists()


def test_rests_of_a_killed_builder_are_swept(
    starter: Callable[..., Any], tmp_path: Path, source: Path
) -> None:
    for kind in ("bundles", "layers"):
        (tmp_path / kind / ".half.done").mkdir(parents=True)
    builder = starter(tmp_path)

    assert builder.build(put(source, main__py=ASGI)).report
    assert not list(tmp_path.glob("*/.half.done"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked(
    starter: Callable[..., Any], tmp_path: Path, source: Path, number: signal.Signals
) -> None:
    builder = starter(tmp_path)
    assert builder.build(put(source, main__py=ASGI)).report  # its handlers are installed
    builder.process.send_signal(number)

    assert builder.process.wait(20) == 0


@pytest.mark.parametrize("name", ["FLUVIAL_HOME", "FLUVIAL_BUILDER_FD"])
def test_a_wrong_setting_is_named(name: str) -> None:
    environment = {"FLUVIAL_HOME": "/tmp", "FLUVIAL_BUILDER_FD": "3", name: "wrong"}
    done = subprocess.run(
        [sys.executable, "-m", "fluvial_deploy.builder"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "request_map",
    [
        {},
        {"archive": "relative", "digest": "0" * 64},
        {"archive": "/x", "digest": "../../etc"},
        {"archive": "/x", "digest": "0" * 64, "name": 3},
        "text",
    ],
)
def test_a_wrong_request_is_refused(builder: Any, request_map: object) -> None:
    assert builder.ask(pack_frame(FrameType.BUILD, 7, request_map)).code == "invalid_request"


def test_a_missing_archive_is_refused_and_the_builder_goes_on(builder: Any, source: Path) -> None:
    missing = {"archive": "/nonexistent/archive", "digest": "0" * 64, "name": "app"}

    assert builder.ask(pack_frame(FrameType.BUILD, 7, missing)).code == "bundle_invalid"
    assert builder.build(put(source, main__py=ASGI)).report
