"""Which deployment a Host header means."""

from __future__ import annotations

import pytest

from fluvial_gateway.hosts import Destination, HostTable, Routes, host_name

ROUTES = Routes(
    domain="fn.example",
    production={"shop": "dpl_new", "blog": "dpl_blog", "x--blog": "dpl_x"},
    aliases={"shop": {"qa": "dpl_old"}, "blog": {"x": "dpl_blog"}},
    deployments={"dpl_old": "shop", "dpl_new": "shop"},
    hosts={"Shop.Example.com": "shop", "lost.example.com": "deleted"},
    default_app="blog",
)
NEW = Destination("shop", "dpl_new")
BLOG = Destination("blog", "dpl_blog")


@pytest.mark.parametrize(
    ("host", "destination"),
    [
        (b"shop.fn.example", NEW),
        (b"SHOP.fn.Example:8080", NEW),
        (b"shop.fn.example.", NEW),
        (b"dpl-old.fn.example", Destination("shop", "dpl_old")),
        (b"qa--shop.fn.example", Destination("shop", "dpl_old")),
        (b"x--blog.fn.example", Destination("x--blog", "dpl_x")),  # an app, not blog's alias x
        (b"qa--blog.fn.example", None),
        (b"shop.example.com", NEW),
        (b"fn.example", BLOG),
        (b"localhost", BLOG),
        (b"127.0.0.1:8080", BLOG),
        (b"[::1]:8080", BLOG),
        (b"lost.example.com", None),
        (b"nobody.fn.example", None),
        (b"shop", None),
        (b"shop.fn.example.evil.com", None),
        (b"xshop.fn.example", None),
        (b"dpl_old.fn.example", None),
        (b"", None),
        (b"shop.fn.example:port", None),
        (b"a@shop.fn.example", None),
        (b"shop.fn.example/x", None),
    ],
)
def test_find(host: bytes, destination: Destination | None) -> None:
    table = HostTable(ROUTES)

    assert table.find(host) == destination
    assert table.find(host) == destination  # also when it is remembered


def test_replace_changes_what_was_remembered() -> None:
    table = HostTable(ROUTES)
    table.find(b"shop.fn.example")

    table.replace(Routes(domain="fn.example", production={"shop": "dpl_next"}))

    assert table.find(b"shop.fn.example") == Destination("shop", "dpl_next")
    assert table.find(b"blog.fn.example") is None
    assert table.find(b"localhost") is None


def test_without_a_host_the_default_app_is_meant() -> None:
    assert HostTable(ROUTES).default == BLOG
    assert HostTable().default is None


def test_a_default_app_without_a_deployment_is_nobody() -> None:
    assert HostTable(Routes(default_app="gone")).find(b"localhost") is None


@pytest.mark.parametrize("host", [b"a b", b"a,b", b"-a", b"[::1", b"a:123456", b"a" * 300, b"\xff"])
def test_malformed_names(host: bytes) -> None:
    assert host_name(host) is None
