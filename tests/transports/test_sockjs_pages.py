"""SockJS without a session. The chapters of the protocol that are named are of sockjs-protocol."""

from __future__ import annotations

import re

import pytest

from tests.support.peers import Answer, House, open_house
from tests.support.sockjs import ALLOWED, PREFIX, open_sockjs, with_sockjs

pytestmark = pytest.mark.virtual_time

YEAR = re.compile(r"public, max-age=[1-9][0-9]{6}")


def cors(answer: Answer) -> tuple[str | None, str | None]:
    headers = answer.headers
    return headers.get("access-control-allow-origin"), headers.get("access-control-allow-credentials")


def not_cached(answer: Answer) -> bool:
    value = answer.headers.get("cache-control")
    return value == "no-store, no-cache, no-transform, must-revalidate, max-age=0" and "expires" not in answer.headers


async def get(house: House, path: str, **headers: str) -> Answer:
    return await house.http("GET", PREFIX + path, headers={name.replace("_", "-"): at for name, at in headers.items()})


async def test_the_greeting() -> None:
    async with open_sockjs() as house:
        for path in ("", "/"):
            answer = await get(house, path)
            assert (answer.status, answer.body) == (200, b"Welcome to SockJS!\n")
            assert answer.headers["content-type"].replace(" ", "") == "text/plain;charset=UTF-8"


@pytest.mark.parametrize(
    "path",
    ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "x", "/info/", "/000/abc/jsonp", "/000/abc/htmlfile"]
    + [part + "/xhr" for part in ("//", "/a./a", "/a/a.", "/./.", "/", "///", "/a", "/a/b/c")]
    + ["/iframe.htm", "/iframe", "/IFRAME.HTML", "/IFRAME", "/iframe.HTML", "/iframe.xml", "/iframe-/.html"],
)
async def test_what_is_not_there_is_not_found(path: str) -> None:
    async with open_sockjs() as house:
        for method in ("GET", "POST"):
            assert (await house.http(method, PREFIX + path)).status == 404


async def test_nothing_is_there_unless_it_is_switched_on() -> None:
    async with open_house(with_sockjs(sockjs={"enabled": False})) as house:
        assert (await get(house, "/info")).status == 404


async def test_info() -> None:
    async with open_sockjs() as house:
        answer = await get(house, "/info", Origin=ALLOWED)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json; charset=UTF-8"
        assert not_cached(answer)
        assert cors(answer) == (ALLOWED, "true")
        info = answer.json()
        entropy = info.pop("entropy")
        assert info == {"websocket": True, "cookie_needed": False, "origins": ["*:*"]}
        assert 0 <= entropy < 2**32
        again = await get(house, "/info")
        assert again.json()["entropy"] != entropy
        assert cors(again) == ("*", None)


async def test_other_pages_cannot_read_the_info() -> None:
    async with open_sockjs() as house:
        answer = await get(house, "/info", Origin="https://elsewhere.example")
        assert answer.status == 200
        assert cors(answer) == (None, None)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/info", "GET"), ("/abc/abc/xhr", "POST"), ("/abc/abc/xhr_send", "POST"), ("/abc/abc/xhr_streaming", "POST")],
)
async def test_preflights(path: str, method: str) -> None:
    async with open_sockjs() as house:
        asked = {"Origin": ALLOWED, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "a, b"}
        answer = await house.http("OPTIONS", PREFIX + path, headers=asked)
        assert (answer.status, answer.body) == (204, b"")
        assert YEAR.match(answer.headers["cache-control"])
        assert answer.headers["expires"]
        assert int(answer.headers["access-control-max-age"]) > 1_000_000
        assert answer.headers["access-control-allow-methods"] == f"OPTIONS, {method}"
        assert answer.headers["access-control-allow-headers"] == "a, b"
        assert cors(answer) == (ALLOWED, "true")
        assert "content-length" not in answer.headers

        stranger = await house.http("OPTIONS", PREFIX + path, headers={**asked, "Origin": "https://elsewhere.example"})
        assert stranger.status == 204
        assert cors(stranger) == (None, None)
        assert "access-control-allow-headers" not in stranger.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "", "GET"),
        ("POST", "/info", "GET, OPTIONS"),
        ("POST", "/iframe.html", "GET"),
        ("GET", "/0/0/xhr", "POST, OPTIONS"),
        ("GET", "/0/0/xhr_send", "POST, OPTIONS"),
        ("DELETE", "/0/0/xhr_streaming", "POST, OPTIONS"),
        ("POST", "/0/0/eventsource", "GET"),
        ("POST", "/0/0/websocket", "GET"),
    ],
)
async def test_other_methods(method: str, path: str, allowed: str) -> None:
    async with open_sockjs() as house:
        answer = await house.http(method, PREFIX + path)
        assert (answer.status, answer.body) == (405, b"")
        assert answer.headers["allow"] == allowed
        assert "content-type" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [*(f"/iframe{part}.html" for part in ("", "-a", "-", "-0.1.2", "-0.1.2abc-dirty.2144"))]
    + [f"/iframe-{part}.html?t=1234" for part in ("a", "0.1.2abc-dirty.2144")],
)
async def test_the_page_for_iframes(path: str) -> None:
    async with open_sockjs(sockjs={"url": 'https://cdn.example/sockjs.js?"<'}) as house:
        answer = await get(house, path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert YEAR.match(answer.headers["cache-control"])
        assert answer.headers["expires"]
        assert "last-modified" not in answer.headers
        assert b'<script src="https://cdn.example/sockjs.js?&quot;&lt;"></script>' in answer.body

        etag = answer.headers["etag"]
        again = await get(house, "/iframe.html", If_None_Match=etag)
        assert (again.status, again.body) == (304, b"")
        assert "content-type" not in again.headers
        assert (await get(house, "/iframe.html", If_None_Match='"other"')).status == 200
