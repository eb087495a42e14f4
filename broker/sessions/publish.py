"""The publish command. Facts: client protocol §3.9."""

from __future__ import annotations

from broker.channels import Kind, PublishBy, acceptable, publish_decided_by
from broker.hub import PublishOptions, publish_options
from broker.protocol import Publication, PublishRequest, codes
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
    assert by is PublishBy.SERVER, "a configuration with proxies does not start"
    pub = Publication(data, info=client.client_info(channel), is_json=is_json)
    how = publish_options(options.history_size, options.history_ttl, options.history_meta_ttl, options.delta_publish)
    if client.context.node.publish_nowait(channel, pub, how) is None:
        return _publish(client, id, channel, pub, how)
    client.reply(client.wire.codec.publish(id))
    return None


async def _publish(client: Client, id: int, channel: str, pub: Publication, how: PublishOptions) -> None:
    await client.context.node.publish(channel, pub, how)
    client.reply(client.wire.codec.publish(id))
