"""Backends behind TLS, as real processes: whom the server trusts, what it shows, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import Backend, open_backend
from tests.support.certificates import Authority
from tests.support.peers import open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}
Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An authority, and pairs that it has signed."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    cert, key = authority.certificate("backend", server=True)
    client_cert, client_key = authority.certificate("broker")
    return {"ca": authority.file, "cert": cert, "key": key, "client_cert": client_cert, "client_key": client_key}


@pytest.fixture(scope="module")
def behind_tls(files: Files) -> Iterator[Backend]:
    with open_backend(files["cert"], files["key"]) as backend:
        yield backend


@pytest.fixture(scope="module")
def choosy(files: Files) -> Iterator[Backend]:
    """One that wants to see a certificate."""
    with open_backend(files["cert"], files["key"], files["ca"], files["client_cert"], files["client_key"]) as backend:
        yield backend


def config(url: str, **tls: Any) -> dict[str, Any]:
    http = {"tls": {"enabled": True, **{key: str(value) for key, value in tls.items()}}} if tls else {}
    proxy = {"endpoint": url, "timeout": "600s", "http": http}
    return {**secured(), "rpc": {"without_namespace": {"proxy_enabled": True}, "proxy": proxy}}


async def ask(options: dict[str, Any], data: Any = 1, times: int = 1) -> dict[str, Any]:
    """What a client gets for an RPC: its result, or its error."""
    async with open_house(options) as house:
        client = await house.connected(token=token("42"))
        for _ in range(times):
            reply = await client.ask(rpc={"method": "x", "data": data})
        return reply.get("error") or reply["rpc"]  # type: ignore[no-any-return]


async def test_an_authority_of_ones_own_and_one_handshake_for_many_calls(behind_tls: Backend, files: Files) -> None:
    await behind_tls.answer("/rpc", {"result": {"data": "ok"}})
    assert await ask(config(behind_tls.url("/rpc"), server_ca_pem=files["ca"]), times=3) == {"data": "ok"}
    asked = await behind_tls.requests("/rpc")
    assert [each.json()["data"] for each in asked] == [1, 1, 1]
    assert len({each.connection for each in asked}) == 1


async def test_more_than_one_record_both_ways(behind_tls: Backend, files: Files) -> None:
    await behind_tls.answer("/rpc", {"result": {"data": "y" * 300_000}})
    options = config(behind_tls.url("/rpc"), server_ca_pem=files["ca"])
    options["client"]["queue_max_size"] = 1 << 20
    assert await ask(options, data="x" * 60_000, times=2) == {"data": "y" * 300_000}
    assert [each.json()["data"] for each in await behind_tls.requests("/rpc")] == ["x" * 60_000] * 2


async def test_nobody_else_is_trusted(behind_tls: Backend, error_log: Any) -> None:
    error_log.expect("certificate verify failed")
    await behind_tls.answer("/rpc", {"result": {"data": "ok"}})
    assert await ask(config(behind_tls.url("/rpc"))) == INTERNAL
    assert await behind_tls.requests("/rpc") == []


async def test_without_a_look_at_the_certificate(behind_tls: Backend) -> None:
    await behind_tls.answer("/rpc", {"result": {"data": "ok"}})
    options = config(behind_tls.url("/rpc"), server_name="anything")
    options["rpc"]["proxy"]["http"]["tls"]["insecure_skip_verify"] = True
    assert await ask(options) == {"data": "ok"}


async def test_the_name_in_the_certificate(behind_tls: Backend, files: Files, error_log: Any) -> None:
    error_log.expect("certificate is not valid for 'localhost'|Hostname mismatch")
    await behind_tls.answer("/rpc", {"result": {"data": "ok"}})
    by_name = behind_tls.url("/rpc", "localhost")
    assert await ask(config(by_name, server_ca_pem=files["ca"])) == INTERNAL
    assert await ask(config(by_name, server_ca_pem=files["ca"], server_name="127.0.0.1")) == {"data": "ok"}


async def test_a_certificate_to_show(choosy: Backend, files: Files, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await choosy.answer("/rpc", {"result": {"data": "ok"}})
    assert await ask(config(choosy.url("/rpc"), server_ca_pem=files["ca"])) == INTERNAL
    shown = {"cert_pem": files["client_cert"], "key_pem": files["client_key"]}
    assert await ask(config(choosy.url("/rpc"), server_ca_pem=files["ca"], **shown)) == {"data": "ok"}


async def test_a_connection_that_was_closed_while_it_was_idle(behind_tls: Backend, files: Files) -> None:
    await behind_tls.answer("/rpc", {"result": {"data": "ok"}}, close=1)
    assert await ask(config(behind_tls.url("/rpc"), server_ca_pem=files["ca"]), times=3) == {"data": "ok"}
    assert len({each.connection for each in await behind_tls.requests("/rpc")}) == 3
