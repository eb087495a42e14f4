"""The question `centrifuge_emulation`: let a session hear what its client sent to another node.

The message is Centrifugo's `EmulationRequest` (client protocol §2.2, §5.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from broker.hub.cluster import Cluster, Reply
from broker.hub.ports import EngineUnavailable
from broker.protocol import EmulationRequest, MalformedFrame, read_emulation, write_emulation

__all__ = ["answer_emulation", "forward_emulation"]

_OP: Final = "centrifuge_emulation"
_BAD_REQUEST: Final = Reply(code=1)
_NO_SESSION: Final = Reply(code=2)
_HEARD: Final = Reply()


def answer_emulation(cluster: Cluster, hear: Callable[[str, bytes], bool]) -> None:
    """Have `cluster` answer the question: `hear` gives the data to a session, and tells whether there is one."""

    async def answer(data: bytes) -> Reply:
        try:
            sent = read_emulation(data, binary=True)
        except MalformedFrame:
            return _BAD_REQUEST
        return _HEARD if hear(sent.session or "", bytes(sent.data)) else _NO_SESSION

    cluster.handlers[_OP] = answer


async def forward_emulation(cluster: Cluster, sent: EmulationRequest) -> None:
    """Take `sent` to its node.

    Raises:
        EngineUnavailable: that node did not say that it got it.
    """
    if await cluster.ask(sent.node or "", _OP, write_emulation(sent)) is None:
        raise EngineUnavailable(f"no answer from {sent.node}")
