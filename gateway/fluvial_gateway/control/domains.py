"""Operations on custom domains."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH
from fluvial_gateway.control.schemas import array, obj, text
from fluvial_gateway.control.views import Addresses
from fluvial_gateway.domains import MAX_HOST_CHARACTERS, Domains

# A final dot, which means the same, may stand behind it.
_HOST: Final = text(minLength=1, maxLength=MAX_HOST_CHARACTERS + 1)
_HOST_IN_PATH: Final = Parameter("host", "path", _HOST, "The domain.")
_DOMAIN: Final = obj({"app": text(), "host": text(), "url": text()})


class DomainOperations:
    """Handlers over domains."""

    def __init__(self, domains: Domains, addresses: Addresses) -> None:
        self._domains = domains
        self._addresses = addresses

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/apps/{app}/domains",
                name="listDomains",
                summary="List an app's custom domains",
                handler=self.list_domains,
                scopes=(Scope.DEPLOY, Scope.RUNS_READ),
                parameters=(APP_IN_PATH,),
                replies={200: Reply("Domains.", obj({"domains": array(_DOMAIN)}))},
                problems=("app_not_found",),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/domains",
                name="addDomain",
                summary="Let a host name lead to an app's production",
                description=(
                    "The name must lead to the platform by itself: DNS and certificates are not "
                    "its business. A name that another app has is refused."
                ),
                handler=self.add_domain,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(obj({"host": _HOST}, required=["host"])),
                replies={200: Reply("The domain.", _DOMAIN)},
                problems=("app_not_found", "domain_conflict", "domain_limit"),
            ),
            Operation(
                method="DELETE",
                path="/v1/apps/{app}/domains/{host}",
                name="removeDomain",
                summary="Remove a domain from an app",
                handler=self.remove_domain,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH, _HOST_IN_PATH),
                replies={204: Reply("It is gone.")},
                problems=("app_not_found", "domain_not_found"),
            ),
        ]

    async def list_domains(self, call: Call) -> Response:
        app = call.path["app"]
        hosts = await self._domains.of(app)
        return JSONResponse({"domains": [self._view(app, host) for host in hosts]})

    async def add_domain(self, call: Call) -> Response:
        app = call.path["app"]
        host = await self._domains.add(app, call.body["host"])
        call.note(host=host)
        return JSONResponse(self._view(app, host))

    async def remove_domain(self, call: Call) -> Response:
        await self._domains.remove(call.path["app"], call.path["host"])
        return Response(status_code=204)

    def _view(self, app: str, host: str) -> dict[str, Any]:
        return {"app": app, "host": host, "url": self._addresses.of_host(host)}
