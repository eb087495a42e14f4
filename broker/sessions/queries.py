"""Commands that only ask: presence, presence_stats, history, rpc. Facts: client protocol §3.10, §3.11, §3.13."""

from __future__ import annotations

from broker.channels import Resolved, check_history, check_presence
from broker.hub import HistoryQuery, UnrecoverablePosition
from broker.protocol import HistoryRequest, PresenceRequest, RpcRequest, codes
from broker.sessions import asking
from broker.sessions.client import Client, Waiting

__all__ = ["history", "presence", "presence_stats", "rpc"]


async def presence(client: Client, id: int, request: PresenceRequest) -> None:
    channel = _allowed_presence(client, request)
    clients = await client.context.node.presence(channel)
    client.reply(client.wire.codec.presence(id, clients))


async def presence_stats(client: Client, id: int, request: PresenceRequest) -> None:
    channel = _allowed_presence(client, request)
    stats = await client.context.node.presence_stats(channel)
    client.reply(client.wire.codec.presence_stats(id, stats.clients, stats.users))


def _allowed_presence(client: Client, request: PresenceRequest) -> str:
    channel, resolved = _checked(client, request.channel)
    insecure = client.context.rules.client.insecure
    check_presence(resolved, user=client.user, subscribed=client.subscribed(channel), insecure=insecure)
    return channel


async def history(client: Client, id: int, request: HistoryRequest) -> None:
    channel, resolved = _checked(client, request.channel)
    rules = client.context.rules
    check_history(resolved, user=client.user, subscribed=client.subscribed(channel), insecure=rules.client.insecure)
    most = rules.client.history_max_publication_limit
    limit = request.limit or 0
    if limit < 0 or limit > most:
        limit = most
    if request.reverse and request.since is not None and not request.since.offset:
        raise codes.ClientError(codes.BAD_REQUEST)
    query = HistoryQuery(limit, request.since, reverse=bool(request.reverse))
    try:
        page = await client.context.node.history(channel, query, resolved.history_meta_ttl)
    except UnrecoverablePosition:
        raise codes.ClientError(codes.UNRECOVERABLE_POSITION) from None
    client.reply(client.wire.codec.history(id, page.publications, page.top))


def _checked(client: Client, channel: str | None) -> tuple[str, Resolved]:
    if not channel:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    return channel, client.context.rules.channels.for_client(channel)


def rpc(client: Client, id: int, request: RpcRequest) -> Waiting | None:
    """The built-in ping is answered here, everything else by a backend."""
    rules = client.context.rules
    method = request.method or ""
    hooks, ping = rules.backends.rpc, rules.rpc.ping
    if not ping.enabled and not hooks:
        raise codes.ClientError(codes.NOT_AVAILABLE)
    if ping.enabled and method == ping.method:
        client.reply(client.wire.codec.rpc(id, b""))
        return None
    if name := rules.backends.method_hook(method):
        return _ask(client, id, name, method, bytes(request.data))
    options = rules.rpc.of_method(method) if hooks else None
    if options is None:
        raise codes.ClientError(codes.METHOD_NOT_FOUND)
    if not options.proxy_enabled:
        raise codes.ClientError(codes.NOT_AVAILABLE)
    return _ask(client, id, options.proxy_name, method, bytes(request.data))


async def _ask(client: Client, id: int, proxy: str, method: str, data: bytes) -> None:
    client.reply(client.wire.codec.rpc(id, await asking.rpc(client, proxy, method, data)))
