"""The question `channels`: which channels have subscribers, with how many, on all nodes together.

Question and answers are Centrifugo's messages (package `centrifugal.centrifugo.api`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import trio
from google.protobuf.message import DecodeError

from broker.eager import own_task
from broker.glob import compile_glob
from broker.hub.cluster import Cluster, Reply
from broker.hub.ports import EngineUnavailable
from broker.protocol.schema import control_pb2 as pb

__all__ = ["answer_channels", "survey_channels"]

_OP: Final = "channels"
_INVALID: Final = Reply(code=2)
_AT_A_TIME: Final = 4096
"""Channels that are looked at between two checkpoints."""


def answer_channels(cluster: Cluster, channels: Callable[[], Iterable[tuple[str, int]]]) -> None:
    """Have `cluster` answer the question with what `channels` tells: channels, each with its subscribers.

    It is iterated over with pauses, in which channels may come and go.
    """

    async def answer(data: bytes) -> Reply:
        try:
            pattern = pb.ChannelsRequest.FromString(data).pattern
            matches = compile_glob(pattern).fullmatch if pattern else None
        except (DecodeError, ValueError):
            return _INVALID
        found = iter(channels())
        parts: list[bytes] = []  # of a message: one after another they are the whole
        while some := list(islice(found, _AT_A_TIME)):
            if parts:
                await own_task()
                await trio.lowlevel.checkpoint()
            result = pb.ChannelsResult()
            for name, count in some:
                if matches is None or matches(name):
                    result.channels[name].num_clients = count
            parts.append(result.SerializeToString())
        return Reply(data=b"".join(parts))

    cluster.handlers[_OP] = answer


async def survey_channels(cluster: Cluster, pattern: str) -> dict[str, int]:
    """Subscribers by channel, of the channels that match the glob `pattern` (empty: all).

    Raises:
        EngineUnavailable: a node did not answer, or could not: a part would be taken for the whole.
    """
    survey = await cluster.survey(_OP, pb.ChannelsRequest(pattern=pattern).SerializeToString())
    if survey.missing:
        raise EngineUnavailable(f"no answer from {', '.join(sorted(survey.missing))}")
    total: dict[str, int] = {}
    for node, reply in survey.replies.items():
        try:
            if reply.code:
                raise ValueError(f"code {reply.code}")
            result = pb.ChannelsResult.FromString(reply.data)
        except (DecodeError, ValueError) as error:
            raise EngineUnavailable(f"no usable answer from {node}: {error}") from None
        await trio.lowlevel.checkpoint()
        for name, info in result.channels.items():
            total[name] = total.get(name, 0) + info.num_clients
    return total
