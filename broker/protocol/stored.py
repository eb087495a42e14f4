"""Publications and client infos as engines keep them: the client protocol's Protobuf messages, without offset.

The same bytes as Centrifugo's, so that both can share a store. Facts: client protocol §2, server API §5.4.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from broker.protocol.messages import ClientInfo, Publication
from broker.protocol.protobuf_codec import pack_info, pack_publication
from broker.protocol.schema import client_pb2 as pb

__all__ = ["pack_info", "pack_publication", "unpack_info", "unpack_publication"]


def unpack_publication(data: bytes) -> Publication:
    """A publication from a store; its offset is told beside it.

    Raises:
        ValueError: it is not one.
    """
    size = len(data)
    if size > 2 and data[0] == 0x22 and data[1] == size - 2 < 128:
        return Publication(data[2:])  # a short payload and nothing else, as most are
    if size > 130 and data[0] == 0x22 and data[1] > 127 > data[2] and (data[1] & 127 | data[2] << 7) == size - 3:
        return Publication(data[3:])  # the same with a longer one
    try:
        m = pb.Publication.FromString(data)
    except DecodeError:
        raise ValueError("not a publication") from None
    return Publication(
        m.data,
        _info(m.info) if m.HasField("info") else None,
        tags=dict(m.tags) if m.tags else None,
        version=m.version,
    )


def unpack_info(data: bytes) -> ClientInfo:
    """A client info from a store.

    Raises:
        ValueError: it is not one.
    """
    try:
        return _info(pb.ClientInfo.FromString(data))
    except DecodeError:
        raise ValueError("not a client info") from None


def _info(m: pb.ClientInfo) -> ClientInfo:
    return ClientInfo(m.user, m.client, m.conn_info, m.chan_info)
