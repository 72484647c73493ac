from __future__ import annotations

from fluvial_gateway.control.views import Addresses


def test_addresses_have_the_scheme_and_the_port_of_the_world_outside() -> None:
    local = Addresses("http://127.0.0.1:8080", "localhost")
    public = Addresses("https://example.com", "example.com")

    assert local.of_app("shop") == "http://shop.localhost:8080"
    assert public.of_app("shop") == "https://shop.example.com"
    assert public.of_deployment("dpl_1") == "https://dpl-1.example.com"
