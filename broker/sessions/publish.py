"""The publish command. Facts: client protocol §3.9."""

from __future__ import annotations

import attrs

from broker.channels import ChannelOptions, Kind, PublishBy, Resolved, acceptable, publish_decided_by
from broker.hooks import PublishResult
from broker.hub import PublishOptions, publish_options
from broker.protocol import Publication, PublishRequest, codes
from broker.sessions import asking
from broker.sessions.client import Client, Waiting

__all__ = ["publish"]


def publish(client: Client, id: int, request: PublishRequest) -> Waiting | None:
    """Check, publish, answer. Of an in-process engine the publisher's own copy comes before the answer."""
    channel = request.channel
    if not channel:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    rules = client.context.rules
    resolved = rules.channels.for_client(channel)
    if request.type:
        raise codes.ClientError(codes.NOT_AVAILABLE)  # publications into maps
    options = resolved.options
    if resolved.kind != Kind.STREAM:
        raise codes.ClientError(codes.BAD_REQUEST)
    data = bytes(request.data)
    is_json = True if data and not client.wire.codec.binary else None
    if not acceptable(data, options.publication_data_format, bool(is_json)):
        raise codes.ClientError(codes.BAD_REQUEST)
    by = publish_decided_by(
        resolved, user=client.user, subscribed=client.subscribed(channel), insecure=rules.client.insecure
    )
    if by is PublishBy.PROXY:
        return _ask(client, id, resolved, data, is_json=is_json)
    pub = Publication(data, info=client.client_info(channel), is_json=is_json)
    how = publish_options(options.history_size, options.history_ttl, options.history_meta_ttl, options.delta_publish)
    if client.context.node.publish_nowait(channel, pub, how) is None:
        return _publish(client, id, channel, pub, how)
    client.reply(client.wire.codec.publish(id))
    return None


async def _publish(client: Client, id: int, channel: str, pub: Publication, how: PublishOptions) -> None:
    await client.context.node.publish(channel, pub, how)
    client.reply(client.wire.codec.publish(id))


async def _ask(client: Client, id: int, resolved: Resolved, data: bytes, *, is_json: bool | None) -> None:
    """Publish what the backend wants to be published."""
    result = await asking.publish(client, resolved, data) or PublishResult()
    if result.data is not None:
        data, is_json = result.data, None
    tags = dict(result.tags) if result.tags else None
    pub = Publication(data, info=client.client_info(resolved.channel), tags=tags, is_json=is_json)
    await _publish(client, id, resolved.channel, pub, _as_answered(resolved.options, result))


def _as_answered(options: ChannelOptions, result: PublishResult) -> PublishOptions:
    """How to publish, as the backend says. The namespace's `delta_publish` does not count then."""
    how = publish_options(
        0 if result.skip_history else options.history_size,
        options.history_ttl,
        options.history_meta_ttl,
        result.delta,
    )
    if not result.idempotency_key and not result.version:
        return how
    return attrs.evolve(
        how,
        idempotency_key=result.idempotency_key,
        version=result.version,
        version_epoch=result.version_epoch,
    )
