"""What a manifest may say, and what a person who makes a mistake is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fluvial.crons import Cron
from fluvial.errors import ManifestError, NoEntrypointError
from fluvial.manifest import APP_NAME, InstanceSettings, load_manifest, normalise_name

FULL = """
[tool.fluvial]
name = "orders"
app = "web.main:app"
workflows = ["web.jobs", "web.mail"]
source_builds = true
retention = "30d"
[tool.fluvial.instance]
memory = "256MiB"
max_concurrency = 50
idle = "1.5m"
min_instances = 1
max_instances = 4
max_duration = 30
isolation = "process"
compression = false
on_disconnect = "notify"
snapshot = "off"
warm_up = "/ready?deep=1"
[tool.fluvial.env]
GREETING = "hi"
"""


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_every_key_is_read(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path, {"pyproject.toml": FULL}))

    assert (manifest.name, manifest.app) == ("orders", "web.main:app")
    assert manifest.workflows == ("web.jobs", "web.mail")
    assert manifest.source_builds
    assert manifest.retention_seconds == 30 * 86_400
    assert manifest.instance == InstanceSettings(
        memory_bytes=256 * 2**20,
        max_concurrency=50,
        idle_seconds=90.0,
        min_instances=1,
        max_instances=4,
        max_duration_seconds=30.0,
        isolation="process",
        compression=False,
        on_disconnect="notify",
        snapshot="off",
        warm_up="/ready?deep=1",
    )
    assert manifest.environment == {"GREETING": "hi"}


def test_fluvial_toml_has_no_prefix(tmp_path: Path) -> None:
    text = FULL.replace("[tool.fluvial]\n", "").replace("[tool.fluvial.", "[")

    assert load_manifest(write(tmp_path, {"fluvial.toml": text})).name == "orders"


def test_two_manifests_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"fluvial.toml": "", "pyproject.toml": "[tool.fluvial]"})

    with pytest.raises(ManifestError, match=r"keep one"):
        load_manifest(tmp_path)


def test_a_pyproject_without_our_table_may_stand_beside_fluvial_toml(tmp_path: Path) -> None:
    files = {"fluvial.toml": 'name = "x"', "pyproject.toml": "[tool.ruff]", "main.py": "app = 1"}

    assert load_manifest(write(tmp_path, files)).name == "x"


def test_everything_has_a_default(tmp_path: Path) -> None:
    directory = tmp_path / "My_Shop 2"
    directory.mkdir()
    manifest = load_manifest(write(directory, {"main.py": "app = 1"}))

    assert (manifest.name, manifest.app, manifest.workflows) == ("my-shop-2", "main:app", ())
    assert manifest.instance == InstanceSettings()


def test_a_given_name_wins_over_the_manifest(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": FULL})

    assert load_manifest(tmp_path, name="other").name == "other"


@pytest.mark.parametrize(
    "text",
    ["My_Shop", "99 bottles", "---", "", "a" * 99, "a" * 39 + "-b", "Ünïcode", "x.y", "-a-"],
)
def test_normalised_names_are_valid(text: str) -> None:
    assert APP_NAME.fullmatch(normalise_name(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmae = 'x'", "nmae: is not a known key: did you mean 'name'? known are name, app"),
        ("zzz = 1", "zzz: is not a known key: known are"),
        ("instance = {memmory = '1MiB'}", "instance memmory: is not a known key: did you mean"),
        ("instance = 3", "instance: must be a table"),
        ("name = 'Shop'", "name: must be 1 to 40"),
        ("name = 'a-'", "name: must be 1 to 40"),
        ("name = 3", "name: must be 1 to 40"),
        ("app = 'main'", 'app: must be "module:attribute"'),
        ("app = ['main:app']", 'app: must be "module:attribute"'),
        ("workflows = 'main'", "workflows: must be a list of modules"),
        ("workflows = ['main:x']", "workflows: must be a list of modules"),
        ("workflows = [3]", "workflows: must be a list of modules"),
        ("instance = {memory = '12 parsec'}", "memory: must be a size"),
        ("instance = {memory = '1MiB'}", "memory: must be at least"),
        ("instance = {memory = true}", "memory: must be a size"),
        ("instance = {memory = -1}", "memory: must be a size"),
        ("instance = {idle = 'soon'}", "idle: must be a duration"),
        ("instance = {idle = inf}", "idle: must be a duration"),
        ("instance = {idle = nan}", "idle: must be a duration"),
        ("instance = {idle = '2d'}", "idle: must be 0 s to 86400 s"),
        ("instance = {max_duration = 0}", "max_duration: must be 0.001 s"),
        ("instance = {max_concurrency = 0}", "max_concurrency: must be 1 to"),
        ("instance = {max_concurrency = 1.5}", "max_concurrency: must be 1 to"),
        ("instance = {max_instances = true}", "max_instances: must be 1 to"),
        ("instance = {min_instances = 9}", "min_instances: is above max_instances: 9 > 8"),
        ("instance = {snapshot = false}", "snapshot: must be 'auto' or 'off', got False"),
        ("instance = {warm_up = 'ready'}", "warm_up: must be a path such as"),
        ("instance = {warm_up = '/a b'}", "warm_up: must be a path such as"),
        ("instance = {compression = 0}", "compression: must be true or false, got 0"),
        (
            'instance = {on_disconnect = "go"}',
            "on_disconnect: must be 'cancel' or 'notify', got 'go'",
        ),
        ("instance = {isolation = 'vm'}", "isolation: must be 'process' or 'jail', got 'vm'"),
        (
            "instance = {isolation = ['jail']}",
            "isolation: must be 'process' or 'jail', got ['jail']",
        ),
        ("instance = {network = false}", "network: needs isolation = 'jail'"),
        (
            "instance = {isolation = 'jail', network = [0]}",
            "network: must have ports from 1 to 65535, got [0]",
        ),
        ("source_builds = 'yes'", "source_builds: must be true or false"),
        ("retention = 'for ever'", "retention: must be a duration such as"),
        ("retention = -1", "retention: must be a duration such as"),
        ("[[cron]]\nworkflow = 'main:x'", "cron[0]: lacks the key 'schedule'"),
        ("[[cron]]\nschedule = '@daily'", "cron[0]: lacks the key 'workflow'"),
        ("[[cron]]\nworkflow = 1\nschedule = '@daily'", "cron[0] workflow: must be a name or"),
        (
            "[[cron]]\nworkflow = 'x'\nschedule = '@daily'\n"
            "[[cron]]\nworkflow = 'x'\nschedule = '0 25 * * *'",
            "cron[1] schedule: '0 25 * * *': hour '25' is not possible; allowed are 0-23",
        ),
        (
            "[[cron]]\nworkflow = 'x'\nschedule = '@daily'\ntimezone = 'Europe/Paris '",
            "cron[0] timezone: 'Europe/Paris ' is not a time zone: did you mean 'Europe/Paris'?",
        ),
        (
            "[[cron]]\nworkflow = 'x'\nschedule = '@daily'\nzone = 'UTC'",
            "cron[0] zone: is not a known key: did you mean 'timezone'? known are workflow,",
        ),
        ("cron = 3", "cron[0]: must be a table, got 3"),
        ("name = ", "is not TOML"),
        ("a = " + "[" * 20_000, "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path, {"fluvial.toml": text, "main.py": "app = 1"})

    with pytest.raises(ManifestError, match=re.escape(expected)) as caught:
        load_manifest(tmp_path)

    assert "fluvial.toml" in str(caught.value)


def test_crons_are_read_with_toml_values(tmp_path: Path) -> None:
    text = """
        [[cron]]
        workflow = "main:nightly"
        schedule = "0 3 * * *"
        timezone = "Europe/Berlin"
        name = "early"
        overlap = "queue"
        catch_up = "all"
        catch_up_limit = 3
        catch_up_window = "2h"
        jitter = "30s"
        args = ["eu", 3]
        kwargs = {since = 2026-01-31, at = [2026-01-31T03:00:00Z, 03:00:00], deep = {a = 1.5}}
        [[cron]]
        workflow = "hourly"
        schedule = "@hourly"
    """
    write(tmp_path, {"fluvial.toml": text, "main.py": "app = 1"})

    first, second = load_manifest(tmp_path).crons

    assert (first.workflow, second.workflow) == ("main:nightly", "hourly")
    assert first.cron == Cron(
        "0 3 * * *",
        name="early",
        timezone="Europe/Berlin",
        overlap="queue",
        catch_up="all",
        catch_up_limit=3,
        catch_up_window="2h",
        jitter="30s",
        args=["eu", 3],
        kwargs={
            "since": "2026-01-31",
            "at": ["2026-01-31T03:00:00+00:00", "03:00:00"],
            "deep": {"a": 1.5},
        },
    )
    assert second.cron == Cron("@hourly")


def test_a_manifest_that_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fluvial.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="is not TOML"):
        load_manifest(tmp_path)

    (tmp_path / "fluvial.toml").write_text("#" * (2**20 + 1))
    with pytest.raises(ManifestError, match="above 1048576"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main.py": "app = 1"}, "main:app"),
        ({"main.py": "from httpbin import app"}, "main:app"),
        ({"main.py": "from x import create as application"}, "main:application"),
        ({"main.py": "def handler(request): ..."}, "main:handler"),
        ({"main.py": "async def app(scope, receive, send): ..."}, "main:app"),
        ({"main.py": "app: object = 1"}, "main:app"),
        ({"main.py": "app, other = 1, 2"}, "main:app"),
        ({"main.py": "try:\n    import x\nexcept ImportError:\n    app = 1"}, "main:app"),
        ({"main.py": "if True:\n    pass\nelse:\n    app = 1"}, "main:app"),
        ({"main.py": "handler = 1\napplication = 2"}, "main:application"),
        ({"main.py": "app, rt = fast_app()"}, "main:app"),
        ({"main.py": "class handler(BaseHTTPRequestHandler): ..."}, "main:handler"),
        ({"main.py": "class Handler(http.server.BaseHTTPRequestHandler): ..."}, "main:Handler"),
        (
            {"main.py": "import functions_framework\n@functions_framework.http\ndef hi(r): ..."},
            "main:hi",
        ),
        ({"main.py": "@functions_framework.cloud_event\ndef on(event): ..."}, "main:on"),
        (
            {"lambda_function.py": "def lambda_handler(event, context): ..."},
            "lambda_function:lambda_handler",
        ),
        ({"main.py": "app = 1", "app.py": "app = 1"}, "app:app"),
        ({"src/main.py": "app = 1", "src/asgi.py": "app = 1"}, "src.main:app"),
        ({"app/server.py": "application = 1"}, "app.server:application"),
        ({"api/index.py": "app = 1", "api/models.py": "x = 1"}, "api.index:app"),
        ({"main.py": "x = 1", "app.py": "app = 1"}, "app:app"),
        ({"server.py": "app = 1"}, "server:app"),
        ({"index.py": "handler = 1"}, "index:handler"),
        ({"api/index.py": "app = 1"}, "api.index:app"),
        ({"wsgi.py": "application = 1"}, "wsgi:application"),
        ({"hello.py": "app = 1"}, "hello:app"),
        (
            {
                "manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')",
                "shop/wsgi.py": "",
            },
            "shop.wsgi:application",
        ),
        (
            {
                "manage.py": "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings.local'",
                "shop/settings/local.py": "",
                "shop/asgi.py": "",
                "shop/wsgi.py": "",
                "api/views.py": "app = 1",
            },
            "shop.asgi:application",
        ),
        (
            {
                "pyproject.toml": "[tool.vercel]\nentrypoint = 'shop.web:service'",
                "main.py": "app = 1",
            },
            "shop.web:service",
        ),
        ({"pyproject.toml": "[project.scripts]\napp = 'shop:app'", "main.py": ""}, "shop:app"),
        (
            {"pyproject.toml": "[project.scripts]\napp = 'shop:app'", "main.py": "app = 1"},
            "main:app",
        ),
        (
            {
                "pyproject.toml": "[tool.vercel]\nentrypoint = 'a:b'\n[tool.fluvial]\napp = 'c:d'",
            },
            "c:d",
        ),
    ],
)
def test_the_app_is_found_by_convention(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    assert load_manifest(write(tmp_path, files)).app == expected


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"main.py": ""},
        {"main.py": "def make():\n    app = 1"},
        {"main.py": "app: object"},
        {"main.py": "class app: ..."},
        {"main.py": "class Handler: ..."},
        {"pyproject.toml": "[project.scripts]\napp = 3"},
        {"one.py": "app = 1", "two.py": "app = 1"},
        {"README.md": "app"},
    ],
)
def test_nothing_to_execute_is_a_clear_error(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(NoEntrypointError, match=r"none of app\.py, index\.py.*in the manifest"):
        load_manifest(write(tmp_path, files))


@pytest.mark.parametrize(
    "decorator", ["@workflow", "@fluvial.workflow", "@workflow(name='x')", "@fluvial.workflow()"]
)
def test_workflows_without_an_app_are_enough(tmp_path: Path, decorator: str) -> None:
    write(tmp_path, {"main.py": f"{decorator}\nasync def fulfil(): ..."})
    manifest = load_manifest(tmp_path)

    assert (manifest.app, manifest.workflows) == (None, ("main",))


def test_named_workflows_do_not_hide_the_app(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "app = 1", "fluvial.toml": "workflows = ['jobs']"})
    manifest = load_manifest(tmp_path)

    assert (manifest.app, manifest.workflows) == ("main:app", ("jobs",))


@pytest.mark.parametrize("source", [b"def (", b"\xff\xfe", b"x = '\x00'", b"(" * 5000])
def test_source_that_is_not_python_is_named(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "main.py").write_bytes(source)

    with pytest.raises(ManifestError, match=r"main\.py: is not valid Python"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("PORT = 8080", r"env PORT: must be text in quotes, got a int"),
        ('FLUVIAL_APP = "x"', r"env: FLUVIAL_APP is a reserved name"),
        ('"not a name" = "x"', r"env: 'not a name' cannot be the name of a variable"),
    ],
    ids=["number", "reserved", "name"],
)
def test_a_wrong_variable_is_named(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, {"fluvial.toml": f'app = "main:app"\n[env]\n{line}\n'})

    with pytest.raises(ManifestError, match=reason):
        load_manifest(tmp_path)


@pytest.mark.parametrize("named", ["main.py", "main", "'a b:c'", "3"])
def test_a_vercel_entrypoint_that_is_none_is_named(tmp_path: Path, named: str) -> None:
    text = named if named == "3" else repr(named.strip("'"))
    write(tmp_path, {"pyproject.toml": f"[tool.vercel]\nentrypoint = {text}"})

    with pytest.raises(ManifestError, match=r"\[tool\.vercel\] entrypoint: must be \"module:attr"):
        load_manifest(tmp_path)


def test_the_interface_is_one_of_the_known(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "app = 1", "fluvial.toml": "interface = 'lambda'"})
    assert load_manifest(tmp_path).interface == "lambda"

    write(tmp_path, {"fluvial.toml": "interface = 'cgi'"})
    with pytest.raises(ManifestError, match=r"interface: must be one of asgi, wsgi, .*got 'cgi'"):
        load_manifest(tmp_path)


def test_several_files_below_api_are_functions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "api/index.py": "app = 1",
            "api/users/[id].py": "class handler(BaseHTTPRequestHandler): ...",
            "api/jobs.py": "@workflow\nasync def nightly(): ...",
        },
    )
    manifest = load_manifest(tmp_path)

    assert manifest.app is None
    assert manifest.files == ("api.index:app", "api.users.[id]:handler")
    assert manifest.workflows == ("api.jobs",)
