"""Functions in the style of functions-framework: `def f(request)`, `def f(cloud_event)`.

Each becomes a Flask app of its own, with the Flask of the bundle: the request is a
`flask.Request`, and what a view may return, the function may. The package functions-framework
itself is not needed; its decorators do no more than note how a function wants to be called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, cast

# Paths that browsers ask for by themselves, which are not to cost a call.
_NOT_CALLED: Final = ("/robots.txt", "/favicon.ico")
_CRASH_HEADERS: Final = {"X-Google-Status": "crash"}
_BAD_EVENT: Final = 400


def wsgi_from_function(function: Callable[..., Any], *, takes_events: bool) -> Callable[..., Any]:
    """Return a WSGI app that calls `function` with a request, or with a CloudEvent."""
    flask: Any = import_module("flask")
    app = flask.Flask(str(getattr(function, "__module__", "main")))
    app.register_error_handler(500, _crashed)
    if takes_events:
        _route(app, _with_events(function, flask.request), methods=["POST"])
    else:
        # Those first: the rule for all paths would take them too.
        rule: Any = import_module("werkzeug.routing").Rule
        for path in _NOT_CALLED:
            app.url_map.add(rule(path, endpoint="not_called"))
        app.view_functions["not_called"] = lambda: flask.abort(404, description="Not Found")
        _route(app, _with_requests(function, flask.request), methods=None)
    return cast("Callable[..., Any]", app)


def _route(app: Any, view: Callable[[str], Any], *, methods: list[str] | None) -> None:
    rule: Any = import_module("werkzeug.routing").Rule
    app.url_map.add(rule("/", defaults={"path": ""}, endpoint="function", methods=methods))
    app.url_map.add(rule("/<path:path>", endpoint="function", methods=methods))
    app.view_functions["function"] = view


def _with_requests(function: Callable[..., Any], request: Any) -> Callable[[str], Any]:
    def view(path: str) -> Any:
        return function(request._get_current_object())  # noqa: SLF001 - the proxy's own way

    return view


def _with_events(function: Callable[..., Any], request: Any) -> Callable[[str], Any]:
    # Version 1 has it here; version 2 keeps it below `v1`.
    package = "cloudevents.http" if find_spec("cloudevents.http") else "cloudevents.v1.http"
    http: Any = import_module(package)
    errors: Any = import_module(f"{package.removesuffix('.http')}.exceptions")

    def view(path: str) -> Any:
        try:
            event = http.from_http(request.headers, request.get_data())
        except errors.GenericException as error:
            return f"not a CloudEvent: {error}\n", _BAD_EVENT, {"content-type": "text/plain"}
        function(event)
        return "OK"

    return view


def _crashed(error: object) -> tuple[str, int, dict[str, str]]:
    return str(error), 500, _CRASH_HEADERS
