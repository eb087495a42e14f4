"""The page for newcomers, asked directly as the ASGI application that it is."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from broker.admin import dev_page


async def ask(method: str, path: str, websocket_path: str = "/connection/websocket") -> tuple[int, dict[str, str], str]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await dev_page(websocket_path)({"type": "http", "method": method, "path": path}, None, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, body["body"].decode()


async def test_the_page_is_whole_and_asks_nobody_else() -> None:
    status, headers, body = await ask("GET", "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert int(headers["content-length"]) == len(body.encode())
    assert 'data-websocket="/connection/websocket"' in body
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', body) == []


async def test_the_policy_allows_the_script_and_the_style_that_are_there() -> None:
    _, headers, body = await ask("GET", "/")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    for element in ("script", "style"):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert "style=" not in body, "a style attribute would be refused by the policy"
    assert not re.search(r"\son\w+=", body), "so would a handler in an attribute"


async def test_the_path_cannot_break_out_of_its_attribute() -> None:
    _, _, body = await ask("GET", "/", websocket_path='/a"><script>alert(1)</script>')
    assert body.count("<script>") == 1
    assert 'data-websocket="/a&quot;&gt;&lt;script&gt;' in body


async def test_head_has_the_headers_alone() -> None:
    _, page_headers, _ = await ask("GET", "/")
    status, headers, body = await ask("HEAD", "/")
    assert (status, headers, body) == (200, page_headers, "")


@pytest.mark.parametrize("path", ["/index.html", "//", "/../etc/passwd", "", "/connection/sse"])
async def test_nothing_else_is_there(path: str) -> None:
    status, headers, _ = await ask("GET", path)
    assert (status, headers["x-content-type-options"]) == (404, "nosniff")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
async def test_it_can_only_be_read(method: str) -> None:
    status, headers, _ = await ask(method, "/")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_a_websocket_is_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await dev_page("/connection/websocket")({"type": "websocket", "path": "/"}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
